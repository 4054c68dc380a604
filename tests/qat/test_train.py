import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import EdgeqError, TrainingError, UnsupportedModelError
from keras_edgeq.qat import Distillation
from keras_edgeq.qat.descent import Descent
from keras_edgeq.qat.learn_ranges import learn_ranges
from keras_edgeq.sim.freeze import copy_sim
from tests.models import train_like
from tests.short import short

L = tf_keras.layers
SGD = tf_keras.optimizers.SGD
RNG = np.random.default_rng(0)
X = np.float32(RNG.normal(size=(20, 6)))
Y = RNG.integers(0, 3, 20)
POSITION = "position/.ATTRIBUTES/VARIABLE_VALUE"
LOSS = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def build(classes=3):
    x = tf_keras.Input((6,), name="x")
    y = L.Dense(8, activation="relu", kernel_regularizer="l2", name="hidden")(x)
    return train_like(tf_keras.Model(x, L.Dense(classes, name="logits")(y)))


@pytest.fixture(scope="module")
def float_model():
    return build()


@pytest.fixture(scope="module")
def calibrated(float_model):
    sim = eq.quantize(float_model, X, precision={"*": "W4A8"}, progress=False)
    return learn_ranges(sim, "hidden/*", "logits/*")


@pytest.fixture
def sim(calibrated):
    return copy_sim(calibrated)


def train(sim, data=(X, Y), epochs=1, **options):
    return eq.qat.train(sim, data, epochs=epochs, **{"progress": False, **options})


def arrays(sim):
    return [variable.numpy() for variable in sim.variables]


def assert_same(one, other):
    for a, b in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_array_equal(a, b)


class Kill(tf_keras.callbacks.Callback):
    """Interrupts training behind so many steps, as a lost machine does."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


class Listen(tf_keras.callbacks.Callback):
    """Writes down what it hears, and stops training after an epoch."""

    def __init__(self, last_epoch):
        super().__init__()
        self.heard, self.last_epoch = [], last_epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.heard.append(f"epoch {epoch}")
        self.optimizer = self.model.optimizer

    def on_train_batch_end(self, batch, logs=None):
        self.heard.append(f"batch {batch}")
        assert np.isfinite(logs["loss"])

    def on_test_end(self, logs=None):
        self.heard.append("test")

    def on_epoch_end(self, epoch, logs=None):
        self.heard.append(f"end {sorted(logs)}")
        self.model.stop_training = epoch == self.last_epoch


def test_a_step_is_the_gradient_of_all_terms_at_two_rates_and_clipped(sim, float_model):
    x, y, weights = X[:5], Y[:5], np.float32([1.0, 2.0, 0.0, 1.0, 0.5])
    ranges = {id(v) for v in sim.range_variables()}
    variables = sim.trainable_variables
    hidden = tf_keras.Model(float_model.inputs, float_model.get_layer("hidden").output)(x)
    logits = float_model(x)
    student = tf_keras.Model(sim.inputs, [sim.output, sim.get_layer("hidden/relu/quant").output[0]])
    with tf.GradientTape() as tape:
        ours, feature = student(x)
        t, s = (tf.nn.softmax(one / 2.0) for one in (logits, ours))
        parts = (
            tf_keras.losses.sparse_categorical_crossentropy(y, ours, from_logits=True) * weights
            + 4.0 * tf.reduce_sum(t * tf.math.log(t / s), axis=1)
            + tf.reduce_sum((hidden - feature) ** 2, 1) / tf.reduce_sum(hidden**2, 1)
        )
        kernel = sim.get_layer("hidden").layer.kernel
        loss = tf.reduce_mean(parts) + 0.01 * tf.reduce_sum(kernel**2)
    gradients = tape.gradient(loss, variables)
    norm = np.sqrt(sum(float(tf.reduce_sum(g**2)) for g in gradients))
    clip = 0.5 * norm
    wanted = [
        v.numpy() - (0.02 if id(v) in ranges else 0.1) * g.numpy() * clip / norm
        for v, g in zip(variables, gradients, strict=True)
    ]
    result = train(
        sim,
        (x, y, weights),
        loss=LOSS,
        teacher=float_model,
        distillation=Distillation(features=["hidden/relu"]),
        optimizer=SGD(0.1),
        range_optimizer=SGD(0.02),
        clip_norm=clip,
    )
    assert ranges
    for v, w in zip(variables, wanted, strict=True):
        np.testing.assert_allclose(v.numpy(), w, rtol=1e-4, atol=1e-6, err_msg=v.name)
    np.testing.assert_allclose(result.history["loss"], [float(loss)], rtol=1e-5)
    assert result.sim is sim


@pytest.mark.slow
def test_without_teacher_it_does_what_fit_does(sim):
    other = copy_sim(sim)
    other.compile(SGD(0.1, momentum=0.9), LOSS, metrics=["accuracy"])
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    fitted = other.fit(data, epochs=2, verbose=0, validation_data=(X, Y)).history
    options = {"optimizer": SGD(0.1, momentum=0.9), "metrics": ["accuracy"], "loss": LOSS}
    result = train(sim, data, 2, validation=(X, Y), steps_per_execution=2, **options)
    for a, b in zip(arrays(sim), arrays(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert (result.steps, result.epochs) == (6, (0, 1))
    for name in ("accuracy", "val_loss", "val_accuracy"):
        np.testing.assert_allclose(result.history[name], fitted[name], rtol=1e-5)
    assert set(result.history) == {*fitted, "label_loss", "val_label_loss"}


def test_a_teacher_alone_needs_no_labels_and_callbacks_see_all_of_it(sim):
    traces, listen = [], Listen(1)

    class Counted(L.Layer):
        def call(self, inputs):
            traces.append(1)
            return tf.identity(inputs)

    teacher = build()
    teacher = tf_keras.Model(teacher.input, Counted(name="last")(teacher.output))
    before = len(traces)
    options = {"steps_per_epoch": 3, "steps_per_execution": 2, "batch_size": 8}
    result = train(
        sim, X, 9, teacher=teacher, callbacks=[listen], optimizer=0.002, validation=X, **options
    )
    logs = "end ['loss', 'teacher_loss', 'val_loss', 'val_teacher_loss']"
    epoch = ["batch 1", "batch 2", "test", logs]
    assert listen.heard == ["epoch 0", *epoch, "epoch 1", *epoch]
    assert isinstance(listen.optimizer, tf_keras.optimizers.Adam)
    assert sim.optimizer is None
    assert result.history["val_teacher_loss"][1] < result.history["val_teacher_loss"][0]
    # Preparing the teacher calls the layer; then one trace for steps and one for validation.
    assert len(traces) - before <= 2 + 6


@pytest.mark.parametrize("steps_per_epoch", short([None, 4], None))
def test_training_that_was_killed_ends_with_the_same_weights(calibrated, tmp_path, steps_per_epoch):
    options = {
        "loss": LOSS,
        "distillation": Distillation(features=["hidden/relu"]),
        "optimizer": 0.01,
        "range_optimizer": SGD(0.01, momentum=0.9),
        "batch_size": 8,
        "steps_per_epoch": steps_per_epoch,
        "epochs": 3,
    }

    def fresh():
        return {**options, "range_optimizer": SGD(0.01, momentum=0.9)}

    whole = copy_sim(calibrated)
    train(whole, **fresh())
    saving = {"checkpoint": tmp_path / "saved", "save_every": 2}
    with pytest.raises(KeyboardInterrupt):
        train(copy_sim(calibrated), callbacks=[Kill(7)], **fresh(), **saving)
    again = copy_sim(calibrated)
    result = train(again, steps_per_execution=3, **fresh(), **saving)
    assert_same(again, whole)
    assert result.epochs == ((1, 2) if steps_per_epoch else (2,))
    assert result.steps == (12 if steps_per_epoch else 9)
    last = copy_sim(calibrated)
    assert train(last, **fresh(), **saving).epochs == ()
    assert_same(last, whole)


def test_a_checkpoint_of_another_sim_is_refused(sim, tmp_path):
    # One epoch without a step of its own: a sim that was trained is not needed for it.
    train(sim, X, checkpoint=tmp_path)
    other = eq.quantize(build(classes=4), X, progress=False)
    with pytest.raises(TrainingError, match="does not fit this sim and these optimizers"):
        train(other, X, checkpoint=tmp_path)


def test_a_loss_that_becomes_nan_ends_training_and_nothing_is_saved(sim, tmp_path):
    bad = X.copy()
    bad[17] = np.nan
    saved = tmp_path / "saved"
    options = {"checkpoint": saved, "batch_size": 4, "shuffle": False, "steps_per_execution": 3}
    with pytest.raises(TrainingError, match="loss is nan at step 5 "):
        train(sim, bad, epochs=2, save_every=4, **options)
    position = tf.train.load_variable(str(saved / "ckpt-1"), POSITION)
    assert position[4] == 4
    assert not list(saved.glob("ckpt-2*"))


def test_scaled_losses_are_unscaled_and_a_step_that_overflows_is_left_out_by_both(sim):
    scale = tf_keras.mixed_precision.LossScaleOptimizer(SGD(0.1), initial_scale=1024.0)
    descent = Descent(sim, scale, SGD(0.1), clip_norm=1.0)
    assert float(descent.scaled(tf.constant(1.0))) == 1024.0
    start = [v.numpy() for v in descent.variables]
    count = sum(v.size for v in start)
    overflow = [tf.ones_like(v) for v in descent.variables]
    overflow[0] = tf.fill(overflow[0].shape, np.inf)
    descent.apply(overflow)
    for v, was in zip(descent.variables, start, strict=True):
        np.testing.assert_array_equal(v.numpy(), was)
    assert [float(o.loss_scale) for o in descent.optimizers] == [512.0, 512.0]
    descent.apply([tf.fill(v.shape, 512.0 * 3.0) for v in descent.variables])
    for v, was in zip(descent.variables, start, strict=True):
        # Gradients of 3, clipped to a norm of 1 over all elements.
        np.testing.assert_allclose(v.numpy(), was - 0.1 / np.sqrt(count), rtol=1e-5, atol=1e-6)


def test_mixed_float16_trains_with_a_scaled_loss():
    tf_keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        sim = eq.quantize(build(), X, precision={"*": "W4A8"}, progress=False)
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    sim, listen = eq.learn_ranges(sim), Listen(5)
    result = train(sim, X, 6, optimizer=1e-3, range_optimizer=1e-3, callbacks=[listen])
    assert isinstance(listen.optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    assert result.history["teacher_loss"][-1] < result.history["teacher_loss"][0]


def test_softmax_outputs_are_compared_in_front_of_the_softmax():
    x = tf_keras.Input((6,), name="x")
    model = train_like(tf_keras.Model(x, L.Dense(3, activation="softmax", name="scores")(x)))
    sim = eq.quantize(model, 100.0 * X, progress=False)
    # So sure that probabilities are 0 on the grid of the softmax, where a logarithm would not be.
    result = train(sim, 100.0 * X, optimizer=1e-6)
    assert np.isfinite(result.history["teacher_loss"]).all()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"data": X[:0]}, TrainingError, "training data holds no samples"),
        ({"data": iter([X])}, TrainingError, "read only once"),
        ({"validation": (X[:0], Y[:0])}, TrainingError, "validation data holds no samples"),
        ({"teacher": build(classes=4)}, TrainingError, "teacher's outputs have shapes"),
        ({"teacher": "yesterday"}, TrainingError, "it must be 'float', a model, or None"),
        (
            {"distillation": Distillation(features=["hiden"])},
            TrainingError,
            r"sim has no tensor 'hiden'; it has \[.*'logits', 'hidden/relu'\]",
        ),
        (
            {"distillation": Distillation(features={"logits": "hidden/relu"})},
            TrainingError,
            "compared element by element",
        ),
        ({"optimizer": tf_keras.optimizers.legacy.SGD()}, TrainingError, "legacy optimizers"),
        ({"callbacks": [tf_keras.callbacks.BackupAndRestore("b")]}, TrainingError, "checkpoint="),
        ({"save_every": 2}, ValueError, "needs checkpoint="),
        ({"epochs": 0}, ValueError, "epochs is 0"),
        ({"sim": build()}, EdgeqError, "which is not a sim"),
    ],
)
def test_what_cannot_be_trained_is_refused(sim, change, error, said):
    before = arrays(sim)
    with pytest.raises(error, match=said):
        train(**{"sim": sim, "data": X, **change})
    for a, b in zip(before, arrays(sim), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_dataset_that_turns_out_empty_is_refused(sim):
    with pytest.raises(TrainingError, match="training data holds no samples"):
        train(sim, tf.data.Dataset.from_tensors(X).filter(lambda x: False))


def test_a_sim_without_grids_is_refused(sim):
    sim.quantizers()["x"].start.assign(0.0)
    with pytest.raises(EdgeqError, match=r"\['x'\] have no grid; calibrate the sim first"):
        train(sim, X)


def test_a_subclassed_teacher_is_refused(sim):
    class Own(tf_keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(UnsupportedModelError):
        train(sim, X, teacher=Own())
