"""The bytes of a model's weights: in float, and on the grids of a sim."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.swap import LOCK

if TYPE_CHECKING:
    from keras_edgeq.sim.quant_sim import QuantSim

FLOAT_BYTES = 4


def float_bytes(sim: QuantSim) -> int:
    """Return the bytes of the float model's weights: four each."""
    quantized = sum(count for count, _ in _parameters(sim))
    return FLOAT_BYTES * (quantized + _others(sim))


def weight_bytes(sim: QuantSim) -> int:
    """Return the bytes of the weights on their grids, packed; weights without one take four each.

    Scales and the container of a file are not in it.
    """
    bits = sum(count * bits for count, bits in _parameters(sim))
    return -(-bits // 8) + FLOAT_BYTES * _others(sim)


def _parameters(sim: QuantSim) -> list[tuple[int, int]]:
    """Return elements and bits of the parameters of quantized layers."""
    with LOCK:  # another thread that computes has tensors where the variables are
        return [pair for layer in sim.quantized_layers().values() for pair in _of_layer(layer)]


def _of_layer(layer: QuantizedLayer) -> list[tuple[int, int]]:
    bits = {name: quantizer.spec.bits for name, quantizer in layer.quantizers.items()}
    if layer.bias_spec is not None:
        bits["bias"] = layer.bias_spec.bits
    inner = {id(getattr(layer.layer, name, None)): n for name, n in bits.items()}
    return [
        (int(weight.shape.num_elements()), inner.get(id(weight), 8 * FLOAT_BYTES))
        for weight in layer.layer.weights
    ]


def _others(sim: QuantSim) -> int:
    """Return the number of weights of layers that are not quantized."""
    layers = [la for la in sim.layers if not isinstance(la, FakeQuant | QuantizedLayer)]
    return sum(int(w.shape.num_elements()) for layer in layers for w in layer.weights)
