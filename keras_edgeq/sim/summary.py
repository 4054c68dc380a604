"""What a sim is, in a few words."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import tensorflow as tf

from keras_edgeq.sim.weight_bytes import float_bytes, weight_bytes
from keras_edgeq.table import counted

if TYPE_CHECKING:
    from keras_edgeq.sim.quant_sim import QuantSim


def summary(sim: QuantSim) -> dict[str, str]:
    """Return the target, layers, precisions, bytes and closeness to float of a sim, in words."""
    record, plan = sim.record, sim.record.plan
    integer = {name: k for name, k in plan.kernels.items() if name not in plan.floats}
    mixed = Counter(kernel.precision for kernel in integer.values()).most_common()
    mix = ", ".join(name if len(mixed) == 1 else f"{n} × {name}" for name, n in mixed)
    facts = {
        "target": record.profile.name,
        "layers": f"{counted(len(integer), 'layer')} in integers, {len(plan.floats)} in float",
        "precision": mix,
        "weights": f"{weight_bytes(sim):,} bytes, in float {float_bytes(sim):,}",
    }
    if record.fidelity is not None and record.fidelity.outputs:
        least = min(one.sqnr_db for one in record.fidelity.outputs)
        of = "" if len(record.fidelity.outputs) == 1 else ", the least of its outputs"
        data = "" if record.fidelity.on_data else " on random input"
        facts["SQNR to float"] = f"{least:.1f} dB{of}{data}"
    if record.rounded:
        facts["rounded by"] = ", ".join(sorted(set(record.rounded.values())))
    quantizers = sim.quantizers().values() if tf.executing_eagerly() else ()
    if any(quantizer.encoding is None for quantizer in quantizers):
        facts["state"] = "not calibrated"
    return facts
