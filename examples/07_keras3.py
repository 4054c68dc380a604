"""Quantize a model of Keras 3 (`import keras`), and bring weights back to it.

    python -m pip install -c constraints.txt ".[all]" && python examples/07_keras3.py

Takes about a minute on two cores. Expected: above 95 % accuracy in float and as a sim, a largest
difference between the model and its tf_keras form below 1e-5, and every exported file in agreement
with the sim. Writes to out/keras3 in the working directory.
"""

import keras
import numpy as np
from keras import layers, ops
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_edgeq as eq

keras.utils.set_random_seed(0)
images, labels = load_digits(return_X_y=True)
x = images.reshape(-1, 8, 8, 1).astype("float32") / 16.0
train_x, test_x, train_y, test_y = train_test_split(x, labels, random_state=0)

# Your model, trained as always: nested models, augmentation and calls of keras.ops included.
inner = keras.Input((8, 8, 1))
y = layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same", use_bias=False)(inner))
base = keras.Model(inner, layers.MaxPooling2D()(layers.ReLU(6.0)(y)), name="base")
image = keras.Input((8, 8, 1), name="image")
y = base(layers.RandomTranslation(0.05, 0.05)(image))
y = layers.Conv2D(32, 3, activation="hard_silu", name="conv")(y)
y = layers.Dropout(0.2)(ops.mean(y, axis=(1, 2)))
model = keras.Model(image, layers.Dense(10, activation="softmax", name="digit")(y))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train_x, train_y, epochs=40, verbose=0)

# quantize takes it as it is. What it works on is the equal tf_keras model, which you can have, too.
plain = eq.from_keras3(model)
gap = np.abs(plain.predict(test_x, verbose=0) - model.predict(test_x, verbose=0)).max()
print(f"largest difference between model and tf_keras form: {gap:.1e}")

sim = eq.quantize(model, train_x[:200], "litert_int8", progress=False)
for name, one in (("float", model), ("sim", sim)):
    hits = one.predict(test_x, verbose=0).argmax(-1) == test_y
    print(f"{name}: {100 * hits.mean():.1f} % accuracy")

report = eq.export(sim, "out/keras3", ["tflite", "onnx"], verify=test_x[:64], progress=False)
print(report)

# Weights that tf_keras trained go back into a copy of the model.
plain.set_weights([0.5 * w for w in plain.get_weights()])
back = eq.to_keras3(plain, like=model)
print("weights came back:", np.array_equal(back.get_weights()[0], plain.get_weights()[0]))
