"""Which artifacts are float ones, that quantized ones are timed beside."""

from __future__ import annotations

from keras_edgeq.runtime.artifact_file import ArtifactFile

QUANTIZES = ("QuantizeLinear", "DequantizeLinear")


def is_float_file(file: ArtifactFile) -> bool:
    """Tell whether all real numbers of a file are float32; of a SavedModel it is not known."""
    if file.kind == "tflite":
        return _is_float_tflite(file.content)
    return file.kind == "onnx" and _is_float_onnx(file.content)


def _is_float_tflite(content: bytes) -> bool:
    from keras_edgeq.runtime.tflite_file import TENSOR_TYPE, TfliteGraph

    floats = {TENSOR_TYPE.FLOAT32, TENSOR_TYPE.INT32, TENSOR_TYPE.INT64, TENSOR_TYPE.BOOL}
    graphs = TfliteGraph(content).model.subgraphs
    return all(tensor.type in floats for graph in graphs for tensor in graph.tensors)


def _is_float_onnx(content: bytes) -> bool:
    import onnx

    graph = onnx.load_from_string(content).graph
    kinds = onnx.TensorProto
    floats = {kinds.FLOAT, kinds.INT32, kinds.INT64, kinds.BOOL}
    plain = all(part.data_type in floats for part in graph.initializer)
    return plain and not any(node.op_type in QUANTIZES for node in graph.node)
