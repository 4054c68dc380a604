"""Grids so far apart that kernels of LiteRT would wrap or end the process; others that fit."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_edgeq as eq
from keras_edgeq.runtime.tflite_check import check_tflite
from keras_edgeq.runtime.tflite_file import TfliteGraph
from tests.short import short

L = tf_keras.layers
X = np.random.default_rng(0).normal(size=(32, 4, 4, 2)).astype(np.float32)
# What stays float; all others are computed in integers.
FLOATS = {"litert_int8": {"MUL", "ADD", "SUB", "CONV_2D"}, "litert_int16x8": {"MUL", "CONV_2D"}}
# Steps of a sum below which LiteRT ends the process, as a share of those that it adds.
LEAST = {"litert_int8": 2.0**-19, "litert_int16x8": 2.0**-14}


def far_apart():
    tf_keras.utils.set_random_seed(0)
    wide = tf_keras.initializers.RandomNormal(stddev=1e6)
    x = tf_keras.Input((4, 4, 2), name="x")
    y = L.Conv2D(2, 1, name="y")(x)
    outputs = {
        "tiny": y + L.Conv2D(2, 1)(y) * 1e-6,
        "times": tf.nn.relu6(y * (x * 1e6)),
        "plus": tf.nn.relu6(y * 1e3 + x),
        "minus": x - x * 0.999,
        "conv": tf.nn.relu6(L.Conv2D(2, 1, kernel_initializer=wide)(y)),
    }
    named = {name: L.Activation("linear", name=name)(y) for name, y in outputs.items()}
    return tf_keras.Model(x, named)


@pytest.mark.filterwarnings("ignore::keras_edgeq.errors.QuantizationWarning")
@pytest.mark.parametrize("profile", short(FLOATS, "litert_int8"))
def test_what_no_kernel_adds_or_multiplies_without_wrapping_stays_float(profile, tmp_path):
    sim = eq.quantize(far_apart(), X, profile=profile, progress=False)
    report = eq.export(sim, tmp_path, ["tflite"], verify=X, progress=False)
    assert {why.split(":")[0] for why in report.float_ops.values()} == FLOATS[profile]
    with_xnnpack, alone = report.runs
    assert with_xnnpack.verdict == "same"
    assert alone.verdict in ("same", "amplified")
    content = (tmp_path / "model.tflite").read_bytes()
    check_tflite(with_steps_of_sums(content, 1.01 * LEAST[profile]))
    with pytest.raises(eq.EdgeqError, match="lie too far apart"):
        check_tflite(with_steps_of_sums(content, 0.99 * LEAST[profile]))


def with_steps_of_sums(content, share):
    """Give the results of sums a share of the largest step that they add."""
    graph = TfliteGraph(content)
    for op in graph.ops:
        grids = [graph.tensors[i].quantization for i in (*op.inputs, *op.outputs)]
        if op.name == "ADD" and all(grid is not None and grid.scale is not None for grid in grids):
            *operands, result = grids
            result.scale = [share * max(float(grid.scale[0]) for grid in operands)]
    return graph.write()
