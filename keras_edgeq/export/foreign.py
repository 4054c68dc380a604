"""Name the layers whose operations a file format does not have."""

from __future__ import annotations

from collections.abc import Mapping

from keras_edgeq.sim.quant_sim import QuantSim

WAY_OUT = (
    "Leave what they do in front of or behind the model, use other layers, or export another "
    "format: formats=[...]."
)


def by_layer(sim: QuantSim, foreign: Mapping[str, str]) -> str:
    """Return `layer 'resize' (ResizeArea), ...` for operations by the path a converter gave them.

    Args:
        sim: the sim that was converted; paths begin with the names of its layers, or hold them.
        foreign: path of an operation or its result -> operation.
    """
    names = sorted((layer.name for layer in sim.layers), key=len, reverse=True)
    found: dict[str, set[str]] = {}
    for path, op in foreign.items():
        inside = f"/{path}/"
        layer = next((name for name in names if f"/{name}/" in inside), path)
        found.setdefault(layer, set()).add(op.removeprefix("Flex"))
    return ", ".join(f"layer {name!r} ({', '.join(sorted(ops))})" for name, ops in found.items())
