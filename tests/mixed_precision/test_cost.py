"""Costs are those written out by hand, those of the files, and those of the tables."""

from functools import cache

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import SearchError, UnsupportedModelError
from keras_edgeq.export.onnx.qdq import to_onnx_qdq
from keras_edgeq.export.tflite.convert import to_tflite
from keras_edgeq.measure.groups import all_precisions, find_groups
from keras_edgeq.mixed_precision import activation_memory
from keras_edgeq.mixed_precision.cost import COSTS, CostModel
from keras_edgeq.runtime.tflite_file import TfliteGraph
from tests.models import inputs_for, make
from tests.short import short

L = tf_keras.layers
CANDIDATES = ("W4A8", "W8A8", "W8A16", "W4A16", "FP16")
KERNELS = ("/kernel", "/depthwise_kernel", "/embeddings", "/alpha")
WEIGHTS = {
    "residual": (108, 32, 72, 32, 12),
    "separable": (54, 9, 24, 12),
    "grouped": (108,),
    "shared_layer": (72,),
    "dense_rank3": (24, 12),
    "einsum_dense": (24, 24),
}
MACS = {
    "residual": 16 * (108 + 32 + 72 + 32) + 12,
    "separable": 36 * (54 + 24) + 9 * (9 + 12),
    "grouped": 16 * 108,
    "shared_layer": 2 * 16 * 72,
    "dense_rank3": 5 * (24 + 12),
    "einsum_dense": 5 * (24 + 24),
}


@cache
def quantized(name, profile):
    model = make(name)
    return eq.quantize(model, inputs_for(model), profile, progress=False)


def cost_model(name, candidates=CANDIDATES, profile="litert_int8", packed=False):
    sim = quantized(name, profile)
    return CostModel(sim, find_groups(sim, candidates), packed, candidates=candidates)


def uniform(cost, precision):
    return {group.name: precision for group in cost.groups}


def drawn(cost, count, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield cost.choice(np.array([rng.choice(np.flatnonzero(row)) for row in cost.allowed]))


@pytest.mark.parametrize("name", WEIGHTS)
def test_bytes_of_weights_are_those_counted_by_hand(name):
    cost, sizes = cost_model(name), np.array(WEIGHTS[name])
    assert cost.eight_bit_bytes == sizes.sum()
    bits = {"W4A8": 4, "W8A8": 8, "W8A16": 8, "W4A16": 8, "FP16": 16}
    for precision, stored in bits.items():
        expected = sum(-(-size * stored // 8) for size in sizes)
        assert cost.weight_bytes(uniform(cost, precision)) == expected
    assert cost.size(uniform(cost, "W8A8")) == 1.0


@pytest.mark.parametrize("name", MACS)
def test_operations_are_those_counted_by_hand(name):
    cost = cost_model(name)
    bits = {"W4A8": 32, "W8A8": 64, "W8A16": 128, "W4A16": 64, "FP16": 16 * 32}
    for precision, product in bits.items():
        assert cost.bitops(uniform(cost, precision)) == MACS[name] * product
    assert cost.eight_bit_bitops == MACS[name] * 64


def test_a_layer_that_the_target_leaves_float_counts_as_float():
    cost = cost_model("conv3d")
    assert [group.op for group in cost.groups] == ["Dense"]
    choice = uniform(cost, "W4A8")
    assert cost.eight_bit_bytes == 48 + 360
    assert cost.weight_bytes(choice) == 4 * 48 + 180
    assert cost.bitops(choice) == 3 * 4 * 5 * 48 * 32 * 32 + 360 * 4 * 8
    assert cost.eight_bit_bitops == (3 * 4 * 5 * 48 + 360) * 64


def stored(graph):
    """Return the bytes of the kernels in a TFLite file."""
    tensors = [i for i in range(len(graph.tensors)) if graph.name(i).endswith(KERNELS)]
    return sum(len(graph.model.buffers[graph.tensors[i].buffer].data) for i in tensors)


@pytest.mark.parametrize(
    "name",
    short(
        ["separable", "shared_layer", "embedding", "prelu", "transposed"], "shared_layer", "prelu"
    ),
)
def test_bytes_of_weights_are_those_in_the_tflite_file(name):
    cost, sim = cost_model(name), quantized(name, "litert_int8")
    for choice in drawn(cost, 2):
        asked = all_precisions(cost.graph, sim.record.profile, choice)
        graph = TfliteGraph(to_tflite(eq.requantize(sim, precision=asked)).content)
        assert cost.weight_bytes(choice) == stored(graph), choice


@pytest.mark.parametrize("name", ["separable", "shared_layer"])
def test_bytes_of_weights_are_those_in_the_onnx_file(name):
    cost = cost_model(name, profile="onnxruntime_int8")
    sim = quantized(name, "onnxruntime_int8")
    ends = tuple(kernel + end for kernel in KERNELS for end in ("/quantized", "/half"))
    for choice in drawn(cost, 2):
        asked = all_precisions(cost.graph, sim.record.profile, choice)
        model = to_onnx_qdq(eq.requantize(sim, precision=asked))
        held = [t for t in model.graph.initializer if t.name.endswith(ends)]
        assert cost.weight_bytes(choice) == sum(len(t.raw_data) for t in held), choice


def test_packed_weights_count_the_bits_of_their_grids():
    names = ("W4A8", "W4A16")
    cost = cost_model("transposed", names, packed=True)
    assert cost.weight_bytes(uniform(cost, "W4A16")) == (108 + 36) // 2
    once = cost_model("shared_layer", names, packed=True)
    assert once.eight_bit_bytes == 72
    odd = cost_model("separable", names, packed=True)
    assert odd.weight_bytes(uniform(odd, "W4A8")) == 27 + 5 + 12 + 6


def test_memory_of_a_residual_block_is_that_of_its_tensors():
    cost = cost_model("residual")
    image, stem, wide = 8 * 8 * 3, 4 * 4 * 4, 4 * 4 * 8
    first, depthwise = cost.groups[0].name, cost.groups[2].name
    choice = uniform(cost, "W8A8")
    assert cost.activation_memory(choice) == stem + 2 * wide
    # The input has the width of what reads it; the stem lives until it is added.
    assert cost.activation_memory({**choice, first: "W8A16"}) == 2 * (image + stem)
    assert cost.activation_memory({**choice, depthwise: "W8A16"}) == stem + wide + 2 * wide
    assert cost.activation_memory(uniform(cost, "FP16")) == 4 * (stem + 2 * wide)


def test_outputs_live_to_the_end():
    cost = cost_model("several_outputs")
    trunk, boxes, score = 4 * 4 * 4, 4 * 4 * 2, 4
    choice = uniform(cost, "W8A8")
    assert cost.activation_memory(choice) == 6 * 6 * 2 + trunk
    # The last step holds the boxes, which nothing reads, the trunk and the score.
    assert cost.activation_memory({**choice, "boxes": "W8A16"}) == max(
        136, trunk + 2 * boxes + score
    )


@pytest.mark.parametrize(
    "name", [*WEIGHTS, "conv3d", "embedding", "op_layers", "batch_norm_first", "lambda_island"]
)
def test_tables_add_up_to_the_costs(name):
    cost = cost_model(name)
    rows = cost.memory_rows()
    every = np.arange(len(cost.groups))
    for choice in drawn(cost, 20):
        numbers = cost.numbers(choice)
        assert cost.choice(numbers) == choice
        weights = cost.weight_table[every, numbers].sum() + cost.weight_constant
        assert weights == cost.weight_bytes(choice)
        bitops = cost.bitops_table[every, numbers].sum() + cost.bitops_constant
        assert bitops == cost.bitops(choice)
        peaks = [table[every, numbers].sum() + constant for table, constant in rows]
        assert max(peaks) == cost.activation_memory(choice)


@pytest.mark.parametrize("cost_name", COSTS)
def test_the_ends_of_a_cost_are_those_of_all_choices(cost_name):
    cost = cost_model("separable")
    values = [cost.cost(cost_name, choice) for choice in drawn(cost, 200)]
    assert cost.least(cost_name) <= min(values)
    assert cost.most(cost_name) >= max(values)
    same = [cost.cost(cost_name, uniform(cost, name)) for name in CANDIDATES]
    assert (cost.least(cost_name), cost.most(cost_name)) == (min(same), max(same))


@pytest.mark.parametrize("cost_name", COSTS)
def test_a_limit_as_rows_holds_where_the_cost_does(cost_name):
    cost = cost_model("residual")
    limit = (cost.least(cost_name) + cost.most(cost_name)) / 2.5
    rows, every, kept = cost.rows(cost_name, limit), np.arange(len(cost.groups)), set()
    for choice in drawn(cost, 60):
        numbers = cost.numbers(choice)
        within = all(table[every, numbers].sum() <= most for table, most in rows)
        assert within == (cost.cost(cost_name, choice) <= limit)
        kept.add(within)
    assert kept == {True, False}


def test_what_a_group_cannot_have_is_nan_in_every_table():
    cost = cost_model("prelu")
    number = [group.name for group in cost.groups].index("prelu")
    column = cost.candidates.index("W8A16")
    tables = [cost.weight_table, cost.bitops_table, *(table for table, _ in cost.memory_rows())]
    assert all(np.isnan(table[number, column]) for table in tables)
    assert all(np.array_equal(np.isnan(table), ~cost.allowed) for table in tables)


def test_weights_are_counted_without_known_sizes_and_the_rest_is_an_error():
    cost = cost_model("dynamic_size", ("W4A8", "W8A8"))
    choice = uniform(cost, "W4A8")
    assert cost.weight_bytes(choice) > 0
    for count in (cost.bitops, cost.activation_memory):
        with pytest.raises(UnsupportedModelError, match="unknown sizes"):
            count(choice)


def test_a_group_left_out_is_an_error_that_names_its_layer():
    sim = quantized("dense_rank3", "litert_int8")
    with pytest.raises(SearchError, match="'head' is in no group"):
        CostModel(sim, find_groups(sim, CANDIDATES)[:1])


def test_an_unknown_cost_is_an_error_that_lists_those_there_are():
    with pytest.raises(SearchError, match="no cost 'latency'; costs are weight_bytes, size"):
        cost_model("dense_rank3").least("latency")


def test_a_step_with_too_many_rows_is_bounded_from_above(monkeypatch):
    exact = cost_model("batch_norm_first").memory_rows()
    monkeypatch.setattr(activation_memory, "ROWS_PER_STEP", 0)
    cost = cost_model("batch_norm_first")
    rows, every = cost.memory_rows(), np.arange(len(cost.groups))
    assert len(rows) < len(exact)
    for choice in drawn(cost, 20):
        numbers = cost.numbers(choice)
        peaks = [table[every, numbers].sum() + constant for table, constant in rows]
        assert max(peaks) >= cost.activation_memory(choice)
