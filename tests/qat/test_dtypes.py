"""Training in half precision: what is exact, what is near, and what stays float32."""

import functools
from contextlib import contextmanager

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.layers import QuantizedLayer
from keras_edgeq.sim.freeze import copy_sim
from keras_edgeq.spec import QuantSpec
from tests.harness import assert_same_arrays, saved_and_loaded
from tests.layers.test_quantized_layer import INPUT_SCALE, LAYERS, axes_of, built, data
from tests.models import train_like

L = tf_keras.layers
MIXED = ("mixed_float16", "mixed_bfloat16")
# Half a unit in the last place of each type, of which sums and gradients have a few.
ULP = {"mixed_float16": 2.0**-11, "mixed_bfloat16": 2.0**-8}
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(32, 6, 6, 2)).astype(np.float32)
LABELS = RNG.integers(0, 3, 32)
LOSS = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@contextmanager
def under(policy):
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")


def tiny():
    """A model that `prepare` makes layers for: activations, a split, an affine batch norm."""
    inner = tf_keras.Sequential([tf_keras.Input((6, 6, 4)), L.Conv2D(4, 1, name="conv")], "inner")
    x = tf_keras.Input((6, 6, 2))
    y = L.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    z = L.SeparableConv2D(4, 3, padding="same", activation="relu6", name="separable")(y)
    y = L.BatchNormalization(name="norm")(L.Add(name="add")([inner(y), z]))
    y = L.Flatten()(L.AveragePooling2D(name="pool")(y))
    return train_like(tf_keras.Model(x, L.Dense(3, dtype="float32", name="head")(y)))


@functools.cache
def sim_of(policy):
    """Return the sim of the model that is built under a policy."""
    with under(policy):
        return eq.quantize(tiny(), DATA, progress=False)


def gradients(sim, loss_scale=64.0):
    """Return the loss of a training step and its gradients."""
    with tf.GradientTape() as tape:
        loss = LOSS(LABELS, sim(DATA, training=True))
        scaled = loss * loss_scale
    found = tape.gradient(scaled, sim.trainable_variables)
    return loss, [g / loss_scale for g in found]


def relative_errors(got, wanted):
    return [float(tf.norm(a - b) / tf.norm(b)) for a, b in zip(got, wanted, strict=True)]


def index_of(sim, variable):
    return [id(v) for v in sim.trainable_variables].index(id(variable))


def twin(wrapped, policy, shape):
    """Return a layer like `wrapped`, of the same weights, that trains under a policy."""
    other = QuantizedLayer.from_config({**wrapped.get_config(), "dtype": policy})
    other.build((None, *shape))
    other.set_weights(wrapped.get_weights())
    return other


@pytest.mark.parametrize("policy", MIXED)
def test_a_sim_infers_in_float32_under_any_policy(policy):
    sim, wanted = sim_of(policy), sim_of("float32")(DATA)
    np.testing.assert_array_equal(sim(DATA), wanted)
    np.testing.assert_array_equal(sim(DATA, training=False), wanted)
    assert not np.array_equal(sim(DATA, training=True), wanted)
    policies = {name: layer.dtype_policy.name for name, layer in sim.quantized_layers().items()}
    assert policies.pop("head") == "float32"
    assert set(policies) == {"conv", "separable/depthwise", "separable", "inner/conv", "norm"}
    assert set(policies.values()) == {policy}
    others = [layer for layer in sim.layers if layer.name not in policies]
    assert {layer.compute_dtype for layer in others} == {"float32"}


@pytest.mark.parametrize("policy", MIXED)
@pytest.mark.parametrize("kind", LAYERS)
def test_each_layer_multiplies_in_half_precision_when_trained(kind, policy):
    make_layer, shape = LAYERS[kind]
    _, wrapped, _ = built(make_layer, shape, axes_of(kind, True))
    half = twin(wrapped, policy, shape)
    steps = np.random.default_rng(3).integers(-255, 256, (2, *shape)).astype(np.float32)
    on_grid = {"input_scale": tf.constant(INPUT_SCALE), "in_steps": True}
    for x, options in ((steps, on_grid), (data(shape), {})):
        results = []
        for layer in (wrapped, half):
            scales = [layer.quantizers[layer.kernel_name].start, *list(options.values())[:1]]
            with tf.GradientTape() as tape:
                x = tf.constant(x)
                tape.watch([x, *scales])
                outputs = layer(x, training=True, **options)[0]
                loss = tf.reduce_mean(tf.square(outputs))
            variables = [x, *layer.layer.trainable_variables, *scales]
            results.append([outputs, *tape.gradient(loss, variables)])
        errors = relative_errors(results[1], results[0])
        assert all(tensor.dtype == tf.float32 for tensor in results[1])
        assert 0.0 < max(errors[: -len(scales)]) < 4 * ULP[policy]
        assert max(errors[-len(scales) :]) < 40 * ULP[policy]
        assert_same_arrays(wrapped(x, **options)[0].numpy(), half(x, **options)[0].numpy())


@pytest.mark.parametrize("policy", MIXED)
def test_small_sums_are_exact_and_large_ones_finite(policy):
    _, wrapped, _ = built(lambda: L.Dense(3), (4096,))
    half = twin(wrapped, policy, (4096,))
    options = {"input_scale": tf.constant(INPUT_SCALE), "in_steps": True}
    few = np.zeros((256, 4096), np.float32)
    few[np.arange(256), np.arange(256)] = np.arange(256)
    few[:, 300] = 1.0
    half.layer.kernel.assign(tf.sign(half.layer.kernel) * half.quantizers["kernel"].scale)
    wrapped.set_weights(half.get_weights())
    np.testing.assert_array_equal(
        half(few, training=True, **options)[1], wrapped(few, **options)[1]
    )
    half.layer.kernel.assign(tf.ones_like(half.layer.kernel) * 1e6)
    sums = half(np.full((1, 4096), 255.0, np.float32), training=True, **options)[1].numpy()
    np.testing.assert_allclose(sums, 4096 * 255 * 127, rtol=2 * ULP[policy])


def test_inputs_of_more_bits_stay_float32_until_they_have_fewer():
    sim = eq.requantize(sim_of("mixed_float16"), "litert_int16x8")
    assert sim.dtype_policy.name == "float32"
    assert {layer.dtype_policy.name for layer in sim.quantized_layers().values()} == {"float32"}
    np.testing.assert_array_equal(sim(DATA, training=True), sim(DATA))
    back = eq.requantize(sim, "litert_int8")
    assert back.dtype_policy.name == "mixed_float16"
    assert not np.array_equal(back(DATA, training=True), back(DATA))


@pytest.mark.parametrize("make_layer", [
    lambda: L.Dense(4, activation="relu"), lambda: L.Dense(4, activity_regularizer="l2")
])  # fmt: skip
def test_a_function_of_the_outputs_inside_a_layer_is_computed_in_float32(make_layer):
    _, wrapped, _ = built(make_layer, (6,))
    half = twin(wrapped, "mixed_float16", (6,))
    x = data((6,))
    np.testing.assert_array_equal(half(x, training=True)[0], wrapped(x)[0])
    assert_same_arrays([t.numpy() for t in half.losses], [t.numpy() for t in wrapped.losses])


@pytest.mark.parametrize("bits", [9, 16])
def test_a_kernel_of_more_bits_is_multiplied_in_float32(bits):
    _, wrapped, _ = built(lambda: L.Dense(4), (6,), bits=8)
    spec = QuantSpec(bits, symmetric=True, narrow_range=True, axes=(1,))
    config = {**wrapped.get_config(), "params": {"kernel": spec.to_json()}, "dtype": MIXED[0]}
    half = QuantizedLayer.from_config(config)
    half.build((None, 6))
    half.set_weights(wrapped.get_weights())
    x = data((6,))
    np.testing.assert_array_equal(half(x, training=True)[0], half(x)[0])


@pytest.mark.parametrize("policy", MIXED)
def test_gradients_of_weights_and_of_their_ranges_are_near_those_in_float32(policy):
    sim, exact = (eq.learn_ranges(sim_of(p)) for p in (policy, "float32"))
    loss, found = gradients(sim)
    wanted_loss, wanted = gradients(exact)
    assert abs(loss - wanted_loss) < 8 * ULP[policy]
    assert all(np.isfinite(g).all() and g.dtype == tf.float32 for g in found)
    activations = {id(v) for q in sim.quantizers().values() for v in q.trainable_variables}
    errors = dict(
        zip(map(id, sim.trainable_variables), relative_errors(found, wanted), strict=True)
    )
    assert max(error for key, error in errors.items() if key not in activations) < 80 * ULP[policy]
    # Half precision moves some activations by a step, and such errors are what trains their range.
    scales = [q.learned.change for q in sim.quantizers().values() if q.learned is not None]
    assert len(scales) == len(sim.quantizers())
    assert all(tf.norm(found[index_of(sim, scale)]) > 0 for scale in scales)


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "learn"), [
    ("mixed_float16", True), ("mixed_bfloat16", False)
])  # fmt: skip
def test_it_trains_and_saves_its_policy(policy, learn):
    sim = sim_of(policy)
    sim = eq.learn_ranges(sim, "conv*") if learn else copy_sim(sim)
    start = {id(v): v.numpy() for v in sim.trainable_variables}
    sim.compile(tf_keras.optimizers.SGD(1e-3), LOSS)
    is_scaled = isinstance(sim.optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
    assert is_scaled == (policy == "mixed_float16")
    losses = sim.fit(DATA, LABELS, batch_size=8, epochs=2, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    assert abs(losses[0] - float(LOSS(LABELS, sim_of("float32")(DATA)))) < 0.2
    ranges = {id(v) for v in sim.range_variables()}
    moved = {id(v) for v in sim.trainable_variables if not np.array_equal(v, start[id(v)])}
    assert moved >= set(start) - ranges
    assert bool(moved & ranges) == learn
    assert all(v.dtype == tf.float32 for v in sim.variables if v.dtype.is_floating)
    loaded = saved_and_loaded(sim)
    assert loaded.dtype_policy.name == policy
    assert_same_arrays(sim(DATA, training=True).numpy(), loaded(DATA, training=True).numpy())
    assert not np.array_equal(loaded(DATA, training=True), loaded(DATA))


@pytest.mark.slow
def test_quantized_eval_sees_a_model_that_trains_in_half_precision():
    with under("mixed_float16"):
        model = tiny()
        model.compile("sgd", LOSS)
        callback = eq.callbacks.QuantizedEval(DATA, (DATA, LABELS))
        history = model.fit(DATA, LABELS, verbose=0, callbacks=[callback]).history
    assert callback.sim is not None
    wanted = LOSS(LABELS, callback.sim.predict(DATA, verbose=0))
    np.testing.assert_allclose(history["val_quant_loss"][0], wanted, rtol=1e-5)
    assert callback.sim.dtype_policy.name == "mixed_float16"


def test_a_layer_in_front_of_a_training_batch_norm_keeps_its_policy_when_folded():
    x = tf_keras.Input((6, 6, 2))
    y = L.BatchNormalization(name="norm")(L.Conv2D(4, 3, dtype="mixed_float16", name="conv")(x))
    model = train_like(tf_keras.Model(x, y))
    sim = eq.quantize(model, DATA, batch_norm="train", progress=False)
    folded = eq.fold_batch_norms(sim)
    for one in (sim, folded):
        assert one.quantized_layers()["conv"].dtype_policy.name == "mixed_float16"
    assert sim(DATA, training=True).dtype == tf.float32
    assert not np.array_equal(folded(DATA, training=True), folded(DATA))
