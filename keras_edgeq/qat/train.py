"""`train`: a training loop over a sim that also learns from its float model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tf_keras

from keras_edgeq.errors import TrainingError
from keras_edgeq.graph import keras_compat
from keras_edgeq.keras3.training import as_tf_keras_training
from keras_edgeq.ptq.session import check_calibrated
from keras_edgeq.qat.descent import Descent
from keras_edgeq.qat.distill import Distillation, float_teacher, teaching
from keras_edgeq.qat.epochs import Epochs, Schedule
from keras_edgeq.qat.feed import check_length, passes_over
from keras_edgeq.qat.objective import Objective, is_categorical, label_losses, losses_of
from keras_edgeq.qat.resume import Resume
from keras_edgeq.qat.train_step import Steps
from keras_edgeq.sim import QuantSim
from keras_edgeq.table import aligned, brief, counted, html


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What `train` did.

    Args:
        sim: the sim that was given, trained.
        history: name -> a value per epoch that ran, as of `History`.
        epochs: the epochs that ran, from 0; training that went on does not begin with 0.
        steps: steps taken in all, also before training was killed.

    Example:
        >>> result = eq.qat.train(sim, (x, y), epochs=2, loss="mse", progress=False)
        >>> result.epochs, len(result.history["loss"])
        ((0, 1), 2)
    """

    sim: QuantSim
    history: Mapping[str, tuple[float, ...]]
    epochs: tuple[int, ...]
    steps: int

    def table(self) -> list[tuple[str, ...]]:
        """Return a row per epoch for people, titles first."""
        columns = zip(*self.history.values(), strict=True) if self.history else ()
        rows = zip(self.epochs, columns, strict=False)
        cells = [(str(epoch), *(f"{value:.5g}" for value in values)) for epoch, values in rows]
        return [("epoch", *self.history), *cells]

    def __repr__(self) -> str:
        last = (f"{name} {values[-1]:.5g}" for name, values in self.history.items() if values)
        return brief(f"TrainingResult of {self.sim.name!r}", counted(self.steps, "step"), *last)

    def __str__(self) -> str:
        return aligned(self.table())

    def _repr_html_(self) -> str:
        return html(repr(self).strip("<>"), self.table())


def train(
    sim: QuantSim,
    data: Any,
    *,
    epochs: int,
    loss: Any = None,
    teacher: tf_keras.Model | str | None = None,
    distillation: Distillation | None = None,
    optimizer: Any = 1e-4,
    range_optimizer: Any = None,
    clip_norm: float | None = None,
    metrics: Any = None,
    validation: Any = None,
    callbacks: Sequence[tf_keras.callbacks.Callback] = (),
    batch_size: int = 32,
    shuffle: bool = True,
    seed: int = 0,
    steps_per_epoch: int | None = None,
    steps_per_execution: int = 1,
    checkpoint: str | Path | None = None,
    save_every: int | None = None,
    progress: bool = True,
) -> TrainingResult:
    """Train a sim in place, on labels, on the outputs of a float teacher, or on both.

    Like `fit`, it changes the given sim. The loss and optimizer of `compile` are not used. The loss
    is the mean over the samples of a batch of the loss on labels and of the terms of
    `distillation`, plus the regularization losses of the sim. If the sim was made under the scope
    of a `tf.distribute.Strategy`, each replica takes a part of each batch.

    Args:
        sim: a calibrated sim, with or without learned ranges.
        data: arrays x, `(x, y)` or `(x, y, sample_weight)`; a `tf.data.Dataset` or a `Sequence` of
            such batches; or a function of the number of the pass over the data that returns one
            of these. x alone is enough for a teacher.
        epochs: train until so many are done.
        loss: on labels, as `compile` takes it; of Keras 3 as well, like metrics and optimizers. Its
            own reduction is not used. None: no labels.
        teacher: a float model of the same inputs and outputs; `"float"` is the float model of the
            sim at this moment. None means `"float"` if there is no `loss` or if `distillation` is
            given, and no teacher otherwise.
        distillation: which tensors of the teacher are compared, and with which weights.
        optimizer: of the weights. A number is the learning rate of Adam.
        range_optimizer: of the learned ranges; a number as above. None trains them as the weights.
        clip_norm: bound of the norm of all gradients, of the whole batch, together.
        metrics: on labels, as `compile` takes them.
        validation: data as `data`, for `val_loss` (the same loss) and `val_<metric>` after each
            epoch.
        callbacks: Keras callbacks. `sim.stop_training = True` ends training. `BackupAndRestore`
            cannot work here; use `checkpoint` instead.
        batch_size: of arrays; of all replicas together.
        shuffle: arrays, in another order in each pass.
        seed: of that order.
        steps_per_epoch: batches of an epoch; the data is read on from epoch to epoch, and again
            from its start. None makes each pass over the data an epoch.
        steps_per_execution: batches in one call of TensorFlow; callbacks see the last of them.
        checkpoint: folder for checkpoints. Make the sim again in the same way and call `train`
            with the same arguments: training that was killed goes on from its last checkpoint, to
            the same weights bit for bit, and finished training returns at once. The data must be
            the same each time: arrays are; a dataset that shuffles again in each pass is not (give
            a function of the pass that seeds it). Dropout draws other numbers, callbacks start from
            scratch, and the logs of the epoch count from there.
        save_every: write a checkpoint after so many steps, in addition to the one after each epoch.
        progress: show a bar per epoch.

    Returns:
        The result, with the trained sim.

    Raises:
        EdgeqError: not a sim, or one that is not calibrated.
        TrainingError: empty data, or data that can be read only once; a teacher of other inputs or
            outputs; an unknown feature; a callback of Keras 3, or what `tf_keras` lacks; a loss
            that becomes NaN (nothing is saved after such a step); a checkpoint of another sim.

    Example:
        >>> import numpy as np, tf_keras, keras_edgeq as eq
        >>> model = tf_keras.Sequential([tf_keras.Input((8,)), tf_keras.layers.Dense(2)])
        >>> x = np.random.rand(64, 8).astype("float32")
        >>> sim = eq.quantize(model, x, progress=False)
        >>> result = eq.qat.train(sim, x, epochs=2, progress=False)
        >>> len(result.history["teacher_loss"])
        2

    Reference:
        Hinton, Vinyals, Dean 2015, arXiv:1503.02531.
    """
    check_calibrated(sim)
    for name, value in (
        ("epochs", epochs),
        ("batch_size", batch_size),
        ("steps_per_epoch", steps_per_epoch),
        ("steps_per_execution", steps_per_execution),
        ("save_every", save_every),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1.")
    if save_every is not None and checkpoint is None:
        raise ValueError("save_every= needs checkpoint=, a folder to save in.")
    loss, metrics, optimizer, range_optimizer, callbacks = as_tf_keras_training(
        (loss, metrics, optimizer, range_optimizer, callbacks)
    )
    _check_callbacks(callbacks)
    passes = passes_over(data, batch_size, shuffle, seed)
    check_length(passes, steps_per_epoch, "training")
    checks = None if validation is None else passes_over(validation, batch_size)
    if checks is not None:
        check_length(checks, None, "validation")
    strategy = sim.distribute_strategy
    with strategy.scope():
        names = tuple(sim.output_names)
        if teacher is None and (loss is None or distillation is not None):
            teacher = "float"
        how = distillation or Distillation()
        named = [is_categorical(one) for one in losses_of(loss, names)]
        taught = teaching(sim, _teacher(teacher, sim), how, named)
        objective = Objective(names, label_losses(loss, names), taught.losses, how)
        descent = Descent(sim, optimizer, range_optimizer, clip_norm)
        scores = None if metrics is None else _scores(sim, metrics)
        steps = Steps(taught, objective, descent, scores, strategy)
        resume = None
        if checkpoint is not None:
            parts = {"sim": sim, "weights": descent.weights, "ranges": descent.ranges}
            parts = {name: part for name, part in parts.items() if part is not None}
            resume = Resume(checkpoint, strategy, parts)
    schedule = Schedule(epochs, steps_per_epoch, steps_per_execution, save_every, progress)
    run = Epochs(sim, steps, passes, checks, schedule, resume)
    history, done = run(callbacks)
    return TrainingResult(sim, history, done, run.position.steps)


def _teacher(given: Any, sim: QuantSim) -> tf_keras.Model | None:
    if isinstance(given, str):
        if given != "float":
            raise TrainingError(f"teacher is {given!r}; it must be 'float', a model, or None.")
        return float_teacher(sim)
    return given


def _scores(sim: QuantSim, metrics: Any) -> tf_keras.Model:
    """Return a model of the sim's own layers that keeps metrics, so that the sim's are its own."""
    model = tf_keras.Model(
        keras_compat.structured_inputs(sim), keras_compat.structured_outputs(sim)
    )
    model.output_names = list(sim.output_names)
    model.compile(metrics=metrics)
    return model


def _check_callbacks(callbacks: Sequence[tf_keras.callbacks.Callback]) -> None:
    if any(isinstance(one, tf_keras.callbacks.BackupAndRestore) for one in callbacks):
        raise TrainingError(
            "BackupAndRestore restores inside fit and nowhere else; give checkpoint= a folder."
        )
