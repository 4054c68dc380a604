"""Export a sim as a frozen SavedModel that needs nothing but TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from keras_edgeq.export.saved_model_canonical import make_canonical
from keras_edgeq.graph.os_errors import os_errors
from keras_edgeq.graph.rebuild import run
from keras_edgeq.sim.quant_sim import QuantSim


def frozen_function(sim: QuantSim):
    """Return the sim in inference mode as a concrete function of constants.

    Inputs and outputs keep the names of the user's model.
    """
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=name)
        for tensor, name in zip(sim.inputs, sim.input_names, strict=True)
    ]

    def call(*inputs):
        outputs = tf.nest.flatten(run(sim, list(inputs)))
        return dict(zip(sim.output_names, outputs, strict=True))

    traced = tf.function(call, input_signature=specs, autograph=False)
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
    graph = _portable(frozen.graph.as_graph_def())
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    inputs = [wrapped.graph.as_graph_element(tensor.name) for tensor in frozen.inputs]
    outputs = [wrapped.graph.as_graph_element(tensor.name) for tensor in frozen.outputs]
    return wrapped.prune(inputs, outputs)


def _portable(graph: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    """Return the graph with ops TFLite has for ClipByValue and Rint, of the same values.

    Custom gradients, which are numbered across the process and not saved, are left out.
    """
    for node in graph.node:
        node.attr.pop("_gradient_op_type", None)
        node.op = "Round" if node.op == "Rint" else node.op
    for node in [n for n in graph.node if n.op == "ClipByValue"]:
        least = graph.node.add()
        least.CopyFrom(node)
        least.name, least.op = f"{node.name}/minimum", "Minimum"
        value, low, high = node.input
        least.input[:] = [value, high]
        node.op = "Maximum"
        node.input[:] = [least.name, low]
    return graph


def saved_model(sim: QuantSim) -> Callable[[Path], None]:
    """Freeze a sim, rounding included, and return what writes it as a SavedModel.

    It has one signature, `serving_default`.
    """
    frozen = frozen_function(sim)
    names = [tensor.name.split(":")[0] for tensor in frozen.inputs]
    outputs = sorted(sim.output_names)

    def serve(*inputs):
        return dict(zip(outputs, tf.nest.flatten(frozen(*inputs)), strict=True))

    # By position: as keywords, names like "input.1" would lose their dots.
    specs = [
        tf.TensorSpec(t.shape, t.dtype, name=n) for n, t in zip(names, frozen.inputs, strict=True)
    ]
    traced = tf.function(serve, input_signature=specs, autograph=False)
    signature = traced.get_concrete_function()

    def write(folder: Path) -> None:
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        signatures = {"serving_default": signature}
        with os_errors():
            tf.saved_model.save(tf.Module(), str(folder), signatures=signatures, options=options)
        make_canonical(folder)

    return write
