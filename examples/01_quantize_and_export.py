"""Quantize your own model, look at the sim, export it and check what was written.

    python -m pip install -c constraints.txt ".[all]" && python examples/01_quantize_and_export.py

Takes about a minute on two cores. Expected: float and sim within one percent of each other and
above 95 % accuracy, every layer in integers, every exported file in agreement with the sim. Writes
to out/digits in the working directory.
"""

import tf_keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_edgeq as eq

L = tf_keras.layers
tf_keras.utils.set_random_seed(0)

# Your data and your model, trained as always. Note tf_keras, not tf.keras.
images, labels = load_digits(return_X_y=True)
x = images.reshape(-1, 8, 8, 1).astype("float32") / 16.0
train_x, test_x, train_y, test_y = train_test_split(x, labels, random_state=0)
model = tf_keras.Sequential([
    tf_keras.Input((8, 8, 1), name="image"),
    L.Conv2D(16, 3, padding="same", use_bias=False),
    L.BatchNormalization(),
    L.ReLU(),
    L.SeparableConv2D(32, 3, padding="same", activation="relu"),
    L.MaxPooling2D(),
    L.Conv2D(32, 3, activation="relu"),
    L.Flatten(),
    L.Dense(10, activation="softmax", name="digit"),
])  # fmt: skip
compiled = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
model.compile("adam", **compiled)
model.fit(train_x, train_y, epochs=30, verbose=0)

# What the target will make of it, before any data is read.
print(eq.describe(model, "litert_int8"))

# A few hundred typical inputs give the activations their ranges. The sim is a Keras model.
sim = eq.quantize(model, train_x[:300], profile="litert_int8")
sim.compile(**compiled)
for name, either in (("float", model), ("sim", sim)):
    print(f"{name}: {100 * either.evaluate(test_x, test_y, verbose=0)[1]:.1f} % accuracy")

# Files for the target. Each one runs on its real runtime and is compared with the sim.
eq.save_sim(sim, "out/digits/sim.keras")
report = eq.export(sim, "out/digits", verify=test_x)
print(report)
if not all(run.agrees for run in report.runs):
    raise SystemExit("an exported file does not do what the sim said")
