"""Train a 4-bit sim with `fit`: learned ranges, batch norms kept, the best epoch exported.

    python -m pip install -c constraints.txt ".[all]" && python examples/02_qat.py

Takes about half a minute on two cores. Expected: rounding to 4-bit weights costs the small model
several percent of accuracy, and training gets them back. The TFLite file of the best epoch
agrees with the sim. Writes to out/qat in the working directory, again each time.
"""

import shutil

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
    L.Conv2D(8, 3, padding="same", use_bias=False),
    L.BatchNormalization(),
    L.ReLU(),
    L.SeparableConv2D(16, 3, padding="same", use_bias=False),
    L.BatchNormalization(),
    L.ReLU(),
    L.SeparableConv2D(24, 3, strides=2, padding="same", use_bias=False),
    L.BatchNormalization(),
    L.ReLU(),
    L.GlobalAveragePooling2D(),
    L.Dense(10, name="digit"),
])  # fmt: skip
loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
model.fit(train_x, train_y, epochs=20, verbose=0)


def show(name, either):
    """Print the accuracy of a compiled model."""
    print(f"{name}: {100 * either.evaluate(test_x, test_y, verbose=0)[1]:.1f} % accuracy")


# int4 weights, int8 activations. Batch norms stay and train; ranges are trained as weights are.
calibration = train_x[:300]
sim = eq.quantize(model, calibration, precision={"*": "W4A8"}, batch_norm="train", progress=False)
sim = eq.learn_ranges(sim)
epochs, rows = 6, len(train_x) - 200
rate = tf_keras.optimizers.schedules.CosineDecay(5e-3, epochs * -(-rows // 32))
sim.compile(tf_keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
show("float", model)
show("rounded to the nearest", sim)

# The last epochs run on fixed statistics, as the device will. Of all epochs, the one that does best
# on images that are not trained on is exported, and compared with the sim on its real runtime.
shutil.rmtree("out/qat", ignore_errors=True)
best = eq.callbacks.ExportBest("out/qat", "val_accuracy", formats=["tflite"], verify=test_x[:100])
sim.fit(
    train_x[:rows],
    train_y[:rows],
    epochs=epochs,
    validation_data=(train_x[rows:], train_y[rows:]),
    callbacks=[eq.callbacks.FreezeBatchNorm(epochs - 2), best],
    verbose=0,
)
show("trained", sim)
print(best.report)
if not all(run.agrees for run in best.report.runs):
    raise SystemExit("the exported file does not do what the sim said")
