"""Say what may be lost, and let the package find the sim: 8 bits, then 4 bits with a guard.

    python -m pip install -c constraints.txt ".[all]" && python examples/08_auto_quantize.py

Takes about two minutes on two cores. Expected: the stages that were needed, with the accuracy of
each and its standard error. On litert_int8, calibration is enough. On litert_w4a8 it is not, and
the stages after it are tried until one is. Then the accuracy on samples that no stage saw, and the
TFLite file, which does what the sim said. Exits with an error where it does not, or where a target
is missed. Writes to out/auto in the working directory: open w4a8.html for the picture, and
diagnosis.html for what is left.
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
train_x, test_x, train_y, test_y = train_test_split(x, labels, test_size=0.5, random_state=0)
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
model.fit(train_x, train_y, epochs=80, verbose=0)

# Half of the samples are fitted to, a quarter chooses, and a quarter judges the end.
missed = []
for profile, drop in (("litert_int8", 0.01), ("litert_w4a8", 0.01)):
    result = eq.auto_quantize(
        model,
        (test_x, test_y),
        profile,
        score="accuracy",
        max_drop=drop,
        folder="out/auto/stages",
        progress=False,
    )
    print(f"{profile}, at most {100 * drop:g} points of accuracy lost")
    print(result, end="\n\n")
    missed += [] if result.met else [profile]

result.save("out/auto/w4a8.html")
result.diagnosis.save("out/auto/diagnosis.html")
report = eq.export(result.sim, "out/auto", ["tflite"], verify=test_x, progress=False)
print(report)
if missed:
    raise SystemExit(f"the target was missed on {', '.join(missed)}")
if not all(run.agrees for run in report.runs):
    raise SystemExit("an exported file does not do what the sim said")
