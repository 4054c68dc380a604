from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.numerics.histogram import MOMENTUM
from keras_edgeq.profiles import load_profile
from keras_edgeq.sim.derive import derive_activations
from keras_edgeq.spec import QuantSpec
from tests import reference
from tests.harness import assert_same_arrays, outputs
from tests.models import Input, inputs_for, make, train_like

L = tf_keras.layers
LITERT = load_profile("litert_int8")
MINMAX = replace(LITERT, activation=replace(LITERT.activation, rule="minmax"))


def quantize(model, data, profile=LITERT, **options):
    return eq.quantize(model, data, profile, progress=False, **options)


def grids(sim):
    """All grid numbers of the activations, by tensor."""
    return {
        name: (q.encoding.scale.tolist(), q.encoding.zero_point.tolist(), q.encoding.bounds)
        for name, q in sim.quantizers().items()
    }


def output_scale(sim):
    """Scale of what the convolution `conv` makes."""
    return float(sim.quantizers()["conv"].encoding.scale)


def input_scale(sim):
    """Scale of the only model input."""
    return float(sim.quantizers()[sim.input_names[0]].encoding.scale)


@pytest.fixture(scope="module")
def model():
    return make("residual")


@pytest.fixture(scope="module")
def data(model):
    return inputs_for(model, 24)


@pytest.fixture(scope="module")
def sim(model, data):
    return quantize(model, data, batch_size=8)


def test_the_input_grid_is_the_range_of_the_data(model, data):
    sim = quantize(model, data, MINMAX)
    scale, zero_point = reference.grid_from_range(
        float(data.min()), float(data.max()), 8, symmetric=False, signed=True, narrow_range=False
    )
    encoding = sim.quantizers()["image"].encoding
    assert encoding.scale == scale
    assert encoding.zero_point == zero_point


def test_statistics_hold_every_value_of_every_sample(sim, data):
    histogram = sim.stats.histograms["image"]
    assert sim.stats.samples == len(data)
    assert histogram.total == data.size
    assert (histogram.low, histogram.high) == (data.min(), data.max())
    wanted = reference.histogram_counts(data, histogram.exponent)
    np.testing.assert_array_equal(histogram.counts, wanted)


def test_weight_grids_are_the_range_of_each_channel():
    model = make("forward_dense")
    x = inputs_for(model)
    sim = quantize(model, x)
    (layer,) = sim.quantized_layers().values()
    kernel = layer.layer.kernel.numpy()
    encoding = layer.quantizers["kernel"].encoding
    for channel in range(4):
        largest = float(np.abs(kernel[:, channel]).max())
        scale, _ = reference.grid_from_range(-largest, largest, 8, True, True, True)
        assert encoding.scale[0, channel] == scale


def test_the_order_of_batches_does_not_matter(model, data, sim):
    order = quantize(model, iter([data[16:], data[:8], data[8:16]]))
    assert grids(order) == grids(sim)
    for name, histogram in sim.stats.histograms.items():
        np.testing.assert_array_equal(histogram.counts, order.stats.histograms[name].counts)


@pytest.mark.parametrize("batch_size", [5, 24, 100])
def test_the_size_of_batches_does_not_matter(model, data, sim, batch_size):
    other = quantize(model, data, batch_size=batch_size)
    assert grids(other)["image"] == grids(sim)["image"]
    # Past the input, a matrix product may sum in another order for more rows.
    for name, histogram in sim.stats.histograms.items():
        near = other.stats.histograms[name]
        assert near.total == histogram.total
        np.testing.assert_allclose(near.low, histogram.low, rtol=1e-5)
        np.testing.assert_allclose(near.high, histogram.high, rtol=1e-5)


def test_a_second_quantization_starts_from_nothing(model, data, sim):
    quantize(model, 10 * data)
    again = quantize(model, data, batch_size=8)
    assert grids(again) == grids(sim)
    assert_same_arrays(sim.get_weights(), again.get_weights())
    assert_same_arrays(outputs(sim, data), outputs(again, data))
    assert again.stats.samples == sim.stats.samples


def test_no_seed_changes_the_result(model, data, sim):
    tf.random.set_seed(1)
    np.random.seed(1)
    assert grids(quantize(model, data, batch_size=8)) == grids(sim)


def test_statistics_alone_give_new_grids(model, data, sim):
    fresh = quantize(model, data[:1])
    assert grids(fresh) != grids(sim)
    derive_activations(fresh, sim.stats)
    assert grids(fresh) == grids(sim)


def test_every_activation_outside_a_float_island_is_on_its_grid(sim, data):
    names = ("image", "skip")
    probe = tf_keras.Model(sim.inputs, [sim.get_layer(f"{n}/quant").output[0] for n in names])
    for name, values in zip(names, probe(data), strict=True):
        encoding = sim.quantizers()[name].encoding
        steps = values.numpy() / encoding.scale + encoding.zero_point
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
        assert np.rint(steps).min() >= -128
        assert np.rint(steps).max() <= 127


def test_fixed_ranges_need_no_data(sim):
    encoding = sim.quantizers()["scores/softmax"].encoding
    assert encoding.scale == np.float32(1 / 256)
    assert encoding.zero_point == -128


@pytest.mark.filterwarnings("ignore::keras_edgeq.errors.QuantizationWarning")
@pytest.mark.parametrize("rule", ["mse", "percentile"])
def test_a_range_rule_that_clips_gives_a_finer_grid(rule):
    model = make("forward_dense")
    x = inputs_for(model, 64)
    x[0, 0] = 100.0
    profile = replace(LITERT, activation=QuantSpec(rule=rule, percentile=99.0))
    clipped, full = (input_scale(quantize(model, x, p)) for p in (profile, MINMAX))
    assert clipped < full


def test_undecided_signs_are_decided_by_the_data():
    x = Input((4,), name="x")
    model = train_like(tf_keras.Model(x, L.ReLU(name="relu")(L.Dense(3, name="dense")(x))))
    profile = replace(LITERT, activation=QuantSpec(symmetric=True, signed=None))
    quantizers = quantize(model, inputs_for(model), profile).quantizers()
    assert quantizers["x"].encoding.spec.signed is True
    assert quantizers["relu"].encoding.spec.signed is False
    assert quantizers["relu"].encoding.bounds == (0, 255)


def test_a_shared_grid_covers_what_all_its_tensors_hold():
    a, b = Input((4,), name="a"), Input((4,), name="b")
    model = tf_keras.Model([a, b], L.Concatenate(name="both")([a, b]))
    x = {"a": np.linspace(-1, 0, 8, dtype=np.float32).reshape(2, 4), "b": np.full((2, 4), 3.0)}
    sim = quantize(model, x)
    (quantizer,) = sim.quantizers().values()
    low, high = (float(end) for end in (quantizer.encoding.min, quantizer.encoding.max))
    assert low <= -1.0 + 0.02
    assert high >= 3.0 - 0.02
    assert {name: h.total for name, h in sim.stats.histograms.items()} == {"a": 8, "b": 8}


def test_the_calls_of_a_shared_layer_are_calibrated_apart():
    model = make("shared_layer")
    x = inputs_for(model)
    x["b"] *= 10
    sim = quantize(model, x)
    assert sim.quantizers()["b"].encoding.scale > 5 * sim.quantizers()["a"].encoding.scale
    assert list(sim.quantized_layers()) == ["conv"]
    assert sum(w is sim.get_layer("conv").layer.kernel for w in sim.weights) == 1


@pytest.mark.parametrize("hazard", ["residual", "depth_multiplier", "dense_rank3", "transposed"])
def test_a_bias_lies_on_the_grid_input_scale_times_weight_scale(hazard):
    """Adding a bias that moves by less than half a step of that grid changes nothing."""
    model = make(hazard)
    x = inputs_for(model)
    sim = quantize(model, x)
    before = outputs(sim, x)
    moved = 0
    for name, layer in sim.quantized_layers().items():
        scales = [q.encoding.scale for n, q in sim.quantizers().items() if n in readers(sim, name)]
        kernel = layer.quantizers[layer.kernel_name].encoding.scale.ravel()
        step = np.float64(min(scales)) * kernel
        bias = layer.layer.bias
        rounded = np.rint(bias.numpy() / step) * step
        assert np.abs(rounded - bias.numpy()).max() <= step.max() / 2
        moved += np.any(np.float32(rounded) != bias.numpy())
        bias.assign(rounded)
    assert moved
    assert_same_arrays(before, outputs(sim, x))


def readers(sim, name):
    """Names of the tensors whose scale a quantized layer is called with."""
    from keras_edgeq.graph.layer_graph import LayerGraph

    graph = LayerGraph.of(sim)
    for node in graph.calls_of(sim.get_layer(name)):
        yield from (
            graph.producer(ref).layer.tensor
            for ref in node.inputs
            if hasattr(graph.producer(ref).layer, "tensor")
        )


def test_a_dead_channel_gets_a_larger_weight_scale_so_that_its_bias_fits():
    model = make("dead_channel")
    x = inputs_for(model)
    sim = quantize(model, x)
    assert dict(sim.record.floored) == {"conv": 1}
    layer = sim.get_layer("conv")
    scale = layer.quantizers["kernel"].encoding.scale.ravel()
    integers = np.float64(layer.layer.bias) / (input_scale(sim) * np.float64(scale))
    assert np.abs(integers).max() <= 2**24
    raw = np.abs(layer.layer.kernel.numpy()).max((0, 1, 2)) / 127
    np.testing.assert_array_max_ulp(scale[[0, 2, 3]], np.float32(raw[[0, 2, 3]]))
    assert scale[1] > raw[1]
    (got,) = outputs(sim, x)
    np.testing.assert_allclose(got[..., 1], 3.0, atol=output_scale(sim))


def test_a_model_without_dead_channels_is_not_floored(sim):
    assert dict(sim.record.floored) == {}


def test_a_zero_channel_stays_exactly_its_bias():
    model = make("zero_channel")
    x = inputs_for(model)
    sim = quantize(model, x)
    (got,) = outputs(sim, x)
    assert len(np.unique(got[..., 1])) == 1
    bias = model.get_layer("conv").bias.numpy()[1]
    np.testing.assert_allclose(got[..., 1], bias, atol=output_scale(sim))


def test_zero_is_exact_on_every_grid(sim):
    for quantizer in sim.quantizers().values():
        encoding = quantizer.encoding
        low, high = encoding.bounds
        assert low <= encoding.zero_point <= high


def test_a_tensor_that_becomes_infinite_is_named():
    x = Input((4,), name="x")
    model = train_like(tf_keras.Model(x, L.Dense(3, name="dense")(tf.exp(x))))
    with pytest.raises(CalibrationDataError, match=r"tf\.math\.exp.*NaN or infinite"):
        quantize(model, np.full((2, 4), 200.0))


@pytest.mark.parametrize(("keep", "kept"), [(0, 0), (3, 3), (100, 24)])
def test_samples_are_kept_as_wanted(model, data, keep, kept):
    record = quantize(model, data, keep_samples=keep, batch_size=7).record
    if kept:
        (samples,) = record.samples
        np.testing.assert_array_equal(samples, data[:kept])
    else:
        assert record.samples == ()


def test_samples_of_several_inputs_are_in_the_order_of_the_inputs():
    model = make("unsorted_inputs")
    x = inputs_for(model)
    samples = quantize(model, x, keep_samples=2).record.samples
    assert_same_arrays([x["zebra"][:2], x["ant"][:2]], list(samples))


def test_dropout_is_off_while_calibrating():
    x = Input((50,), name="x")
    model = tf_keras.Model(x, L.ReLU(name="relu")(L.Dropout(0.5)(x)))
    data = np.full((4, 50), 2.0, np.float32)
    assert quantize(model, data).stats.histograms["relu"].high == 2.0


def test_the_moving_average_follows_the_batches_of_the_calibration():
    model = make("forward_dense")
    x = inputs_for(model, 12)
    sim = quantize(model, x, batch_size=4, rules={"activations": "moving_average"})
    batches = np.split(x, 3)
    expected = [
        reference.moving_average([float(f(batch)) for batch in batches], MOMENTUM)
        for f in (np.min, np.max)
    ]
    histogram = sim.stats.histograms[sim.input_names[0]]
    assert (histogram.average_low, histogram.average_high) == pytest.approx(expected)
    grid = {"bits": 8, "symmetric": False, "signed": True, "narrow_range": False}
    scale, _ = reference.grid_from_range(*expected, **grid)
    assert input_scale(sim) == pytest.approx(float(scale))
