"""Train a 3-bit sim on what its float model says, without a label.

    python -m pip install ".[all]" && python examples/03_qat_custom_loop.py

Takes about half a minute on two cores. Expected: rounding to 3-bit weights and 4-bit activations
costs the float model several percent of accuracy, and distillation with learned ranges gets most of
it back from the training images alone.
"""

import numpy as np
import tf_keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_edgeq as eq
from keras_edgeq.qat.learn_ranges import learn_ranges

L = tf_keras.layers
tf_keras.utils.set_random_seed(0)

# Your data and your model, trained as always. Note tf_keras, not tf.keras.
images, labels = load_digits(return_X_y=True)
x = images.reshape(-1, 8, 8, 1).astype("float32") / 16.0
train_x, test_x, train_y, test_y = train_test_split(x, labels, random_state=0)
model = tf_keras.Sequential([
    tf_keras.Input((8, 8, 1), name="image"),
    L.Conv2D(16, 3, padding="same", activation="relu", name="stem"),
    L.SeparableConv2D(32, 3, padding="same", use_bias=False),
    L.BatchNormalization(),
    L.ReLU(name="middle"),
    L.SeparableConv2D(48, 3, strides=2, padding="same", use_bias=False),
    L.BatchNormalization(),
    L.ReLU(name="last"),
    L.GlobalAveragePooling2D(),
    L.Dense(10, name="digit"),
])  # fmt: skip
loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
model.fit(train_x, train_y, epochs=20, verbose=0)


def show(name, either):
    """Print the accuracy of a model."""
    guesses = either.predict(test_x, verbose=0).argmax(1)
    print(f"{name}: {100 * np.mean(guesses == test_y):.1f} % accuracy")


show("float", model)
sim = eq.quantize(model, train_x[:300], precision={"*": "W4A8"}, progress=False)
show("W4A8, rounded to the nearest", sim)

sim = learn_ranges(sim)
result = eq.qat.train(
    sim,
    train_x,
    epochs=10,
    teacher=model,
    distillation=eq.qat.Distillation(outputs="kl", temperature=4.0, features=["last"]),
    optimizer=1e-3,
    range_optimizer=1e-3,
    progress=False,
)
show("W4A8, distilled", sim)
