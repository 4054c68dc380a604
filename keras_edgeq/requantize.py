"""Another grid, rule, precision or target for a calibrated sim, without data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.layers import FakeQuant
from keras_edgeq.plan.asked import Asked, by_layer, warn_of_others
from keras_edgeq.plan.kernel import precisions_of
from keras_edgeq.plan.quant_plan import QuantPlan
from keras_edgeq.prepare import Prepared
from keras_edgeq.profiles import TargetProfile, load_profile
from keras_edgeq.sim.beside import Floats
from keras_edgeq.sim.block_rule import warn_of_whole_channels
from keras_edgeq.sim.derive import derive
from keras_edgeq.sim.freeze import all_quantizers, keep_frozen
from keras_edgeq.sim.identity import check_identity
from keras_edgeq.sim.insert import insert
from keras_edgeq.sim.judge import judge, say
from keras_edgeq.sim.plan_check import check_is_plan, check_plan
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.resolve import resolve
from keras_edgeq.sim.resolve_asked import settle
from keras_edgeq.sim.samples import few, samples_of
from keras_edgeq.sim.strip import stripped


def requantize(
    sim: QuantSim,
    profile: str | Path | TargetProfile | None = None,
    *,
    precision: Asked = None,
    rules: Mapping[str, Any] | None = None,
    plan: QuantPlan | None = None,
    check: bool = True,
) -> QuantSim:
    """Return a sim of the same model with other grids, from the statistics of its calibration.

    The weights are the sim's present ones. Grids whose settings stay the same are kept, including
    learned and loaded ones; so are frozen grids. The others are derived again. The given sim is not
    changed.

    Args:
        sim: a calibrated sim with its statistics (`quantize`, `load_sim`).
        profile: another target; None keeps the sim's.
        precision: as for `quantize`; None keeps what was asked for, `{}` asks for nothing.
        rules: as for `quantize`; None keeps the sim's, `{}` takes none. With a plan, changes to its
            rules.
        plan: where quantizers stand and on which grids, instead of `precision`:
            `sim.record.plan.with_bits("conv_pw_*", weights=4)`.
        check: as for `quantize`, on the samples that the sim keeps, or random ones.

    Raises:
        CalibrationDataError: the sim has no statistics, or they lack a tensor that becomes
            quantized; all are named.
        ProfileError: no such profile or precision, a name matches nothing, the plan is that of
            another model, or a frozen grid, such as that of rounded weights, would have to change.
        SimMismatchError: as for `quantize`.

    Example:
        >>> wide = eq.requantize(sim, precision={"head": "W8A16"})
        >>> wide.record.plan.kernels["head"].precision
        'W8A16'
    """
    result = Requantizer(sim)(profile, precision=precision, rules=rules, plan=plan, check=check)
    if check:
        say(result)
    return result


class Requantizer:
    """Makes any number of sims with other grids of one sim, whose float model is taken out once.

    Args:
        sim: a calibrated sim; as long as this is used, its weights do not change.

    Attributes:
        prepared: the float model.

    Raises:
        CalibrationDataError: the sim has no statistics.
    """

    def __init__(self, sim: QuantSim):
        if sim.stats is None:
            raise CalibrationDataError(
                f"Sim {sim.name!r} has no calibration statistics; load it with "
                "keras_edgeq.load_sim, beside its .stats.npz file, or quantize the model again."
            )
        self.sim, self.stats = sim, sim.stats
        self.prepared = Prepared(stripped(sim), sim.record.output_names)

    @property
    def graph(self) -> LayerGraph:
        """The graph of the float model with batch norms folded, which plans are for."""
        return LayerGraph.of(self.prepared.folded)

    @cached_property
    def _floats(self) -> tuple[Floats, bool]:
        """The float model on a few samples, and whether those are data."""
        samples, on_data = samples_of(self.sim)
        return Floats(self.prepared.model, few(samples, self.sim)), on_data

    def __call__(
        self,
        profile: str | Path | TargetProfile | None = None,
        *,
        precision: Asked = None,
        rules: Mapping[str, Any] | None = None,
        plan: QuantPlan | None = None,
        check: bool = True,
    ) -> QuantSim:
        """Return what `requantize` does; its warnings are in its record."""
        sim, record, folded = self.sim, self.sim.record, self.prepared.folded
        target = record.profile if profile is None else load_profile(profile)
        asked = record.precision if precision is None else by_layer(precision, target)
        chosen = record.rules if rules is None else rules
        if plan is None:
            plan = resolve(folded, target, asked).with_rules(chosen)
            warn_of_others(asked, plan.kernels, target)
            warn_of_whole_channels(plan, target)
        else:
            check_is_plan(plan, by_layer(precision, target))
            check_plan(plan, folded)
            plan = settle(plan, folded, target, chosen).with_rules(rules or {})
            asked = precisions_of(plan.kernels)
            chosen = {**record.rules, **(rules or {})}
        plain = replace(record, fidelity=None, warnings=(), parts=None, frozen=frozenset())
        asked_for = {"precision": dict(asked), "rules": dict(chosen)}
        result = insert(self.prepared.model, replace(plain, profile=target, plan=plan, **asked_for))
        kept = _keep_grids(sim, result)
        keep_frozen(sim, result)
        derive(result, self.stats, all_quantizers(result).keys() - kept)
        if check:
            floats, on_data = self._floats
            check_identity(floats, result)
            plain_weights = sim.reference is None
            judge(result, floats if plain_weights else None, on_data=on_data)
        return result


def _keep_grids(old: QuantSim, new: QuantSim) -> set[str]:
    """Give unchanged quantizers the grids they had, and return their names."""
    before, after, known = _covered(old), _covered(new), all_quantizers(old)
    return {
        name
        for name, quantizer in all_quantizers(new).items()
        if name in known
        and before.get(name) == after.get(name)
        and _keep_grid(known[name], quantizer)
    }


def _keep_grid(known: FakeQuant, quantizer: FakeQuant) -> bool:
    """Give a quantizer the grid that it had, and tell whether it has it."""
    encoding = known.encoding
    if known.spec != quantizer.spec or encoding is None or encoding.spec.is_half:
        return False
    quantizer.assign(encoding)
    return True


def _covered(sim: QuantSim) -> dict[str, list[str]]:
    """Return, for each grid, the tensors that are quantized on it."""
    covered: dict[str, list[str]] = {}
    for node in LayerGraph.of(sim).nodes:
        if isinstance(node.layer, FakeQuant):
            name = node.call.node.call_kwargs["tensor"]
            covered.setdefault(node.layer.tensor, []).append(name)
    return covered
