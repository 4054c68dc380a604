"""Export a sim as a TFLite file with integer kernels and exactly the sim's scales."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_edgeq.errors import ExportError
from keras_edgeq.export.foreign import WAY_OUT, by_layer
from keras_edgeq.export.marked import MarkedModel
from keras_edgeq.export.tflite.bias import join_biases
from keras_edgeq.export.tflite.needless import remove_needless_caps
from keras_edgeq.export.tflite.writer import IntegerWriter
from keras_edgeq.runtime.tflite_file import TfliteGraph
from keras_edgeq.sim.quant_sim import QuantSim


@dataclass(frozen=True, eq=False)
class TfliteArtifact:
    """A TFLite file in memory.

    Args:
        content: the file.
        integer_ops: number of ops with integer kernels.
        floats: op result -> op that stayed float and why.
        constant_bytes: bytes of weights, biases and other constants by type, such as `"int4"`.
    """

    content: bytes
    integer_ops: int
    floats: dict[str, str]
    constant_bytes: dict[str, int]


def to_tflite(sim: QuantSim, float_io: bool = True) -> TfliteArtifact:
    """Return the sim as a TFLite file.

    Args:
        sim: a calibrated sim; it is not changed.
        float_io: inputs and outputs are float32 (quantized inside); False gives int8 and int16
            ones, on the grids of the sim.

    Raises:
        ExportError: a tensor has no grid yet, or one that no kernel has; or the converter lost
            a tensor, or a float layer needs ops that LiteRT does not have.
    """
    marked = MarkedModel(sim, litert=True)
    graph = _convert(marked)
    _fix_reshapes(graph)
    _check_complete(graph, marked)
    join_biases(graph, marked)
    writer = IntegerWriter(graph, marked)
    writer.write(float_io)
    named = {str(marker.ref) for marker in marked.markers.values()}
    integers = writer.integers - remove_needless_caps(graph, named)
    content = graph.write()
    return TfliteArtifact(content, integers, writer.floats, graph.constant_bytes())


def _convert(marked: MarkedModel) -> TfliteGraph:
    """Convert without any optimization, which keeps the marker pairs where they are.

    Recurrent layers need a fixed batch to become ops that LiteRT has, and so do shapes that are
    made by repeating; it is 1 then.
    """
    for batch in (None, 1):
        with marked.saved_model(batch) as folder:
            graph = TfliteGraph(_converted(marked, folder))
        foreign = graph.foreign_ops()
        if not foreign and not (batch is None and _repeats_samples(graph)):
            return graph
    raise ExportError(_told(marked, foreign))


def _converted(marked: MarkedModel, folder: Path) -> bytes:
    converter: Any = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS,
        tf.lite.OpsSet.SELECT_TF_OPS,
    ]
    try:
        return bytes(converter.convert())
    except Exception as error:  # the converter's passes raise all kinds of errors
        # Its locations read fused["Op:", "layer/path/Op@function"].
        found = re.findall(r'fused\["(\w+):", "([^"@]+)@', str(error))
        ops = {path: op for op, path in found if "StatefulPartitionedCall" not in op}
        if not ops:
            first = str(error).strip().partition("\n")[0][:300]
            raise ExportError(f"TensorFlow's converter cannot write the model: {first}") from error
        raise ExportError(_told(marked, ops)) from error


def _told(marked: MarkedModel, foreign: Mapping[str, str]) -> str:
    """Say which layers need ops that LiteRT does not have; foreign maps paths to ops."""
    layers = by_layer(marked.sim, foreign)
    return f"LiteRT does not have the TensorFlow ops of {layers}. {WAY_OUT}"


def _repeats_samples(graph: TfliteGraph) -> bool:
    """Tell whether a BROADCAST_TO holds the size of a batch that is free elsewhere."""
    for op in graph.ops:
        if op.name == "BROADCAST_TO" and graph.constant(op.inputs[1]) is not None:
            signature = graph.tensors[op.inputs[0]].shapeSignature
            if signature is not None and any(size < 0 for size in signature):
                return True
    return False


def _check_complete(graph: TfliteGraph, marked: MarkedModel) -> None:
    """Raise if the converter computed with a parameter instead of moving it."""
    read = {i for op in graph.ops for i in op.inputs if i >= 0}
    constants = (graph.constant(tensor) for tensor in read)
    lost = marked.fingerprints.missing(value for value in constants if value is not None)
    if lost:
        raise ExportError(
            f"The TFLite converter left no trace of {', '.join(lost)}; the file would not compute "
            "what the sim does. Give these layers float precision, or export another format."
        )


def _fix_reshapes(graph: TfliteGraph) -> None:
    """Give reshapes that compute their shape from the batch size a constant one.

    A computed shape keeps delegates from taking the op; only the batch is unknown, so -1 says it.
    """
    for op in graph.ops:
        if op.name != "RESHAPE" or len(op.inputs) < 2 or graph.constant(op.inputs[1]) is not None:
            continue
        signature = graph.tensors[op.outputs[0]].shapeSignature
        if signature is not None and sum(d < 0 for d in signature) == 1:
            op.inputs[1] = graph.add_constant(np.array(signature, np.int32), "shape")
            op.raw.builtinOptions = None
            op.raw.builtinOptionsType = 0
