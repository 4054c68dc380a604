"""Give each layer 4 or 8 bits under a budget of bytes, look at the choice, and export it.

    python -m pip install -c constraints.txt ".[all]" && python examples/06_mixed_precision.py

Takes less than a minute on two cores. Expected: a line per sim with accuracy, agreement with the
float model and SQNR, lowest where all weights have 4 bits; then what the search found within 62.5 %
of the bytes of 8-bit weights, its Pareto curve, and a TFLite and an ONNX file that mix both widths
in agreement with the sim. Exits with an error where a file disagrees or the budget is exceeded.
Writes to out/mixed in the working directory: open search.html for the pictures.
"""

import numpy as np
import tf_keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import agreement, sqnr_db

L = tf_keras.layers
tf_keras.utils.set_random_seed(0)

# Your data and your model, trained as always. Note tf_keras, not tf.keras.
images, labels = load_digits(return_X_y=True)
x = images.reshape(-1, 8, 8, 1).astype("float32") / 16.0
train_x, test_x, train_y, test_y = train_test_split(x, labels, random_state=0)
model = tf_keras.Sequential([
    tf_keras.Input((8, 8, 1), name="image"),
    L.Conv2D(16, 3, padding="same", activation="relu", name="stem"),
    L.SeparableConv2D(32, 3, padding="same", use_bias=False, name="wide"),
    L.BatchNormalization(),
    L.ReLU(),
    L.SeparableConv2D(48, 3, strides=2, padding="same", use_bias=False, name="deep"),
    L.BatchNormalization(),
    L.ReLU(),
    L.GlobalAveragePooling2D(),
    L.Dense(10, name="digit"),
], name="digits")  # fmt: skip
loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
model.fit(train_x, train_y, epochs=20, verbose=0)
floats = model.predict(test_x, verbose=0)


def show(name, sim):
    """Print how a sim compares with the float model."""
    ours = sim.predict(test_x, verbose=0)
    accuracy = 100 * np.mean(ours.argmax(1) == test_y)
    close = f"{agreement(floats, ours):.1f} % agree, {sqnr_db(floats, ours):.1f} dB"
    print(f"{name}: {accuracy:.1f} % accuracy, {close}")


calibration, budget = train_x[:300], 0.625
sim = eq.quantize(model, calibration, profile="litert_int8", progress=False)
show("all W8A8", sim)
narrow = eq.requantize(sim, precision={"*": "W4A8"})
show("all W4A8, gptq", eq.gptq(narrow, calibration, progress=False))

# The weights of every candidate are rounded by GPTQ before they are judged. No labels are needed.
result = eq.search_mixed_precision(
    sim,
    calibration,
    candidates=["W4A8", "W8A8"],
    size=budget,
    rounding="gptq",
    progress=False,
)
show("mixed, gptq", result.model)
print(result)
result.save("out/mixed/search.html")
result.save("out/mixed/search.png")

# Both widths lie in one file; each runs on its runtime and is compared with the sim.
report = eq.export(result.model, "out/mixed", ["tflite", "onnx"], verify=test_x, progress=False)
print(report)
if result.best.size > budget:
    raise SystemExit(f"the weights take {result.best.size:.3f} of 8-bit bytes, asked was {budget}")
if not all(run.agrees for run in report.runs):
    raise SystemExit("an exported file does not do what the sim said")
