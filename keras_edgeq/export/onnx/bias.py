"""The int32 grids of biases in an ONNX graph."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from keras_edgeq.errors import ExportError
from keras_edgeq.export.fingerprints import Found
from keras_edgeq.export.onnx.convert import MarkedGraph
from keras_edgeq.export.onnx.graph import reads, reads_numbers
from keras_edgeq.graph.rebuild import calls
from keras_edgeq.spec.quant_spec import QuantSpec


class BiasScales:
    """The grids of biases: input scale times weight scale, in float32 as the sim computes them."""

    def __init__(self, converted: MarkedGraph):
        self.converted = converted
        sim = converted.marked.sim
        self.layers = sim.quantized_layers()
        self.summing = {c.layer.name for c in calls(sim) if "input_scale" in c.node.call_kwargs}

    def input_scale(self, node: NodeProto, found: Found) -> float | None:
        """Return the scale of the data that meets a bias in `node`; None keeps the bias float.

        A layer that is called on several grids has a bias for each; one that reads float data sums
        no integers.
        """
        layer = self.layers[found.param.ref.layer]
        if layer.name not in self.summing:
            return None
        marker = self.converted.marker
        ends = self.converted.graph.before(
            reads(node), stop=lambda n: marker(n) is not None, of=reads_numbers
        )
        scales = {float(m.encoding.scale) for m in map(marker, ends) if m is not None}
        if len(scales) != 1:
            raise ExportError(
                f"The input of layer {layer.name!r} has {len(scales)} scales in the ONNX graph; "
                "its int32 bias needs one. Leave the layer float or export another format."
            )
        return scales.pop()

    def bias_scale(self, found: Found, input_scale: float) -> np.ndarray:
        """Return the bias scale of every element, in the constant's layout."""
        layer = self.layers[found.param.ref.layer]
        kernel_scale = layer.quantizers[layer.kernel_name].scale.numpy()
        shape = found.param.values.shape if kernel_scale.ndim else ()
        scale = np.float32(input_scale) * kernel_scale.reshape(shape)
        return np.broadcast_to(scale, found.param.values.shape).ravel()[found.index]

    def spec(self, found: Found) -> QuantSpec:
        """Return the grid a bias asks for."""
        spec = self.layers[found.param.ref.layer].bias_spec
        assert spec is not None  # a bias without one is not a parameter of the sim
        return spec
