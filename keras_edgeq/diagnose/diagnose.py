"""`diagnose`: which layer hurts, why, what helps, and what that gives."""

from __future__ import annotations

import time
import warnings
from typing import Any

from keras_edgeq.diagnose.diagnosis import Diagnosis
from keras_edgeq.diagnose.examine import examine
from keras_edgeq.diagnose.findings import find
from keras_edgeq.diagnose.trials import FEW_DB, Score, Trials, scored
from keras_edgeq.errors import QuantizationWarning
from keras_edgeq.progress import Bar
from keras_edgeq.ptq.session import check_calibrated
from keras_edgeq.sim.data import batches, check_count, fixed_batch
from keras_edgeq.sim.measure_fidelity import compare_outputs
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.sim.reference import float_form
from keras_edgeq.sim.strip import stripped
from keras_edgeq.sim.weight_bytes import float_bytes, weight_bytes
from keras_edgeq.streams.store import MEMORY_BYTES, StoredBatches, TensorStore

SAMPLES = 32


def diagnose(
    sim: QuantSim,
    data: Any,
    score: Score | None = None,
    remedies: int = 5,
    budget: float | None = None,
    *,
    samples: int = SAMPLES,
    verify: bool = True,
    batch_size: int = 32,
    steps: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    progress: bool = True,
) -> Diagnosis:
    """Find where a sim loses accuracy and why, and try what may help.

    Each tensor's error is split into what it makes itself, from float inputs, by cause, and what it
    inherits. Each quantizer is switched on alone in the float model, and off alone in the sim. The
    sim's file is run, and what kernels and runtime add is told apart. Findings follow from that,
    the costliest first: faults, then the rounding that the bits bring with them. For the first of
    them, remedies are tried, the cheapest first, until one wins most of what can be won. Remedies
    that read data are fitted to one half of it; all else is measured on the other half.

    Args:
        sim: a calibrated sim; it is not changed.
        data: inputs like those that the model will see, in any form `quantize` takes; labels are
            not used. 50 to 500 samples, better not those of the calibration.
        score: function of a model that returns a number, higher is better; None measures SQNR only.
        remedies: number of findings for which remedies are tried.
        budget: seconds that trying remedies may take; none is begun past them. None sets no limit.
        samples: number of samples that errors are measured on; quantizers are switched on half of
            them, in networks of many layers on fewer, and the file is compared on 16.
        verify: export the sim to a temporary folder and run it, where its target has a runtime
            here.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        memory_bytes: all tensors of some samples are held at once, of as many samples as fit.
        progress: show progress bars.

    Returns:
        Rows per tensor and layer, and findings; print it, save it as a page, or apply a finding.

    Raises:
        CalibrationDataError: the data is empty, does not fit the model or holds NaN; a count is no
            whole number.
        EdgeqError: it is no calibrated sim, or the score is not a finite number.

    Example:
        >>> found = eq.diagnose(sim, data, remedies=1, verify=False, progress=False)
        >>> better = found.findings[0].apply(sim, data) if found.findings else sim
    """
    check_calibrated(sim)
    check_count("remedies", remedies, least=0)
    check_count("samples", samples)
    begin = time.perf_counter()
    with TensorStore(memory_bytes) as store:
        read = StoredBatches(batches(data, sim, batch_size, steps), store)
        fit, judge = _halves(read, store, fixed_batch(sim))
        model = stripped(float_form(sim))
        trials = Trials(sim, model, fit, judge, score)
        seen, rest = examine(sim, model, judge, samples, verify, score, memory_bytes, progress)
        count = sum(len(batch[0]) for batch in read)
        judged = sum(len(batch[0]) for batch in judge)
        float_score = None if score is None else scored(score, model)
        seconds = time.perf_counter() - begin
        found = find(seen, rest.base_db)
        begin = time.perf_counter()
        most = min(remedies, len(found))
        bar = Bar("remedies", max(most, 1), "finding", progress and most > 0)
        tried = trials.try_all(found[:remedies], budget, bar)
        bar.close()
        if trials.lost_db > FEW_DB:
            warnings.warn(
                f"{count - judged} samples are few to calibrate on: a sim calibrated on them loses "
                f"{trials.lost_db:.1f} dB on the other {judged}. Apply remedies that read data "
                "with more of it.",
                QuantizationWarning,
                stacklevel=2,
            )
    return Diagnosis(
        model=sim.name,
        profile=sim.record.profile.name,
        samples=judged,
        outputs=compare_outputs(sim.output_names, *trials.outputs),
        score=trials.score,
        float_score=float_score,
        weight_bytes=weight_bytes(sim),
        float_bytes=float_bytes(sim),
        macs=sum(one.macs for one in seen.graph),
        tensors=tuple(seen.tensors),
        weights=tuple(seen.weights),
        floats=tuple(seen.floats),
        graph=tuple(seen.graph),
        findings=(*tried, *found[remedies:]),
        runs=tuple(seen.runs),
        files=rest.files,
        not_measured=rest.not_measured,
        passes=(rest.passes * rest.samples + 2 * judged) / count,
        seconds=seconds,
        remedy_seconds=time.perf_counter() - begin,
    )


def _halves(
    read: StoredBatches, store: TensorStore, fixed: int | None
) -> tuple[StoredBatches, StoredBatches]:
    """Return batches to fit remedies to, and others to judge on; the same if there is but one."""
    if len(read) > 1:
        return read.every(2), read.every(2, 1)
    (batch,) = list(read)
    half = len(batch[0]) // 2
    if fixed is not None or not half:
        return read, read
    parts = ([part[:half] for part in batch], [part[half:] for part in batch])
    first, second = (StoredBatches([part], store) for part in parts)
    return first, second
