"""Round the weights of a model to 4 bits without retraining, and export it.

    python -m pip install -c constraints.txt ".[all]" && python examples/05_adaround_4_bits.py

Takes about a minute on two cores. Expected: a line per sim with accuracy, agreement with the float
model and SQNR. GPTQ regains most of what rounding to the nearest loses; AdaRound comes out near it,
as a model this small leaves little to gain. Then a TFLite file with int4 weights in agreement with
the sim. Writes to out/4_bits in the working directory.
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
    L.Conv2D(16, 3, padding="same", activation="relu"),
    L.SeparableConv2D(32, 3, padding="same", use_bias=False),
    L.BatchNormalization(),
    L.ReLU(),
    L.SeparableConv2D(48, 3, strides=2, padding="same", use_bias=False),
    L.BatchNormalization(),
    L.ReLU(),
    L.GlobalAveragePooling2D(),
    L.Dense(10, name="digit"),
])  # fmt: skip
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


# int4 weights, int8 activations, each weight rounded to the nearest.
calibration = train_x[:300]
sim = eq.quantize(model, calibration, precision={"*": "W4A8"}, progress=False)
show("nearest", sim)

# Both take a sim and return a better one, and both aim at the float weights. AdaRound begins at
# the closed form of GPTQ and stops early where rounding has settled; large models take it long.
fast = eq.gptq(sim, calibration, progress=False)
show("gptq", fast)
fine = eq.adaround(sim, calibration, unit="block", iterations=3000, progress=False)
show("adaround", fine)

# The file runs on LiteRT and is compared with the sim.
report = eq.export(fine, "out/4_bits", ["tflite"], verify=test_x, progress=False)
print(report)
if not all(run.agrees for run in report.runs):
    raise SystemExit("the exported file does not do what the sim said")
