"""Another grid, rule, precision or target for a calibrated sim, without data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.layers import FakeQuant
from keras_edgeq.prepare import fold_batch_norms
from keras_edgeq.sim.calibrate import assign_activations, assign_weights, floor_weight_scales
from keras_edgeq.sim.freeze import all_quantizers, keep_frozen
from keras_edgeq.sim.identity import check_identity
from keras_edgeq.sim.insert import insert
from keras_edgeq.sim.judge import judge, say
from keras_edgeq.sim.plan_check import check_plan
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.resolve import resolve
from keras_edgeq.sim.samples import few, samples_of
from keras_edgeq.sim.settle import settle
from keras_edgeq.sim.strip import stripped
from keras_edgeq.spec.asked import Asked, by_layer, warn_of_others
from keras_edgeq.spec.kernel import precisions_of
from keras_edgeq.spec.quant_plan import QuantPlan
from keras_edgeq.spec.target_profile import TargetProfile, load_profile


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

    Weights are those the sim has now. Grids whose settings stay the same are kept as they are,
    learned or loaded ones too, and so are frozen ones; the others are derived anew. The given sim
    is not changed.

    Args:
        sim: a calibrated sim with its statistics (`quantize`, `load_sim`).
        profile: another target; None keeps the sim's.
        precision: as for `quantize`; None keeps what was asked for, `{}` asks for nothing.
        rules: as for `quantize`; likewise. Beside a plan, changes to the rules it holds.
        plan: where quantizers stand and on which grids, in place of `precision`:
            `sim.record.plan.with_bits("conv_pw_*", weights=4)`.
        check: as for `quantize`, on the samples that the sim keeps, or random ones.

    Raises:
        CalibrationDataError: the sim has no statistics, or they lack a tensor that becomes
            quantized; all are named.
        ProfileError: no such profile or precision, a name matches nothing, the plan is that of
            another model, or a frozen grid, such as that of rounded weights, cannot stay what it
            is.
        SimMismatchError: as for `quantize`.

    Example:
        >>> wide = eq.requantize(sim, precision={"head": "W8A16"})
        >>> wide.record.plan.kernels["head"].precision
        'W8A16'
    """
    if sim.stats is None:
        raise CalibrationDataError(
            f"Sim {sim.name!r} has no calibration statistics; load it with keras_edgeq.load_sim, "
            "beside its .stats.npz file, or quantize the model anew."
        )
    record = sim.record
    target = record.profile if profile is None else load_profile(profile)
    asked = record.precision if precision is None else by_layer(precision, target)
    chosen = record.rules if rules is None else rules
    prepared = stripped(sim)
    if plan is None:
        plan = resolve(prepared, target, asked).with_rules(chosen)
        warn_of_others(asked, plan.kernels)
    else:
        check_plan(plan, fold_batch_norms(prepared), by_layer(precision, target))
        plan = settle(plan, prepared, target, chosen).with_rules(rules or {})
        asked = precisions_of(plan.kernels)
        chosen = {**record.rules, **(rules or {})}
    result = insert(prepared, plan, target, record.output_names, record.policies, record.constants)
    result.keep(samples=record.samples, precision=dict(asked), rules=dict(chosen))
    result.keep(rounded=record.rounded)
    assign_weights(result)
    assign_activations(result, sim.stats)
    _keep_grids(sim, result)
    keep_frozen(sim, result)
    result.stats, result.reference = sim.stats, sim.reference
    floored = {name: n for name, n in record.floored.items() if name in result.quantized_layers()}
    result.keep(floored={**floored, **floor_weight_scales(result)})
    if check:
        samples, _ = samples_of(sim)
        check_identity(prepared, result, few(samples, sim))
        judge(result)
        say(result)
    return result


def _keep_grids(old: QuantSim, new: QuantSim) -> None:
    """Give unchanged quantizers the grids they had."""
    before, after, known = _covered(old), _covered(new), all_quantizers(old)
    for name, quantizer in all_quantizers(new).items():
        if name in known and before.get(name) == after.get(name):
            _keep_grid(known[name], quantizer)


def _keep_grid(known: FakeQuant, quantizer: FakeQuant) -> None:
    encoding = known.encoding
    if known.spec == quantizer.spec and encoding is not None and not encoding.spec.is_half:
        quantizer.assign(encoding)


def _covered(sim: QuantSim) -> dict[str, list[str]]:
    """Return, for each grid, the tensors that are quantized on it."""
    covered: dict[str, list[str]] = {}
    for node in LayerGraph(sim).nodes:
        if isinstance(node.layer, FakeQuant):
            name = node.call.node.call_kwargs["tensor"]
            covered.setdefault(node.layer.tensor, []).append(name)
    return covered
