"""The front door: a Keras model in, a calibrated sim out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

from keras_edgeq.errors import CalibrationDataError, ProfileError, UnsupportedModelError
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.plan.asked import Asked, by_layer, warn_of_others
from keras_edgeq.plan.kernel import precisions_of
from keras_edgeq.plan.quant_plan import QuantPlan
from keras_edgeq.prepare import prepared_form
from keras_edgeq.prepare.functional import as_functional, check_rebuilt
from keras_edgeq.profiles import TargetProfile, load_profile
from keras_edgeq.sim import QuantSim
from keras_edgeq.sim.beside import Floats
from keras_edgeq.sim.block_rule import warn_of_whole_channels
from keras_edgeq.sim.calibrate import collect
from keras_edgeq.sim.collapse import own_grids
from keras_edgeq.sim.data import Batch, batches, check_count, fixed_batch
from keras_edgeq.sim.data_free import RULES, data_free_stats, input_ranges, known_means
from keras_edgeq.sim.derive import derive
from keras_edgeq.sim.identity import check_identity
from keras_edgeq.sim.insert import insert
from keras_edgeq.sim.judge import judge, say
from keras_edgeq.sim.plan_check import check_is_plan, check_plan
from keras_edgeq.sim.quant_sim import SimRecord
from keras_edgeq.sim.resolve import resolve
from keras_edgeq.sim.resolve_asked import settle
from keras_edgeq.sim.samples import few, peek, random_inputs
from keras_edgeq.sim.stats import CalibrationStats


def quantize(
    model: tf_keras.Model,
    calibration: Any = None,
    profile: str | Path | TargetProfile = "litert_int8",
    *,
    precision: Asked = None,
    rules: Mapping[str, Any] | None = None,
    plan: QuantPlan | None = None,
    batch_size: int = 32,
    steps: int | None = None,
    keep_samples: int = 4,
    input_range: Any = None,
    batch_norm: str = "fold",
    check: bool = True,
    progress: bool = True,
) -> QuantSim:
    """Return a calibrated simulation of `model` on a target.

    The sim is a Keras model: compile, evaluate, fit and save it. It computes in float what the
    target's integer kernels compute. The given model is not changed. Layers under a mixed policy
    train in half precision as before (`QuantizedLayer`); inference is in float32.

    Args:
        model: a built `tf_keras` model, functional, Sequential or subclassed (`as_functional` says
            which), nested models and op layers included, or one of Keras 3. Layers without an
            integer kernel stay float; `sim.record.plan.floats` and `keras-edgeq inspect` name them
            and say why.
        calibration: representative inputs, with or without labels: an array `(samples, ...)`, a
            dict by input name or list of arrays, an `.npy` or `.npz` path, a `tf.data.Dataset`, a
            generator or a `Sequence`. 100 to 500 samples are usually enough. With None, ranges come
            from the model's batch norms, by rule `"minmax"` unless `rules` names another.
        profile: a built-in name (`keras-edgeq profiles`), a profile's JSON path, or a
            `TargetProfile`.
        precision: glob over layer names -> precision, for layers that are to compute in another one
            than the profile's own: `{"conv_pw_*": "W4A8", "head": "FP16"}`. The name of a nested
            model stands for all its layers; the last glob that matches counts. A precision alone,
            `"W4A8"`, is for all layers that have a kernel of it, as glob `"*"` is.
        rules: range rules other than the profile's: `{"activations": "entropy", "weights": "octav",
            "conv1": "minmax"}`; see `QuantPlan.with_rules`.
        plan: where quantizers stand and on which grids, instead of `precision`: the plan of another
            sim of this model (`sim.record.plan`, `QuantPlan.from_json`). Bits asked for by its
            `with_bits` are resolved.
        batch_size: for arrays and files.
        steps: read at most that many batches.
        keep_samples: calibration samples stored in the sim, on which exports are verified when no
            other data is given; 0 stores none. A model with a fixed batch gets whole batches.
        input_range: `(low, high)` of the model's inputs, or a dict by input name; only without
            calibration data. Not needed where a batch norm, Normalization or Rescaling reads it.
        batch_norm: `"fold"`, or `"train"` for a sim that is trained at few bits. With `"train"`,
            batch norms stay behind their layers, the kernels are quantized as they are, and the
            quantizer sits behind the batch norm. `fold_batch_norms(sim)` folds them after training.
            Batch norms that do not fold into the layer in front of them are treated as with
            `"fold"`.
        check: compute four samples in the model and in the sim without rounding, and refuse to
            return a sim that differs. Without data, the samples are random, within the inputs'
            ranges. Then compare the sim with the model (`sim.record.fidelity`), warn of losses, and
            give channels that are far apart grids of their own where that is known to help. False
            skips all of this.
        progress: show a progress bar.

    Returns:
        The sim, of the same inputs and outputs as the model. `sim.stats` holds the statistics.

    Raises:
        UnsupportedModelError: the model is unbuilt, of another framework or holds NaN; or it is
            subclassed, and its call cannot be followed.
        CalibrationDataError: the data is empty, does not fit the model or holds NaN; or there is
            none, and nothing is known about some tensors, which are named.
        ProfileError: no such profile, precision or rule; a name that matches nothing; or a plan of
            another model.
        SimMismatchError: the sim would not compute what the model does, which is a fault of this
            package; the first layer that differs is named.

    Warns:
        QuantizationWarning: tensors or channels that rounding almost destroys, inputs that leave
            their grid, too few samples. Each warning says what to do. `sim.record.warnings` repeats
            them.

    Example:
        >>> import numpy as np, tf_keras, keras_edgeq as eq
        >>> x = tf_keras.Input((8,))
        >>> model = tf_keras.Model(x, tf_keras.layers.Dense(2, activation="relu")(x))
        >>> sim = eq.quantize(model, np.random.rand(64, 8), progress=False)
        >>> sim.predict(np.random.rand(1, 8), verbose=0).shape
        (1, 2)
    """
    given, model = model, as_functional(model)
    check_count("keep_samples", keep_samples, least=0)
    target = load_profile(profile)
    data_free = calibration is None
    if input_range is not None and not data_free:
        raise CalibrationDataError("input_range is read only without calibration data; give one.")
    rules = {**(RULES if data_free else {}), **(rules or {})}
    if batch_norm not in ("fold", "train"):
        raise UnsupportedModelError(
            f'batch_norm is "fold" or "train", not {batch_norm!r}.'
            + did_you_mean(batch_norm, ("fold", "train"))
        )
    wanted = by_layer(precision, target)
    if plan is not None:
        check_is_plan(plan, wanted)
        wanted = precisions_of(plan.kernels)
    # What is not known without data are the numbers inside of a normalization.
    prepared = prepared_form(model, batch_norm == "train", None if data_free else target, wanted)
    folded, known = prepared.folded, prepared.known
    free = plan is None
    if plan is None:
        plan = resolve(folded, target, wanted)
        warn_of_others(wanted, plan.kernels, target)
        warn_of_whole_channels(plan, target)
    else:
        check_plan(plan, folded)
        plan = settle(plan, folded, target)
        wanted = precisions_of(plan.kernels)
    plan = plan.with_rules(rules)
    asked = wanted
    notes: list[str] = []
    kept: list[Batch] = []
    stats: CalibrationStats | None = None
    source: Iterator[Batch] = iter(())
    if data_free:
        stats = data_free_stats(folded, plan, known, input_range)
        ranges = {**known.ranges, **input_ranges(input_range, prepared.model.input_names)}
        seen = random_inputs(prepared.model, ranges)
    else:
        first, source = peek(batches(calibration, model, batch_size, steps, notes))
        source = _keeping(source, kept, _whole_batches(model, keep_samples))
        seen = few(first, model)
    if check:
        check_rebuilt(given, model, seen)
    floats = Floats(prepared.model, seen)

    def made(plan: QuantPlan, asked: Mapping[str, str], stats: Any) -> QuantSim:
        names, policies = prepared.output_names, prepared.policies
        record = SimRecord(target, plan, names, policies=policies, constants=known.constants)
        sim = insert(prepared.model, replace(record, precision=dict(asked), rules=rules))
        if check:
            check_identity(floats, sim, model)
        stats = derive(sim, stats or (lambda: measured(sim)))
        samples = tuple(np.concatenate(parts) for parts in zip(*kept, strict=True))
        sim.keep(stats=stats, samples=samples, warnings=tuple(notes))
        return sim

    def measured(sim: QuantSim) -> CalibrationStats:
        return replace(collect(sim, source, progress), means=known_means(folded, known))

    sim = made(plan, asked, stats)
    if not check:
        say(sim)
        return sim
    apart = own_grids(judge(sim, floats, known.ranges), asked) if free else {}
    asked = {**apart, **asked}
    if apart and (plan := _replanned(folded, target, asked, rules)) is not None:
        sim = made(plan, asked, sim.stats)
        judge(sim, floats, known.ranges)
    else:
        apart = {}
    sim.keep(warnings=(*notes, *sim.record.warnings))
    say(sim, apart)
    return sim


def _replanned(
    folded: tf_keras.Model, target: TargetProfile, asked: Mapping[str, str], rules: Mapping
) -> QuantPlan | None:
    """Return the plan of other precisions, None if the range rules asked for do not hold."""
    try:
        return resolve(folded, target, asked).with_rules(rules)
    except ProfileError:
        return None


def _whole_batches(model: tf_keras.Model, samples: int) -> int:
    """Return a number of samples that a model with a fixed batch takes."""
    whole = fixed_batch(model)
    return -(-samples // whole) * whole if whole else samples


def _keeping(source: Iterator[Batch], kept: list[Batch], wanted: int) -> Iterator[Batch]:
    """Pass batches on and remember the first `wanted` samples."""
    have = 0
    for batch in source:
        if have < wanted:
            kept.append([part[: wanted - have].copy() for part in batch])
            have += len(batch[0])
        yield batch
