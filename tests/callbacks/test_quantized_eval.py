import csv
import itertools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from sklearn.datasets import load_digits

import keras_edgeq as eq
from keras_edgeq.callbacks import quantized_eval
from keras_edgeq.errors import CalibrationDataError, UnsupportedModelError
from keras_edgeq.runtime.artifact import load_artifact
from tests.harness import assert_same_arrays, snapshot

pytestmark = pytest.mark.slow

L = tf_keras.layers
LOSS = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def digits():
    """Images (1797, 8, 8, 1) in 0 to 1, and labels: training part, validation part."""
    images, labels = load_digits(return_X_y=True)
    images = np.float32(images / 16.0).reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:600], order[600:800]
    return (images[train], labels[train]), (images[test], labels[test])


def build(regularizer=None, dropout=0.0):
    """A small net with batch norms, so that folding matters."""
    tf_keras.utils.set_random_seed(0)
    x = tf_keras.Input((8, 8, 1), name="image")
    y = L.Conv2D(8, 3, use_bias=False, kernel_regularizer=regularizer)(x)
    y = L.ReLU()(L.BatchNormalization(momentum=0.8)(y))
    y = L.DepthwiseConv2D(3, use_bias=False)(y)
    y = L.ReLU()(L.BatchNormalization(momentum=0.8)(y))
    y = L.Dropout(dropout)(L.GlobalAveragePooling2D()(y))
    return tf_keras.Model(x, L.Dense(10, name="logits")(y))


def compiled(model, metrics=("accuracy",), **options):
    model.compile(tf_keras.optimizers.Adam(0.02), LOSS, metrics=list(metrics), **options)
    return model


def arrays(variables):
    return [variable.numpy() for variable in variables]


def fit(model, data, callbacks, epochs=2):
    return model.fit(*data, batch_size=100, epochs=epochs, verbose=0, callbacks=callbacks).history


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def scores_of(model, calibration, data, metrics=("accuracy",), **options):
    """What quantizing from scratch and evaluating gives."""
    sim = eq.quantize(model, calibration, progress=False, **options)
    sim.compile(loss=LOSS, metrics=list(metrics))
    return sim, sim.evaluate(*data, verbose=0, return_dict=True)


class FromScratch(tf_keras.callbacks.Callback):
    """Quantizes from scratch at each epoch's end, as a reference."""

    def __init__(self, calibration, data):
        super().__init__()
        self.calibration, self.data, self.seen = calibration, data, []

    def on_epoch_end(self, epoch, logs=None):
        self.sim, scores = scores_of(self.model, self.calibration, self.data)
        self.seen.append(scores)


def test_each_epoch_logs_what_quantizing_from_scratch_gives(digits):
    train, test = digits
    calibration = train[0][:100]
    quantized = eq.callbacks.QuantizedEval(calibration, test)
    reference = FromScratch(calibration, test)
    history = fit(compiled(build()), train, [quantized, reference], epochs=3)
    assert history["val_quant_accuracy"] == [s["accuracy"] for s in reference.seen]
    assert history["val_quant_loss"] == [s["loss"] for s in reference.seen]
    assert len(set(history["val_quant_loss"])) == 3
    assert history["val_quant_accuracy"][-1] > history["val_quant_accuracy"][0]
    assert_same_arrays(reference.sim.get_weights(), quantized.sim.get_weights())
    wanted, got = reference.sim.stats.histograms, quantized.sim.stats.histograms
    assert wanted.keys() == got.keys()
    assert_same_arrays([h.counts for h in wanted.values()], [h.counts for h in got.values()])


def test_training_is_the_same_with_and_without(digits):
    train, test = digits
    models = []
    for callbacks in ([], [eq.callbacks.QuantizedEval(train[0][:50], test)]):
        model = compiled(build(dropout=0.3))
        model.fit(
            *train, batch_size=100, epochs=2, verbose=0, validation_data=test, callbacks=callbacks
        )
        following = L.Dense(3)
        following.build((None, 4))
        models.append((model, following))
    (plain, after_plain), (watched, after_watched) = models
    assert_same_arrays(plain.get_weights(), watched.get_weights())
    assert_same_arrays(arrays(plain.optimizer.variables), arrays(watched.optimizer.variables))
    assert_same_arrays(after_plain.get_weights(), after_watched.get_weights())
    wanted = plain.history.history
    assert {name: watched.history.history[name] for name in wanted} == wanted


class Unchanged(tf_keras.callbacks.Callback):
    """Runs a callback's epoch end between two snapshots of the model."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.epochs = inner, 0

    def on_train_begin(self, logs=None):
        self.inner.set_model(self.model)
        self.inner.set_params(self.params)
        self.inner.on_train_begin(logs)

    def state(self):
        metrics = [w for metric in self.model.metrics for w in metric.variables]
        return arrays([*self.model.optimizer.variables, *metrics])

    def on_epoch_end(self, epoch, logs=None):
        model, before, state = self.model, snapshot(self.model), self.state()
        parts = (model.compiled_loss, model.compiled_metrics, model.optimizer, model.train_function)
        self.inner.on_epoch_end(epoch, logs)
        after = snapshot(model)
        assert_same_arrays(before[0], after[0])
        assert before[1:] == after[1:]
        assert_same_arrays(state, self.state())
        now = (model.compiled_loss, model.compiled_metrics, model.optimizer, model.train_function)
        assert all(a is b for a, b in zip(parts, now, strict=True))
        self.epochs += 1


def test_model_optimizer_and_metrics_stay_as_they_are(digits):
    train, test = digits
    metric = tf_keras.metrics.SparseTopKCategoricalAccuracy(3, name="top3")
    model = compiled(build(), metrics=["accuracy", metric])
    watched = Unchanged(eq.callbacks.QuantizedEval(train[0][:50], test))
    history = fit(model, train, [watched])
    assert watched.epochs == 2
    assert len(history["val_quant_top3"]) == 2


def test_nothing_is_built_or_traced_after_the_first_epoch(digits):
    train, test = digits
    quantized = eq.callbacks.QuantizedEval(
        train[0][:50], tf.data.Dataset.from_tensor_slices(test).batch(64)
    )
    counts = []

    def count(epoch, logs):
        counts.append(
            (id(quantized.sim), quantized.sim.test_function.experimental_get_tracing_count())
        )

    watch = tf_keras.callbacks.LambdaCallback(on_epoch_end=count)
    fit(compiled(build()), train, [quantized, watch], epochs=3)
    assert len(counts) == 3
    assert len(set(counts)) == 1


def test_early_stopping_checkpoint_and_csv_see_the_value(digits, tmp_path):
    train, test = digits
    quantized = eq.callbacks.QuantizedEval(train[0][:50], test)
    best = tf_keras.callbacks.ModelCheckpoint(
        str(tmp_path / "best.keras"), monitor="val_quant_accuracy", mode="max", save_best_only=True
    )
    stop = tf_keras.callbacks.EarlyStopping(
        monitor="val_quant_accuracy", mode="max", baseline=1.1, patience=2
    )
    log = tf_keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = fit(compiled(build()), train, [quantized, best, stop, log], epochs=6)
    seen = history["val_quant_accuracy"]
    assert len(seen) == 2
    assert [float(row["val_quant_accuracy"]) for row in rows_of(tmp_path / "log.csv")] == seen
    kept = tf_keras.models.load_model(tmp_path / "best.keras")
    assert scores_of(kept, train[0][:50], test)[1]["accuracy"] == max(seen)


def test_epochs_in_between_log_nan(digits, tmp_path):
    train, test = digits
    quantized = eq.callbacks.QuantizedEval(train[0][:50], test, every=3)
    log = tf_keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = fit(compiled(build()), train, [quantized, log], epochs=6)
    known = [i for i, value in enumerate(history["val_quant_loss"]) if not np.isnan(value)]
    assert known == [0, 3, 5]
    assert len(rows_of(tmp_path / "log.csv")) == 6


def test_the_loss_counts_the_regularization_of_the_float_weights(digits):
    train, test = digits
    model = compiled(build(tf_keras.regularizers.L2(0.1)))
    quantized = eq.callbacks.QuantizedEval(train[0][:50], test)
    history = fit(model, train, [quantized], epochs=1)
    logits = np.float64(quantized.sim.predict(test[0], verbose=0))
    logits -= logits.max(1, keepdims=True)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    data_loss = -np.mean(np.log(chances[np.arange(len(chances)), test[1]]))
    penalty = 0.1 * np.sum(np.square(np.float64(model.layers[1].kernel)))
    np.testing.assert_allclose(history["val_quant_loss"][0], data_loss + penalty, rtol=1e-5)


def test_two_outputs_are_scored_under_their_names(digits):
    train, test = digits
    tf_keras.utils.set_random_seed(0)
    x = tf_keras.Input((8, 8, 1))
    y = L.Flatten()(x)
    model = tf_keras.Model(
        x, {"digit": L.Dense(10, name="digit")(y), "odd": L.Dense(1, name="odd")(y)}
    )
    model.compile(
        "adam",
        {"digit": LOSS, "odd": tf_keras.losses.BinaryCrossentropy(from_logits=True)},
        metrics={"digit": ["accuracy"], "odd": [tf_keras.metrics.BinaryAccuracy(threshold=0.0)]},
        loss_weights={"digit": 1.0, "odd": 0.5},
    )

    def labelled(part):
        return part[0], {"digit": part[1], "odd": np.float32(part[1] % 2)[:, None]}

    quantized = eq.callbacks.QuantizedEval(train[0][:50], labelled(test))
    history = fit(model, labelled(train), [quantized], epochs=1)
    names = {name for name in history if name.startswith("val_quant_")}
    ends = ("loss", "digit_loss", "odd_loss", "digit_accuracy", "odd_binary_accuracy")
    assert names == {f"val_quant_{end}" for end in ends}
    total = history["val_quant_digit_loss"][0] + 0.5 * history["val_quant_odd_loss"][0]
    assert history["val_quant_loss"][0] == pytest.approx(total, rel=1e-6)


def test_sample_weights_count(digits):
    train, (x, y) = digits
    model = compiled(build(), metrics=(), weighted_metrics=["accuracy"])
    weights = np.float32(y == 3)
    quantized = eq.callbacks.QuantizedEval(train[0][:50], (x, y, weights))
    history = fit(model, train, [quantized], epochs=1)
    hits = np.argmax(quantized.sim.predict(x, verbose=0), 1) == y
    assert history["val_quant_accuracy"][0] == pytest.approx(hits[y == 3].mean())


def test_a_generator_is_read_once_and_kept(digits):
    train, test = digits
    read = []

    def generator():
        for start in range(0, 100, 50):
            read.append(start)
            yield train[0][start : start + 50]

    once = eq.callbacks.QuantizedEval(generator(), test)
    again = eq.callbacks.QuantizedEval(train[0][:100], test)
    history = fit(compiled(build()), train, [once], epochs=2)
    assert read == [0, 50]
    assert history == fit(compiled(build()), train, [again], epochs=2)


def test_a_generator_too_large_to_keep_is_an_error(digits, monkeypatch):
    train, test = digits
    monkeypatch.setattr(quantized_eval, "KEPT_BYTES", 20_000)
    endless = itertools.repeat(train[0][:50])
    quantized = eq.callbacks.QuantizedEval(endless, test)
    with pytest.raises(CalibrationDataError, match=r"only once and holds more than 20000 bytes"):
        fit(compiled(build()), train, [quantized])


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (iter([1]), "can be read only once"),
        (tf.data.Dataset.from_tensors((0.0, 0)).repeat(), "repeats forever"),
        ((np.zeros(3),), "tuple of 1"),
    ],
)
def test_validation_data_that_cannot_be_read_each_epoch_is_an_error(validation, message):
    with pytest.raises(CalibrationDataError, match=message):
        eq.callbacks.QuantizedEval(np.zeros((4, 8, 8, 1)), validation)


def test_calibration_data_is_needed(digits):
    with pytest.raises(CalibrationDataError, match="Calibration data is None"):
        eq.callbacks.QuantizedEval(None, digits[1])


def test_precisions_stay_through_the_epochs(digits):
    train, test = digits
    options = {"precision": {"logits": "W8A16"}}
    quantized = eq.callbacks.QuantizedEval(train[0][:50], test, **options)
    model = compiled(build())
    history = fit(model, train, [quantized], epochs=2)
    sim, scores = scores_of(model, train[0][:50], test, **options)
    assert sim.quantizers()["logits"].encoding.spec.bits == 16
    assert history["val_quant_loss"][-1] == scores["loss"]
    assert_same_arrays(sim.get_weights(), quantized.sim.get_weights())


def test_every_is_at_least_one(digits):
    with pytest.raises(ValueError, match="every is 0"):
        eq.callbacks.QuantizedEval(digits[0][0], digits[1], every=0)


class Subclassed(tf_keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(10)

    def call(self, x):
        return self.dense(tf.reshape(x, (-1, 64)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Subclassed, "is subclassed"),
        (lambda: tf_keras.Sequential([L.Flatten(), L.Dense(10)]), "is not built"),
    ],
)
def test_a_model_that_cannot_be_quantized_fails_before_the_first_epoch(digits, make, message):
    train, test = digits
    seen = []
    watch = tf_keras.callbacks.LambdaCallback(on_batch_begin=lambda batch, logs: seen.append(batch))
    with pytest.raises(UnsupportedModelError, match=message):
        fit(compiled(make()), train, [watch, eq.callbacks.QuantizedEval(train[0], test)])
    assert seen == []


def test_a_model_without_loss_and_metrics_is_an_error(digits):
    train, test = digits
    model = build()
    model.add_loss(tf.reduce_mean(tf.square(model.output)))
    model.compile("adam")
    with pytest.raises(UnsupportedModelError, match="compiled without loss and metrics"):
        fit(model, train, [eq.callbacks.QuantizedEval(train[0][:50], test)])


class Uncopyable(tf_keras.metrics.Metric):
    def __init__(self, power):
        super().__init__(name="uncopyable")

    def update_state(self, y_true, y_pred, sample_weight=None):
        return None

    def result(self):
        return 0.0


def test_a_metric_that_cannot_be_copied_is_named(digits):
    train, test = digits
    model = compiled(build(), metrics=[Uncopyable(2)])
    with pytest.raises(
        UnsupportedModelError, match=r"(?s)'uncopyable' cannot be copied.*get_config"
    ):
        fit(model, train, [eq.callbacks.QuantizedEval(train[0][:50], test)])


def test_the_sim_of_the_last_epoch_exports(digits, tmp_path):
    train, test = digits
    quantized = eq.callbacks.QuantizedEval(train[0][:100], test)
    history = fit(compiled(build()), train, [quantized], epochs=2)
    report = eq.export(quantized.sim, tmp_path, ["tflite"], progress=False)
    logits = load_artifact(report.files["tflite"], quantized.sim)[0].outputs([test[0]])[0]
    accuracy = np.mean(np.argmax(logits, 1) == test[1])
    assert accuracy == pytest.approx(history["val_quant_accuracy"][-1], abs=1e-6)
