"""Apply a remedy to a sim."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import tf_keras

from keras_edgeq.diagnose.remedy import Remedy
from keras_edgeq.ptq.absorb_bias import absorb_bias
from keras_edgeq.ptq.correct_bias import correct_bias
from keras_edgeq.ptq.equalize import equalize
from keras_edgeq.ptq.gptq import gptq
from keras_edgeq.ptq.session import PtqSession
from keras_edgeq.quantize import quantize
from keras_edgeq.requantize import requantize
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.reference import float_form
from keras_edgeq.sim.strip import stripped
from keras_edgeq.streams.store import MEMORY_BYTES

BATCH = 32


def apply_remedy(remedy: Remedy, sim: QuantSim, data: Any) -> QuantSim:
    """Return a sim with a remedy.

    Raises:
        EdgeqError: it cannot be done to this sim.
    """
    return _APPLY[remedy.name](sim, data, remedy.options)


def _range_rule(sim: QuantSim, data: Any, options: Mapping[str, str]) -> QuantSim:
    del data
    return requantize(sim, rules={**sim.record.rules, options["tensor"]: options["rule"]})


def _precision(sim: QuantSim, data: Any, options: Mapping[str, str]) -> QuantSim:
    del data
    asked = {**sim.record.precision, options["layer"]: options["precision"]}
    return requantize(sim, precision=asked)


def _per_channel(sim: QuantSim, data: Any, options: Mapping[str, str]) -> QuantSim:
    del data
    return requantize(sim, options["profile"])


def _calibrate(sim: QuantSim, data: Any, options: Mapping[str, str]) -> QuantSim:
    if not (sim.record.frozen or sim.record.rounded or sim.range_variables()):
        return _unchanged(sim, data, options)
    with PtqSession(sim, data, BATCH, None, MEMORY_BYTES, None, False) as session:
        session.calibrate()
        return session.work


def _correct_bias(sim: QuantSim, data: Any, options: Mapping[str, str]) -> QuantSim:
    del options
    return correct_bias(sim, data, progress=False)


def _gptq(sim: QuantSim, data: Any, options: Mapping[str, str]) -> QuantSim:
    del options
    return gptq(sim, data, progress=False)


def _prepared(change: Callable[..., tf_keras.Model]) -> Callable[..., QuantSim]:
    """Return a remedy that changes the float model and quantizes it again as the sim was."""

    def apply(sim: QuantSim, data: Any, options: Mapping[str, str]) -> QuantSim:
        del options
        model = change(stripped(float_form(sim)), data, progress=False)
        record = sim.record
        asked = {"precision": record.precision or None, "rules": record.rules or None}
        made = quantize(model, data, record.profile, **asked, progress=False)
        made.attach(replace(made.record, output_names=record.output_names))
        return made

    return apply


_unchanged = _prepared(lambda model, data, progress: model)

_APPLY: Mapping[str, Callable[[QuantSim, Any, Mapping[str, str]], QuantSim]] = {
    "range_rule": _range_rule,
    "calibrate": _calibrate,
    "equalize": _prepared(equalize),
    "absorb_bias": _prepared(absorb_bias),
    "per_channel": _per_channel,
    "correct_bias": _correct_bias,
    "gptq": _gptq,
    "precision": _precision,
}
