"""Train a 4-bit sim on what its float model says, without a label.

    python -m pip install -c constraints.txt ".[all]" && python examples/03_qat_custom_loop.py

Takes about half a minute on two cores. Expected: a line per model with accuracy and SQNR against
the float model. Rounding to 4-bit weights costs some percent of accuracy; distillation with learned
ranges brings the outputs several dB nearer, from the training images alone. A second call with the
same folder returns at once: training that was killed would go on from there. Writes to
out/distilled in the working directory, again each time.
"""

import shutil

import numpy as np
import tf_keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_edgeq as eq
from keras_edgeq.numerics.metrics import sqnr_db

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


floats = model.predict(test_x, verbose=0)


def show(name, either):
    """Print how a model compares with the labels and the float model."""
    ours = either.predict(test_x, verbose=0)
    accuracy = 100 * np.mean(ours.argmax(1) == test_y)
    near = "" if either is model else f", {sqnr_db(floats, ours):.1f} dB"
    print(f"{name}: {accuracy:.1f} % accuracy{near}")


def new_sim():
    """Quantize to int4 weights and int8 activations, ranges to be learned."""
    sim = eq.quantize(model, train_x[:300], precision={"*": "W4A8"}, progress=False)
    return eq.learn_ranges(sim)


EPOCHS, BATCH = 12, 32
STEPS = EPOCHS * -(-len(train_x) // BATCH)


def adam(rate):
    """Return an optimizer whose learning rate falls to 0."""
    return tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.CosineDecay(rate, STEPS))


def distill(sim):
    """Train a sim on the outputs and two inner tensors of the float model."""
    return eq.qat.train(
        sim,
        train_x,
        epochs=EPOCHS,
        teacher=model,
        distillation=eq.qat.Distillation(features=["middle", "last"]),
        optimizer=adam(3e-3),
        range_optimizer=adam(1e-3),
        batch_size=BATCH,
        steps_per_execution=11,
        checkpoint="out/distilled",
        progress=False,
    )


show("float", model)
shutil.rmtree("out/distilled", ignore_errors=True)
sim = new_sim()
show("rounded to the nearest", sim)
result = distill(sim)
show(f"distilled in {result.steps} steps", sim)

again = new_sim()
print(f"epochs left to train: {len(distill(again).epochs)}")
show("restored", again)
