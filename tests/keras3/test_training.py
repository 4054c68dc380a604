"""A sim trains with losses, metrics and optimizers of Keras 3; its callbacks are refused."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import TrainingError
from keras_edgeq.keras3.training import as_tf_keras_training

keras = pytest.importorskip("keras", minversion="3.0")
pytestmark = pytest.mark.filterwarnings("ignore")  # Keras 3 with NumPy 2, and old optimizers

# Not in tf_keras.
NEW = {
    "losses": {
        "CTC", "CategoricalGeneralizedCrossEntropy", "Circle", "Dice", "Tversky",
    },
    "metrics": {
        "ConcordanceCorrelation", "ConcordanceIndex", "PearsonCorrelation", "SpearmanCorrelation",
    },
    "optimizers": {"Lamb", "LossScaleOptimizer", "MultiOptimizer", "Muon", "ScheduleFreeAdamW"},
}  # fmt: skip
BASES = {"losses": "Loss", "metrics": "Metric", "optimizers": "Optimizer"}
ARGUMENTS = {
    "MeanIoU": {"num_classes": 3}, "IoU": {"num_classes": 2, "target_class_ids": [1]},
    "OneHotIoU": {"num_classes": 4, "target_class_ids": [1]}, "OneHotMeanIoU": {"num_classes": 4},
    "SensitivityAtSpecificity": {"specificity": 0.5}, "PrecisionAtRecall": {"recall": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5}, "RecallAtPrecision": {"precision": 0.5},
    "BinaryIoU": {"threshold": 0.4}, "Huber": {"delta": 0.3},
    "CategoricalCrossentropy": {"label_smoothing": 0.1}, "TopKCategoricalAccuracy": {"k": 2},
    "BinaryFocalCrossentropy": {"gamma": 1.0, "apply_class_balancing": True},
    "F1Score": {"average": "macro"}, "FBetaScore": {"beta": 0.5}, "AUC": {"num_thresholds": 20},
    "SGD": {"momentum": 0.5, "nesterov": True, "clipnorm": 0.7}, "RMSprop": {"centered": True},
    "AdamW": {"weight_decay": 0.02}, "Adam": {"amsgrad": True, "beta_1": 0.8},
    "SparseTopKCategoricalAccuracy": {"k": 2},
    "SparseCategoricalCrossentropy": {"from_logits": True},
    "LossScaleOptimizer": {"inner_optimizer": keras.optimizers.SGD()},
    "MultiOptimizer": {"optimizer_map": {".*": keras.optimizers.SGD()}},
}  # fmt: skip


def classes(kind):
    """Return the classes of a module of Keras 3, without what others derive from."""
    module, base = getattr(keras, kind), getattr(getattr(keras, kind), BASES[kind])
    found = {n: c for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, base)}
    bases = {BASES[kind], "MeanMetricWrapper", "LossFunctionWrapper"}
    return sorted(n for n, c in found.items() if n not in bases and c.__name__ == n)


def made(kind, name):
    return getattr(getattr(keras, kind), name)(**ARGUMENTS.get(name, {}))


@pytest.mark.parametrize("kind", BASES)
def test_what_tf_keras_lacks_is_said_by_name(kind):
    for name in NEW[kind].intersection(classes(kind)):
        with pytest.raises(TrainingError, match=f"keras.{kind}.{name} .*not in tf_keras"):
            as_tf_keras_training(made(kind, name))
    for name in set(classes(kind)) - NEW[kind]:
        assert hasattr(getattr(tf_keras, kind), name)


def labels_for(name, rng):
    """Return labels and predictions of a class's own kind."""
    made = rng.uniform(0.1, 0.9, (8, 4)).astype("float32")
    made /= made.sum(1, keepdims=True)
    if name.startswith("Sparse") or name in ("MeanIoU",):
        return rng.integers(0, 3, (8, 1)), made if name != "MeanIoU" else rng.integers(0, 3, (8, 1))
    if name in ("IoU",):
        return rng.integers(0, 2, (8, 4)), rng.integers(0, 2, (8, 4))
    if name in ("Hinge", "SquaredHinge", "CategoricalHinge"):
        return rng.choice([-1.0, 1.0], (8, 4)).astype("float32"), made
    return np.eye(4, dtype="float32")[rng.integers(0, 4, 8)], made


@pytest.mark.parametrize("kind", ["losses", "metrics"])
def test_losses_and_metrics_compute_what_those_of_keras_3_do(kind):
    rng = np.random.default_rng(0)
    compared = 0
    for name in classes(kind):
        if name in NEW[kind] or (name == "SparseCategoricalCrossentropy" and kind == "metrics"):
            continue
        theirs = made(kind, name)
        ours = as_tf_keras_training(theirs)
        assert isinstance(ours, getattr(tf_keras, kind).__dict__[name])
        assert ours.name == theirs.name
        if name in ("Mean", "Sum", "MeanTensor"):
            given = (np.arange(4.0, dtype="float32"),)
        elif name in ("MeanRelativeError",):
            continue
        else:
            given = labels_for(name, rng)
        weights = () if kind == "metrics" else (rng.uniform(0.5, 2.0, 8).astype("float32"),)
        wanted = np.asarray(theirs(*given, *weights))
        np.testing.assert_allclose(
            wanted, np.asarray(ours(*given, *weights)), rtol=2e-5, err_msg=name
        )
        compared += 1
    assert compared > 12


def test_reductions_are_those_of_keras_3():
    rng = np.random.default_rng(0)
    labels, outputs = labels_for("MeanSquaredError", rng)
    for reduction in ("sum_over_batch_size", "sum", "none", None):
        theirs = keras.losses.MeanSquaredError(reduction=reduction)
        ours = as_tf_keras_training(theirs)
        np.testing.assert_allclose(theirs(labels, outputs), ours(labels, outputs), rtol=1e-6)


@pytest.mark.parametrize("name", sorted(set(classes("optimizers")) - NEW["optimizers"]))
def test_optimizers_take_the_steps_that_those_of_keras_3_do(name):
    theirs = made("optimizers", name)
    theirs.learning_rate = 0.1
    ours = as_tf_keras_training(theirs)
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 4)).astype("float32")
    a, b = keras.Variable(start), tf.Variable(start)
    for _ in range(4):
        gradient = tf.constant(rng.normal(size=(3, 4)).astype("float32"))
        theirs.apply([gradient], [a])
        ours.apply_gradients([(gradient, b)])
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(TrainingError, match="has taken 4 steps"):
        as_tf_keras_training(theirs)


def test_schedules_go_with_their_optimizer():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 2, 0.5, staircase=True)
    ours = as_tf_keras_training(keras.optimizers.SGD(schedule))
    b = tf.Variable([0.0])
    for _ in range(4):
        ours.apply_gradients([(tf.constant([1.0]), b)])
    np.testing.assert_allclose(b.numpy(), [-(0.5 + 0.5 + 0.25 + 0.25)])


def test_settings_that_tf_keras_lacks_are_named():
    with pytest.raises(TrainingError, match="gradient_accumulation_steps=4"):
        as_tf_keras_training(keras.optimizers.Adam(gradient_accumulation_steps=4))
    excluding = keras.optimizers.AdamW()
    excluding.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(TrainingError, match="exclude_from_weight_decay"):
        as_tf_keras_training(excluding)


def test_what_is_not_of_keras_3_stays():
    def own(labels, outputs):
        return labels - outputs

    for given in ("adam", own, tf_keras.losses.MeanSquaredError(), None, 1e-3):
        assert as_tf_keras_training(given) is given
    assert as_tf_keras_training({"a": ["mse", own]}) == {"a": ["mse", own]}


def sim_and_data():
    tf_keras.utils.set_random_seed(0)
    x = tf_keras.Input((6,))
    y = tf_keras.layers.Dense(3, name="out")(tf_keras.layers.Dense(8, activation="relu")(x))
    data = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    return (
        eq.quantize(tf_keras.Model(x, y), data, progress=False),
        data,
        (data[:, 0] > 0).astype(int),
    )


def objects(library):
    return {
        "optimizer": library.optimizers.Adam(0.01),
        "loss": library.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": [library.metrics.SparseCategoricalAccuracy(name="acc")],
    }


@pytest.mark.slow
def test_fit_and_train_are_those_with_tf_keras(tmp_path):
    histories = []
    for library in (keras, tf_keras):
        sim, x, y = sim_and_data()
        start = sim.get_weights()
        sim.compile(**objects(library))
        weights = np.linspace(0.5, 2.0, 32)
        fitted = sim.fit(x, y, 8, 2, 0, sample_weight=weights, shuffle=False)
        sim.set_weights(start)
        trained = eq.qat.train(
            sim, (x, y, weights), epochs=2, shuffle=False, progress=False, **objects(library)
        )
        histories.append([*fitted.history.values(), *trained.history.values()])
        eq.save_sim(sim, tmp_path / "sim.keras")
        assert eq.load_sim(tmp_path / "sim.keras").loss.name == "sparse_categorical_crossentropy"
    np.testing.assert_allclose(*histories, rtol=1e-4)


class Own(keras.callbacks.Callback):
    pass


def test_callbacks_of_keras_3_are_refused_with_the_name_to_use():
    sim, x, y = sim_and_data()
    sim.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(TrainingError, match=r"Give tf_keras\.callbacks\.EarlyStopping"):
        sim.fit(x, y, verbose=0, callbacks=[keras.callbacks.EarlyStopping()])
    with pytest.raises(TrainingError, match=r"Own is of Keras 3.*derives from tf_keras\.callbacks"):
        sim.fit(x, y, verbose=0, callbacks=Own())
    with pytest.raises(TrainingError, match=r"tf_keras\.callbacks\.CSVLogger"):
        eq.qat.train(sim, x, epochs=1, callbacks=[keras.callbacks.CSVLogger("x")])


@pytest.mark.slow
def test_a_sim_trains_where_keras_3_is_missing():
    code = (
        "import sys; sys.modules['keras'] = None\n"
        "import numpy as np, tf_keras, keras_edgeq as eq\n"
        "x = np.ones((8, 4), 'float32')\n"
        "model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(2)])\n"
        "sim = eq.quantize(model, x, progress=False)\n"
        "sim.compile('adam', 'mse')\n"
        "print(sim.fit(x, x[:, :2], verbose=0).epoch)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "[0]", run.stderr
