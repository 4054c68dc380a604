"""The losses of a model on its grids: tensors and channels that collapse, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.graph.rebuild import calls
from keras_edgeq.layers import FakeQuant
from keras_edgeq.ops import op_of, op_type
from keras_edgeq.ops.cell_layers import CellPart
from keras_edgeq.ops.plain import CONCAT, INPUT
from keras_edgeq.plan.kernel import names_layer
from keras_edgeq.profiles.precision import FLOAT
from keras_edgeq.sim.masked_scores import masked_grids
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.tensor_ref import TensorRef

# A tensor or channel has collapsed below: the noise of rounding is a tenth of the signal, where
# 8 bits leave a ten-thousandth.
COLLAPSED_DB = 10.0
# How the message of `collapsed_tensors` begins.
COLLAPSE = "Rounding leaves"
# Step of scores below which a softmax of 8 bits hardly sees their rounding.
SCORE_STEP = 0.1
# A collapsed channel has next to no steps of its own, and does not just happen to be small.
MOST_STEPS = 1.5
FEWEST_SAMPLES = 16
NAMED = 6
CLIPPED_SHARE = 0.05


@dataclass(frozen=True)
class Collapse:
    """Channels of one tensor that their common grid is too coarse for.

    Args:
        tensor: printed name.
        channels: those that are lost.
        step: scale of the grid.
        largest: the largest number in those channels.
        layers: those that could compute in float to keep them; none where that would not help.
    """

    tensor: str
    channels: tuple[int, ...]
    step: float
    largest: float
    layers: tuple[str, ...] = ()

    def __str__(self) -> str:
        some = ", ".join(map(str, self.channels[:NAMED])) + (
            ", ..." if len(self.channels) > NAMED else ""
        )
        plural = "s" if len(self.channels) > 1 else ""
        return (
            f"{len(self.channels)} channel{plural} of {self.tensor!r} ({some}) lie within "
            f"±{self.largest:.3g}, and the steps of its grid are {self.step:.3g}: what they hold "
            "is lost"
        )


class _Seen:
    """What was seen of a tensor, in one call or in all steps of a cell.

    Args:
        owner: of its grid, where channels are looked at; else None.

    Attributes:
        largest: the largest number of each channel.
    """

    def __init__(self, owner: str | None):
        self.owner = owner
        self.largest: Any = np.zeros(0)
        self._samples: Any = 0.0
        self._channels: Any = 0.0
        self._least, self._zeros, self._count = 0.0, 0, 0

    def add(self, real: np.ndarray, rounded: np.ndarray) -> None:
        """Look at one call: the float model's numbers and the sim's."""
        flat = [part.reshape(len(part), -1).astype(np.float64) for part in (real, rounded)]
        self._samples = self._samples + _powers(*flat, axis=1)
        if self.owner is None or real.ndim < 2:
            return
        self._least = min(self._least, float(real.min(initial=0.0)))
        self._zeros += int(np.sum(real == 0.0))
        self._count += real.size
        real, rounded = (part.reshape(-1, part.shape[-1]) for part in (real, rounded))
        self._channels = self._channels + _powers(real, rounded, axis=0)
        largest = np.max(np.abs(real), 0, initial=0.0)
        self.largest = np.maximum(self.largest, largest) if self.largest.size else largest

    def median_db(self) -> float:
        """Return the signal-to-noise ratio of the median sample; silent samples count as exact."""
        signal, noise = self._samples
        exact = (noise == 0.0) | (signal == 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.median(np.where(exact, np.inf, 10.0 * np.log10(signal / noise))))

    def lost(self, step: float) -> np.ndarray:
        """Tell for each channel whether it collapsed on a grid of such steps."""
        signal, noise = self._channels
        is_lost = signal < noise * 10.0 ** (COLLAPSED_DB / 10.0)
        return is_lost & (self.largest < MOST_STEPS * step) & (signal > 0.0)

    def is_sparse(self) -> bool:
        """Tell whether it is the output of a ReLU, in which channels may well be silent."""
        return self._least >= 0.0 and self._zeros > 0.25 * self._count


def _powers(real: np.ndarray, rounded: np.ndarray, axis: int) -> np.ndarray:
    """Return the power of the signal and of its noise, summed over an axis."""
    return np.stack([np.sum(real**2, axis), np.sum((real - rounded) ** 2, axis)])


class Watch:
    """Looks at tensors, and channels of inputs and outputs, of a sim walked beside its model.

    Args:
        graph: of the prepared model.
        sim: the sim.
    """

    def __init__(self, graph: LayerGraph, sim: QuantSim):
        self._graph, self._plan = graph, sim.record.plan
        self._constants, self._moves = sim.record.constants, sim.record.profile.same_grid
        self._steps = {
            name: float(np.max(q.encoding.scale))
            for name, q in sim.quantizers().items()
            if q.encoding is not None and q.spec.fixed_range is None and not q.spec.is_half
        }
        ends = [TensorRef(name) for name in sim.input_names] + list(graph.outputs)
        owners = {str(owner) for ref in ends if (owner := self._plan.owner(ref))}
        self._owners = {
            call.node.call_kwargs["tensor"]: call.layer.tensor
            for call in calls(sim)
            if isinstance(call.layer, FakeQuant) and call.layer.tensor in owners
        }
        self._cells = {n.layer.name for n in graph.nodes if isinstance(n.layer, CellPart)}
        self._scores = {n for n in masked_grids(sim) if self._steps.get(n, np.inf) < SCORE_STEP}
        self._seen: dict[str, _Seen] = {}

    def __call__(self, name: str, wanted: Any, got: Any) -> None:
        """Look at a quantized tensor: the float model's and the sim's, made from the same."""
        ref = TensorRef.parse(name, "input" if "<" in name else "output")
        # A cell has one grid for all steps: a channel may well be small in some of them.
        whole = str(replace(ref, call=0)) if ref.layer in self._cells else name
        owner = self._owners.get(name)
        if whole not in self._seen:
            self._seen[whole] = _Seen(owner if owner in self._steps else None)
        self._seen[whole].add(np.asarray(wanted), np.asarray(got))

    @property
    def lost(self) -> dict[str, float]:
        """Tensor that collapsed -> signal to its own noise in the median sample, in dB.

        With the median, one sample far beyond all others hides nothing. Masked scores that all lie
        within a step are equal to a softmax.
        """
        medians = ((n, one.median_db()) for n, one in self._seen.items() if n not in self._scores)
        return {name: median for name, median in medians if median < COLLAPSED_DB}

    @property
    def found(self) -> list[Collapse]:
        """Channels that collapsed."""
        made = (self._collapse(name, seen) for name, seen in self._seen.items())
        return [collapse for collapse in made if collapse is not None]

    def _collapse(self, name: str, seen: _Seen) -> Collapse | None:
        if seen.owner is None or not np.size(seen.largest) or seen.is_sparse():
            return None
        step = self._steps[seen.owner]
        lost = seen.lost(step)
        if not np.any(lost):
            return None
        channels = tuple(map(int, np.flatnonzero(lost)))
        most = float(np.max(seen.largest[lost]))
        return Collapse(name, channels, step, most, self._remedy(seen.owner))

    def _remedy(self, owner: str) -> tuple[str, ...]:
        """Return the layers that would have to compute in float to keep the channels apart."""
        for node in self._graph.nodes:
            op, ref = op_of(node.layer), node.outputs[0]
            if op not in (CONCAT, INPUT) or str(self._plan.owner(ref)) != owner:
                continue
            if op is INPUT:
                return self._preamble(ref)
            makers = {self._graph.producer(read).layer.name for read in node.inputs}
            if ref in self._graph.outputs and len(makers) > 1:
                return (node.layer.name,)
        return ()

    def _preamble(self, ref: TensorRef) -> tuple[str, ...]:
        """Return what only moves, scales and shifts an input, if constants of the model do."""
        found: dict[str, None] = {}
        waiting = [ref]
        while waiting:
            for reader in self._graph.consumers(waiting.pop()):
                name = reader.layer.name
                parts = {name, name.rpartition("/")[0]}
                scales = len(reader.inputs) == 1 and op_of(reader.layer).combine is not None
                moves = op_type(reader.layer) in self._moves
                if name not in found and (scales or moves or parts & self._constants):
                    found[name] = None
                    waiting += reader.outputs
        names = tuple(found)
        return names if self._constants.intersection(names) else ()


def own_grids(found: Sequence[Collapse], asked: Mapping[str, str]) -> dict[str, str]:
    """Return precisions by which collapsed channels get grids of their own, where that is known.

    A Concat in float leaves each of its inputs the grid it has; constants in front of the network
    (Rescaling, Normalization, arithmetic with a constant) computed in float read the input as it
    is. Layers for which the user chose a precision are left alone.
    """
    layers = {name for one in found for name in one.layers}
    free = (name for name in sorted(layers) if not any(names_layer(name, glob) for glob in asked))
    return dict.fromkeys(free, FLOAT)


def advice(sim: QuantSim, layer: str) -> str:
    """Return the argument that gives a tensor finer steps, from the profile's precisions."""
    profile, kernel = sim.record.profile, sim.record.plan.kernels.get(layer)
    now = profile.own.activation_bits
    names = list(kernel.allowed) if kernel is not None else list(profile.precision_names)
    wider = [n for n in names if now < profile.precision(n).activation_bits]
    best = next((n for n in wider if profile.precision(n).is_integer), FLOAT)
    return f'precision={{"{layer}": "{best}"}}'


def collapsed_tensors(sim: QuantSim, lost: Mapping[str, float]) -> list[str]:
    """Return a message for tensors whose own error is a tenth of their signal or more, in dB."""
    if not lost:
        return []
    named = ", ".join(f"{name!r} ({db:.1f} dB)" for name, db in list(lost.items())[:NAMED])
    more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    first = next(iter(lost))
    layer = TensorRef.parse(first, "input" if "<" in first else "output").layer
    return [
        f"{COLLAPSE} less than {COLLAPSED_DB:g} dB of {named}{more}. Give these layers more "
        f"bits, {advice(sim, layer)}, another range rule, rules={{...}}, or look for samples far "
        "beyond the others in the calibration data."
    ]


def narrow_inputs(sim: QuantSim, ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return a message for each input whose grid is narrower than the range the model declares."""
    found = []
    grids = {name: quantizer.encoding for name, quantizer in sim.quantizers().items()}
    for name, (low, high) in ranges.items():
        grid = grids.get(name)
        if grid is None or grid.spec.is_half:
            continue
        step, ends = float(np.max(grid.scale)), (float(np.min(grid.min)), float(np.max(grid.max)))
        if low < ends[0] - step or high > ends[1] + step:
            found.append(
                f"Input {name!r} is declared to lie in {low:g} to {high:g}, and its grid ends at "
                f"{ends[0]:.4g} and {ends[1]:.4g}: numbers beyond are clipped. Calibrate with data "
                f'that reaches the ends, or with rules={{"{name}": "minmax"}}.'
            )
    return found


def clipped_inputs(sim: QuantSim, samples: Sequence[np.ndarray]) -> list[str]:
    """Return a message for each input that leaves its grid by more than clipping rules cut off.

    That is one value in twenty, or one that lies beyond by half the grid's range.
    """
    found = []
    quantizers = sim.quantizers()
    for name, values in zip(sim.input_names, samples, strict=True):
        grid = quantizers[name].encoding if name in quantizers else None
        if grid is None or grid.spec.is_half:
            continue
        low, high = float(np.min(grid.min)), float(np.max(grid.max))
        beyond = np.maximum(low - values, values - high)
        share = float(np.mean(beyond > 1.5 * np.max(grid.scale)))
        if share > CLIPPED_SHARE or np.max(beyond, initial=0.0) > 0.5 * (high - low):
            found.append(
                f"{100 * share:.2g} % of input {name!r} lie beyond its grid, {low:.4g} to "
                f"{high:.4g}, and are clipped, from {np.min(values):.4g} to {np.max(values):.4g}. "
                f'Calibrate with data like this, or with rules={{"{name}": "minmax"}}.'
            )
    return found


def few_samples(count: int) -> list[str]:
    """Return a message if ranges rest on fewer samples than they should."""
    if not 0 < count < FEWEST_SAMPLES:
        return []
    return [
        f"Ranges rest on {count} sample{'s' if count > 1 else ''}; give at least "
        f"{FEWEST_SAMPLES}, better 100 to 500 typical ones."
    ]
