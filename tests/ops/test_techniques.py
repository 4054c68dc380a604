"""Every row with weights beside every technique: it works, or the row says why it does not.

Each network is one layer of the row between others, on a grid of few bits that rounding shows on.
"""

from dataclasses import replace

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.layers import QuantizedLayer
from keras_edgeq.numerics.metrics import sqnr_db
from keras_edgeq.ops import Unsupported, channel_map, matrix_form
from keras_edgeq.ops.constant_operands import AddConstant, MultiplyConstant
from keras_edgeq.ops.macs import macs
from keras_edgeq.ops.table import OPS, WEIGHTED, sees_all
from keras_edgeq.profiles import load_profile
from tests.models import train_like
from tests.short import short

pytestmark = pytest.mark.filterwarnings("ignore::keras_edgeq.errors.QuantizationWarning")
L = tf_keras.layers
SIGNAL, IMAGE, VOLUME = (12, 4), (6, 6, 4), (4, 4, 5, 4)
# Layer of a row, its input, and its multiplications for one sample by hand.
LAYERS = {
    "Conv1D": (lambda: L.Conv1D(6, 3), SIGNAL, 10 * 3 * 4 * 6),
    "Conv2D": (lambda: L.Conv2D(6, 3, groups=2), IMAGE, 4 * 4 * 9 * 2 * 6),
    "Conv3D": (lambda: L.Conv3D(6, 2), VOLUME, 3 * 3 * 4 * 8 * 4 * 6),
    "ConvTranspose1D": (lambda: L.Conv1DTranspose(6, 2, strides=2), SIGNAL, 12 * 2 * 4 * 6),
    "ConvTranspose2D": (lambda: L.Conv2DTranspose(6, 3), IMAGE, 36 * 9 * 4 * 6),
    "ConvTranspose3D": (lambda: L.Conv3DTranspose(6, 2), VOLUME, 80 * 8 * 4 * 6),
    "DepthwiseConv1D": (lambda: L.DepthwiseConv1D(3), SIGNAL, 10 * 3 * 4),
    "DepthwiseConv2D": (lambda: L.DepthwiseConv2D(3), IMAGE, 16 * 9 * 4),
    "Dense": (lambda: L.Dense(6), SIGNAL, 12 * 4 * 6),
    "EinsumDense": (
        lambda: L.EinsumDense("abc,cde->abde", (None, 2, 6), bias_axes="de"),
        SIGNAL,
        12 * 4 * 2 * 6,
    ),
}
NO_MATRIX = {"Embedding", "PRelu", "AddConstant", "MulConstant"}
MADE = {
    L.Embedding: lambda: L.Embedding(5, 3),
    L.PReLU: L.PReLU,
    AddConstant: lambda: AddConstant((3,)),
    MultiplyConstant: lambda: MultiplyConstant((3,)),
}
KNOWN = load_profile("onnxruntime_int8")
PROFILE = replace(
    KNOWN, quantized=KNOWN.quantized | set(LAYERS), per_channel=frozenset(LAYERS), bias="float"
)
FEW_BITS = replace(PROFILE, weight=replace(PROFILE.weight, bits=3))


def network(name):
    """Return a trained-like network with a layer of the row inside, and inputs."""
    tf_keras.utils.set_random_seed(3)
    make, shape, _ = LAYERS[name]
    x = tf_keras.Input(shape)
    y = L.ReLU()(L.BatchNormalization(name="norm")(L.Dense(4, name="first")(x)))
    own = make()
    own._name = "own"
    y = L.ReLU()(L.BatchNormalization(name="own_norm")(own(y)))
    model = train_like(tf_keras.Model(x, L.Dense(3, name="last")(y)))
    mix = np.random.default_rng(5).normal(size=(shape[-1], shape[-1]))
    data = np.random.default_rng(0).normal(size=(96, *shape)) @ mix
    return model, np.float32(data)


def noise_db(model, sim, data):
    return sqnr_db(model.predict(data, verbose=0), sim.predict(data, verbose=0))


@pytest.fixture(scope="module", params=short(LAYERS, "EinsumDense"))
def case(request):
    model, data = network(request.param)
    return request.param, model, data, eq.quantize(model, data[:64], FEW_BITS, progress=False)


def test_every_row_with_weights_is_tried_or_says_why_not():
    rows = {name for name, op in OPS.items() if op.weights is not None}
    assert rows == {*LAYERS, *NO_MATRIX}
    for kind in WEIGHTED:
        if kind in MADE:
            layer = MADE[kind]()
            layer.build((None, 3))
            for answer in (matrix_form(layer), channel_map(layer)):
                assert isinstance(answer, Unsupported)
                assert answer.why


def test_what_has_no_weights_says_so():
    assert matrix_form(L.ReLU()).why == channel_map(L.Add()).why == "has no kernel"


def test_batch_norms_fold_into_it(case):
    _, model, data, sim = case
    assert not [n for n in eq.fold_batch_norms(model).layers if "norm" in n.name]
    assert isinstance(sim.get_layer("own"), QuantizedLayer)
    assert sim.get_layer("own").quantizers[sim.get_layer("own").kernel_name].spec.axes
    sim = eq.quantize(model, data[:64], FEW_BITS, batch_norm="train", progress=False)
    assert set(sim.batch_norms()) == {"norm", "own_norm"}
    folded = eq.fold_batch_norms(sim)
    assert not folded.batch_norms()
    assert noise_db(sim, folded, data) > 30.0


def test_its_operations_and_bits_are_counted(case):
    name, model, _, _ = case
    graph = LayerGraph.of(model)
    (node,) = graph.calls_of(model.get_layer("own"))
    assert macs(graph, node) == LAYERS[name][2]


@pytest.mark.parametrize("technique", ["gptq", "seq_mse", "adaround"])
def test_its_weights_are_rounded_by_what_it_reads(case, technique):
    _, model, data, sim = case
    options = {"iterations": 300} if technique == "adaround" else {}
    better = getattr(eq, technique)(sim, data[:64], progress=False, **options)
    kernels = [s.get_layer("own").rounded_params() for s in (sim, better)]
    kernel = better.get_layer("own").kernel_name
    before, after = (np.asarray(one[kernel]) for one in kernels)
    assert np.any(before != after)
    assert "own/" + kernel in better.record.frozen
    assert noise_db(model, better, data[64:]) > noise_db(model, sim, data[64:])


def test_its_bias_makes_up_for_the_mean_error_with_data_and_without(case):
    _, _, data, sim = case
    for given in (data[:64], None):
        better = eq.correct_bias(sim, given, progress=False)
        before, after = (np.asarray(s.get_layer("own").layer.bias) for s in (sim, better))
        assert np.any(before != after)


def test_channels_are_equalized_through_it(case):
    _, model, data, _ = case
    equalized = eq.equalize(model, data[:64], progress=False)
    before, after = (
        np.asarray(getattr(m.get_layer("own"), channel_map(m.get_layer("own")).kernel))
        for m in (eq.fold_batch_norms(model), equalized)
    )
    assert np.max(np.abs(before - after)) > 1e-3
    np.testing.assert_allclose(equalized(data), model(data), atol=1e-4)


def test_a_constant_input_adds_up_to_its_sums(case):
    _, model, _, _ = case
    layer = model.get_layer("own")
    channels, per_input = channel_map(layer), np.arange(1.0, 5.0)
    inputs = np.broadcast_to(np.float32(per_input), (1, *layer.input_shape[1:]))
    made = np.asarray(layer(inputs), np.float64)
    wanted = channels.sums(per_input) + channels.bias()
    if sees_all(layer):
        np.testing.assert_allclose(made, np.broadcast_to(wanted, made.shape), rtol=1e-4, atol=1e-4)
    else:  # each element of the kernel meets each input once
        sites = np.prod(layer.input_shape[1:-1])
        total = made.reshape(-1, made.shape[-1]).sum(0)
        bias = channels.bias() * (made.size // made.shape[-1])
        np.testing.assert_allclose(total, sites * channels.sums(per_input) + bias, rtol=1e-4)


def test_one_scale_for_all_channels_is_chosen_by_what_a_layer_reads():
    model, data = network("Dense")
    profile = load_profile("litert_int8_per_tensor")
    profile = replace(profile, weight=replace(profile.weight, bits=3))
    sim = eq.quantize(model, data, profile, progress=False)
    better = eq.seq_mse(sim, data, candidates=50, progress=False)
    kernel = np.float64(sim.get_layer("first").layer.kernel)
    read = np.float64(sim.quantizers()[sim.input_names[0]](data)[0]).reshape(-1, 4)
    wanted = np.float64(data).reshape(-1, 4) @ kernel

    def error(scale):
        return np.sum((read @ (np.clip(np.rint(kernel / scale), -3, 3) * scale) - wanted) ** 2)

    before, after = (s.get_layer("first").quantizers["kernel"].encoding for s in (sim, better))
    assert before.scale.shape == after.scale.shape == ()
    candidates = np.abs(kernel).max() / 3 * np.arange(1, 51) / 50
    best = candidates[np.argmin([error(scale) for scale in candidates])]
    np.testing.assert_allclose(after.scale, best, rtol=1e-6)
    assert error(after.scale) <= error(before.scale)
