"""`auto_quantize`: say what may be lost, get the cheapest sim that loses no more."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tf_keras

from keras_edgeq.autoquant.judge import AGREEMENT, Judge, Target, is_metric
from keras_edgeq.autoquant.result import AutoQuantResult
from keras_edgeq.autoquant.run import Run
from keras_edgeq.autoquant.split import Split, split
from keras_edgeq.diagnose.diagnose import diagnose
from keras_edgeq.errors import EdgeqError, QuantizationWarning, warn
from keras_edgeq.evaluate.metrics import Metric
from keras_edgeq.keras3 import as_tf_keras
from keras_edgeq.profiles import TargetProfile, load_profile
from keras_edgeq.sim.quant_sim import QuantSim
from keras_edgeq.streams.store import MEMORY_BYTES, TensorStore

MOST_ADVICE = 3


def auto_quantize(
    model: tf_keras.Model,
    data: Any,
    profile: str | Path | TargetProfile = "litert_int8",
    *,
    score: Any = None,
    max_drop: float | None = None,
    min_score: float | None = None,
    budget: float | None = None,
    train: Callable[[QuantSim], Any] | None = None,
    folder: str | Path | None = None,
    strict: bool = True,
    batch_size: int = 32,
    steps: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    progress: bool = True,
) -> AutoQuantResult:
    """Find the cheapest sim that loses no more than it may.

    The model is calibrated in the profile's own precision. While that is not enough, stages follow,
    the cheapest first: other range rules, `equalize`, `correct_bias`, `gptq`, `adaround`, more bits
    for the layers that need them, and training. Those up to `adaround` cost no bytes and no time on
    the device; a diagnosis says which are worth trying. The first sim that is good enough is
    taken; if none is, the best.

    The data is split: half is fitted to, a quarter chooses, and a quarter, which no stage sees,
    judges the end.

    Args:
        model: a float model of `tf_keras` or Keras 3.
        data: inputs in any form `quantize` takes, with labels if the score is a metric. Some
            hundreds of samples, or small losses cannot be told.
        profile: the target: a name, the path of a profile, or a profile.
        score: higher is better: a metric of `tf_keras` or Keras 3, or its name, on the labels of
            the data; or a function of a model, which brings samples of its own, so that the score
            at the end is of the samples that stages were chosen by. None is agreement with the
            float model, in percent.
        max_drop: most that the score may lose to the float model's, in the unit of the score.
        min_score: what it must reach, instead or as well.
        budget: seconds; no stage is begun past them.
        train: trains a sim that it is given, in place, or returns another; tried last.
        folder: where stages are kept; the same call goes on from there, to the same result. A
            folder holds any number of models and targets. Functions are told apart by their names
            only.
        strict: raise when a stage fails. If False, its row says why, and the next is tried.
        batch_size: of arrays and files.
        steps: read at most that many batches.
        memory_bytes: samples are kept in memory up to that size, and in files past it.
        progress: show a bar over the stages.

    Returns:
        The sim, and what each stage gave. It prints as a table.

    Raises:
        EdgeqError: neither `max_drop` nor `min_score` is given, the score is not a finite number,
            the model has no classes and there is no score; with `strict`, a stage failed.
        CalibrationDataError: the data does not fit the model, has no labels for a metric, or fewer
            than four samples.

    Warns:
        QuantizationWarning: the samples are too few to tell a drop of that size.

    Example:
        >>> result = eq.auto_quantize(model, data, max_drop=10.0, progress=False)
        >>> result.met
        True
        >>> report = eq.export(result.sim, "out", ["tflite"], progress=False)
    """
    begin = time.perf_counter()
    if max_drop is None and min_score is None:
        raise EdgeqError("Say what may be lost, max_drop=, or what must be reached, min_score=.")
    if max_drop is not None and not max_drop >= 0.0:
        raise EdgeqError(f"max_drop is {max_drop!r}; it must be a number that is 0 or more.")
    target_profile = profile if isinstance(profile, TargetProfile) else load_profile(profile)
    model = as_tf_keras(model)
    metric = Metric(score, MEMORY_BYTES).name if is_metric(score) else None
    with TensorStore(memory_bytes) as store:
        parts = split(data, model, store, metric, batch_size, steps)
        judge, last = (Judge(model, part, score, store) for part in (parts.choose, parts.test))
        floats = judge(model)
        target = Target(_least(floats.score, max_drop, min_score), floats.score)
        _say_if_few(target, judge.name, parts)
        run = Run(model, target_profile, parts, judge, target, score, train, folder, strict)
        run.go(begin, budget, progress)
        seen = score is not None and metric is None
        end = run.state.judged if seen else last(run.state.best)
        float_end = floats if seen else last(model)
        met = target.met(run.state.judged)
        final = diagnose(run.state.best, parts.choose.batches, remedies=0, progress=False)
        return AutoQuantResult(
            sim=run.state.best,
            met=met,
            history=tuple(run.history),
            measure=judge.name,
            least=target.least,
            float_score=floats.score,
            score=end.score,
            error=end.error,
            float_test_score=float_end.score,
            seen=seen,
            split=str(parts),
            advice=() if met else _advice(final.findings, train is None),
            diagnosis=final,
            seconds=time.perf_counter() - begin,
        )


def _least(float_score: float, max_drop: float | None, min_score: float | None) -> float:
    given = [] if min_score is None else [float(min_score)]
    return max(given + ([] if max_drop is None else [float_score - max_drop]))


def _say_if_few(target: Target, name: str, parts: Split) -> None:
    """Warn where the float model is not good enough, or a sample more or less is too much."""
    count = parts.choose.samples
    if target.drop < 0.0:
        warn(
            f"The score must reach {target.least:.5g}, and the float model's is "
            f"{target.float_score:.5g}: no quantization is asked to be better than that.",
            QuantizationWarning,
        )
    elif name == AGREEMENT and target.drop < 100.0 / count:
        warn(
            f"{count} samples to choose by cannot tell a drop of {target.drop:.3g} %: one of them "
            f"is {100.0 / count:.3g} %. Give more data.",
            QuantizationWarning,
        )


def _advice(findings: Any, no_training: bool) -> tuple[str, ...]:
    lines = [
        f"{one.tensor or one.layer}: {one.advice or ', '.join(map(str, one.remedies)) or one.cause}"
        for one in findings[:MOST_ADVICE]
    ]
    if no_training:
        lines.append("train=, a function that trains the sim on labels or on the float model")
    return tuple(lines)
