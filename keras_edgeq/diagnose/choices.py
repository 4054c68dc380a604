"""What a target has beside what the layers of a sim compute in: remedies that can be tried."""

from __future__ import annotations

from collections.abc import Sequence

from keras_edgeq.diagnose.remedy import Remedy
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.ops import op_of
from keras_edgeq.ops.plain import CONCAT
from keras_edgeq.plan.kernel import Kernel
from keras_edgeq.profiles import load_profile, profile_names
from keras_edgeq.profiles.precision import FLOAT, FLOAT_BITS
from keras_edgeq.sim.quant_sim import QuantSim


class Choices:
    """Remedies for the layers of a sim.

    Args:
        sim: the sim.
        graph: of its float model.
    """

    def __init__(self, sim: QuantSim, graph: LayerGraph):
        self._sim, self._graph = sim, graph
        self._plan, self._profile = sim.record.plan, sim.record.profile
        self._specs = {str(ref): spec for ref, spec in self._plan.specs.items()}

    def rules(self, tensor: str, names: Sequence[str]) -> tuple[Remedy, ...]:
        """Return range rules for a tensor that are not its own; none for a grid without a rule."""
        spec = self._specs.get(tensor)
        frozen = tensor in self._sim.record.frozen
        if spec is None or frozen or spec.fixed_range is not None or spec.is_half:
            return ()
        return tuple(
            Remedy("range_rule", {"tensor": tensor, "rule": name})
            for name in names
            if name != spec.rule
        )

    def per_channel(self, op: str) -> tuple[Remedy, ...]:
        """Return a profile of the same runtime whose weights have a scale per channel."""
        own = self._profile
        if op in own.per_channel:
            return ()
        for name in profile_names():
            other = load_profile(name)
            alike = (other.formats, other.arithmetic, other.own.name, other.onnx_activation)
            if op in other.per_channel and alike == (
                own.formats,
                own.arithmetic,
                own.own.name,
                own.onnx_activation,
            ):
                return (Remedy("per_channel", {"profile": name}),)
        return ()

    def more_weight_bits(self, layer: str) -> tuple[Remedy, ...]:
        """Return precisions with more bits of weights and no fewer of activations, and float."""
        return self._wider(layer, lambda now, bits: bits[0] > now[0] and bits[1] >= now[1])

    def more_activation_bits(self, layer: str) -> tuple[Remedy, ...]:
        """Return precisions with more bits of activations and no fewer of weights, and float."""
        return self._wider(layer, lambda now, bits: bits[1] > now[1] and bits[0] >= now[0])

    def narrower(self, layer: str) -> tuple[Remedy, ...]:
        """Return precisions with fewer bits of activations, the widest first, and float."""
        name, kernel = self._kernel(layer)
        if kernel is None:
            return ()
        now = _bits(kernel, kernel.precision)
        less = [n for n in kernel.allowed if _bits(kernel, n)[1] < now[1]]
        less.sort(key=lambda n: _bits(kernel, n), reverse=True)
        return tuple(_precision(name, n) for n in (*less[:1], FLOAT))

    def smaller_sums(self, layer: str, bits: float) -> tuple[Remedy, ...]:
        """Return precisions whose products have so many bits fewer, the most precise first."""
        name, kernel = self._kernel(layer)
        if kernel is None:
            return ()
        most = sum(_bits(kernel, kernel.precision)) - bits
        less = [n for n in kernel.allowed if sum(_bits(kernel, n)) <= most]
        less.sort(key=lambda n: sum(_bits(kernel, n)), reverse=True)
        return tuple(_precision(name, n) for n in (*less[:1], FLOAT))

    def integer(self, layer: str) -> tuple[Remedy, ...]:
        """Return the target's own precision for a layer that was asked to compute in float."""
        name, kernel = self._kernel(layer)
        if kernel is None or kernel.precision != FLOAT:
            return ()
        own = next(iter(kernel.allowed))
        return () if own == FLOAT else (_precision(name, own),)

    def is_rounded(self, layer: str) -> bool:
        """Tell whether a technique rounded the weights of a layer."""
        return layer in self._sim.record.rounded

    def concat(self, owner: str) -> str | None:
        """Return the Concat whose inputs lie on one grid."""
        for node in self._graph.nodes:
            if op_of(node.layer) is not CONCAT:
                continue
            refs = (*node.inputs, *node.outputs)
            if owner in {str(self._plan.owner(ref)) for ref in refs}:
                return node.layer.name
        return None

    def _wider(self, layer: str, is_wider) -> tuple[Remedy, ...]:
        name, kernel = self._kernel(layer)
        if kernel is None:
            return ()
        now = _bits(kernel, kernel.precision)
        wider = [n for n, bits in kernel.allowed.items() if any(bits)]
        wider = [n for n in wider if is_wider(now, _bits(kernel, n))]
        wider.sort(key=lambda n: _bits(kernel, n))
        floats = (*filter(self._is_half, kernel.allowed), FLOAT)
        return tuple(_precision(name, n) for n in (*wider[:1], *floats) if n != kernel.precision)

    def _is_half(self, precision: str) -> bool:
        named = self._profile.precisions.get(precision)
        return named is not None and named.activation is not None and named.activation.is_half

    def _kernel(self, layer: str) -> tuple[str, Kernel | None]:
        """Return the layer whose kernel computes a layer, and that kernel."""
        name = self._plan.parts.get(layer, layer)
        return name, self._plan.kernels.get(name)


def _bits(kernel: Kernel, precision: str) -> tuple[int, int]:
    weights, activations = kernel.allowed.get(precision, (None, None))
    return weights or FLOAT_BITS, activations or FLOAT_BITS


def _precision(layer: str, precision: str) -> Remedy:
    return Remedy("precision", {"layer": layer, "precision": precision})
