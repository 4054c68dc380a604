"""Run a sim's artifact to see what kernels and runtimes add to its errors."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tf_keras

from keras_edgeq.diagnose.causes import KERNEL, RUNTIME
from keras_edgeq.diagnose.file_facts import files_beside
from keras_edgeq.diagnose.trials import Score
from keras_edgeq.errors import EdgeqError, QuantizationWarning
from keras_edgeq.evaluate.comparison import Candidate
from keras_edgeq.export.export import export
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.runtime.run_report import RunReport, failed_run
from keras_edgeq.sim.quant_sim import QuantSim

# Format -> the package that runs it.
RUNTIMES = {"tflite": "ai_edge_litert", "onnx": "onnxruntime"}
CAUSES = {None: KERNEL, "kernel": KERNEL, "file": RUNTIME, "runtime": RUNTIME}


def runs_of(
    sim: QuantSim, model: tf_keras.Model, samples: Sequence[Any], score: Score | None
) -> tuple[tuple[RunReport, ...], tuple[Candidate, ...]]:
    """Export a sim in the first format that its target has and a runtime here runs, and verify it.

    Args:
        sim: the sim.
        model: the float model it stands for.
        samples: in the order of its inputs.
        score: of the user, which the file is given to; None without.

    Returns:
        A report per way to run the file; none if no runtime is installed. A format that cannot be
        written is a report of a failed run. And the float model's file and the sim's: their bytes,
        their latency, and the score of the sim's.
    """
    formats = runnable(sim.record.profile)
    if not formats:
        return (), ()
    with tempfile.TemporaryDirectory(prefix="edgeq-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", QuantizationWarning)
        try:
            report = export(sim, folder, formats[:1], list(samples), progress=False)
        except EdgeqError as error:
            return (failed_run(f"model.{formats[0]}", formats[0], 0, True, str(error)),), ()
        path = Path(str(report.files[formats[0]]))
        return report.runs, files_beside(path, sim, model, samples, score)


def runnable(profile: TargetProfile) -> list[str]:
    """Return the formats of a target that a runtime here runs."""
    return [one for one in RUNTIMES if one in profile.formats and find_spec(RUNTIMES[one])]


def noise_of(runs: Sequence[RunReport], steps: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return what kernels and runtimes add to each tensor on the sim's own inputs, mean squares.

    Kernels are off by single steps, of which the mean is that of the squares as well. Of several
    runs the last counts, which is that of the runtime's own kernels.

    Args:
        runs: of one artifact.
        steps: tensor -> scale of its grid.
    """
    made: dict[str, dict[str, float]] = {}
    for run in runs:
        for step in run.steps:
            scale = steps.get(step.tensor)
            if scale is not None:
                noise = step.mean_steps * max(step.max_steps, 1) * scale**2
                made[step.tensor] = {CAUSES.get(step.cause, RUNTIME): noise}
    return made
