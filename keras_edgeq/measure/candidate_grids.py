"""`CandidateGrids`: the grids, and where they were rounded the weights, of every candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_edgeq.errors import EdgeqError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.layers import QuantizedLayer
from keras_edgeq.measure.groups import Group, SearchSpace, all_precisions, width
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.spec.encoding import Encoding


@dataclass(frozen=True, eq=False)
class CandidateForm:
    """A layer at one candidate.

    Args:
        encodings: grid per parameter; none where the layer computes in float.
        values: parameters, where they are others than the float ones.
    """

    encodings: Mapping[str, Encoding] = field(default_factory=dict)
    values: Mapping[str, NDArray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CandidateGrids:
    """What a layer or tensor becomes at each candidate.

    Args:
        base: a sim in which all groups compute in integers: fewest bits of activations, most of
            weights.
        graph: of the float model.
        groups: what changes together.
        candidates: names of precisions.
        forms: layer -> candidate -> its form.
        activations: candidate, and the profile's own precision -> tensor -> its grid when the
            whole model has that precision; what is missing is float.
    """

    base: QuantSim
    graph: LayerGraph
    groups: tuple[Group, ...]
    candidates: tuple[str, ...]
    forms: Mapping[str, Mapping[str, CandidateForm]]
    activations: Mapping[str, Mapping[str, Encoding]]

    @property
    def mixes_activations(self) -> bool:
        """Tell whether candidates differ in more than weights."""
        profile = self.base.record.profile
        grids = [profile.precision(name).activation for name in self.candidates]
        return any(grid != grids[0] for grid in grids)

    def precisions(self, choice: Mapping[str, str]) -> dict[str, str]:
        """Return the precision of every layer under a choice."""
        return all_precisions(self.graph, self.base.record.profile, choice)

    def uniform(self, candidate: str) -> dict[str, str]:
        """Return the choice of one candidate everywhere, of the first allowed one elsewhere."""
        return uniform(self.groups, candidate)


def uniform(groups: Sequence[Group], candidate: str) -> dict[str, str]:
    """Return the choice of one candidate everywhere, of the first allowed one elsewhere."""
    return {g.name: candidate if candidate in g.candidates else g.candidates[0] for g in groups}


def candidate_grids(space: SearchSpace) -> CandidateGrids:
    """Derive the grids of all candidates from a sim's statistics, weights rounded to the nearest.

    Raises:
        EdgeqError: techniques rounded the weights of the sim already, or no candidate computes in
            integers.
        CalibrationDataError: the sim has no statistics.
        ProfileError: a frozen grid would have to change.
    """
    sim = space.sim
    if sim.record.rounded:
        raise EdgeqError(
            f"Weights of {list(sim.record.rounded)[:5]} lie on their grids already. Search first, "
            'with rounding="gptq", or on a sim fresh from keras_edgeq.quantize.'
        )
    profile, graph = sim.record.profile, space.graph
    groups, candidates = space.groups, space.candidates
    integer = [name for name in candidates if profile.precision(name).is_integer]
    if not integer:
        raise EdgeqError(f"None of {list(candidates)} computes in integers; one candidate has to.")
    sims = {name: space.sim_of(uniform(groups, name)) for name in candidates}
    base = sims[min(integer, key=lambda n: (width(profile, n), -profile.precision(n).weight_bits))]
    forms = {
        group.name: {name: _form(sims[name], group.name) for name in group.candidates}
        for group in groups
    }
    own = profile.own.name
    if own not in sims:  # of layers that have no kernel of the precision they would follow
        kept = {g.name: own for g in groups if own in profile.allowed(g.op)}
        sims[own] = space.sim_of({**uniform(groups, candidates[0]), **kept})
    activations = {
        name: {t: _grid(q) for t, q in made.quantizers().items() if not q.spec.is_half}
        for name, made in sims.items()
    }
    return CandidateGrids(base, graph, groups, candidates, forms, activations)


def _form(sim: QuantSim, layer: str) -> CandidateForm:
    found = sim.quantized_layers().get(layer)
    if found is None:
        return CandidateForm()
    if found.quantizers[found.kernel_name].spec.is_half:
        return CandidateForm({}, {name: _half(found, name) for name in parameters(found)})
    return CandidateForm({name: _grid(quantizer) for name, quantizer in found.quantizers.items()})


def parameters(layer: QuantizedLayer) -> list[str]:
    """Return the names of a layer's parameters, the bias too."""
    has_bias = getattr(layer.layer, "bias", None) is not None
    return [*layer.quantizers, *(["bias"] if has_bias and "bias" not in layer.quantizers else [])]


def _half(layer: QuantizedLayer, name: str) -> NDArray:
    return getattr(layer.layer, name).numpy().astype(np.float16).astype(np.float32)


def _grid(quantizer: Any) -> Encoding:
    encoding = quantizer.encoding
    assert encoding is not None  # requantize calibrates all
    return encoding
