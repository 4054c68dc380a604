"""Equalize a model for a target that has one weight scale per tensor.

    python -m pip install -c constraints.txt ".[all]" && python examples/04_equalize_per_tensor.py

Takes about a minute on two cores. Expected: the equalized float model equal to the given one within
0.0001; then a line per sim with its agreement with the float model and its SQNR, which is more than
ten dB higher after equalization, and higher again with corrected biases; a TFLite file in agreement
with the sim. Writes to out/per_tensor in the working directory.
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


def conv(layer):
    """Return a layer, its batch norm and its activation."""
    return [layer, L.BatchNormalization(), L.ReLU(6.0)]


model = tf_keras.Sequential([
    tf_keras.Input((8, 8, 1), name="image"),
    *conv(L.Conv2D(16, 3, padding="same", use_bias=False)),
    *conv(L.DepthwiseConv2D(3, padding="same", use_bias=False)),
    *conv(L.Conv2D(32, 1, use_bias=False)),
    *conv(L.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)),
    *conv(L.Conv2D(64, 1, use_bias=False)),
    L.GlobalAveragePooling2D(),
    L.Dense(10, name="digit"),
])  # fmt: skip
loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
model.fit(train_x, train_y, epochs=20, verbose=0)

# Channels of trained mobile networks differ a hundredfold. Those of a network this small do not, so
# they are spread by hand: what a channel loses here, the kernel behind gives back.
norm, depthwise = model.layers[1], model.layers[3]
spread = np.geomspace(0.01, 1.0, 16)
gamma, beta, *moments = norm.get_weights()
norm.set_weights([gamma * spread, beta * spread, *moments])
depthwise.set_weights([depthwise.get_weights()[0] / spread[:, None]])

floats = model.predict(test_x, verbose=0)
print(f"float: {100 * np.mean(floats.argmax(1) == test_y):.1f} % accuracy")

# All channels of a kernel share a scale on this target, so they are brought together first. The
# function of the float model stays, ReLU6 included.
calibration = train_x[:300]
equalized = eq.equalize(model, calibration, progress=False)
moved = np.abs(equalized.predict(test_x, verbose=0) - floats).max() / np.abs(floats).max()
print(f"equalized: off by {moved:.1e} of the largest logit")

target = "litert_int8_per_tensor"
plain = eq.quantize(model, calibration, target, progress=False)
even = eq.quantize(equalized, calibration, target, progress=False)
corrected = eq.correct_bias(even, calibration, progress=False)
sims = {"as it is": plain, "equalized": even, "and biases corrected": corrected}
for name, sim in sims.items():
    ours = sim.predict(test_x, verbose=0)
    print(f"{name}: {agreement(floats, ours):.1f} % agree, {sqnr_db(floats, ours):.1f} dB")

# The file runs on LiteRT and is compared with the sim.
report = eq.export(corrected, "out/per_tensor", ["tflite"], verify=test_x, progress=False)
print(report)
if moved > 1e-4 or not all(run.agrees for run in report.runs):
    raise SystemExit("the equalized model or the exported file is another function")
