"""`Epochs`: runs traced steps epoch by epoch, with callbacks, validation and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tf_keras
from tqdm import tqdm

from keras_edgeq.errors import TrainingError
from keras_edgeq.qat.feed import Passes, batches_in, empty_error
from keras_edgeq.qat.resume import Position, Resume
from keras_edgeq.qat.train_step import Steps
from keras_edgeq.sim import QuantSim

# Batches of validation in one call of TensorFlow.
VALIDATION_STEPS = 64


@dataclass(frozen=True)
class Schedule:
    """How long to train, in which portions; see `train`."""

    epochs: int
    steps_per_epoch: int | None
    steps_per_execution: int
    save_every: int | None
    progress: bool


class Epochs:
    """One training, from where its checkpoint stands to its end.

    Args:
        sim: what is trained, and what callbacks see.
        steps: the traced functions.
        passes: the training data.
        checks: the validation data, None for none.
        schedule: how long.
        resume: what saves and restores, None for nothing.
    """

    def __init__(
        self,
        sim: QuantSim,
        steps: Steps,
        passes: Passes,
        checks: Passes | None,
        schedule: Schedule,
        resume: Resume | None,
    ):
        self.sim, self.steps, self.schedule, self.resume = sim, steps, schedule, resume
        self.passes, self.checks = passes, checks
        self.position = Position()
        self._iterator: Any = None
        self._length: int | None = None

    def __call__(
        self, callbacks: Sequence[tf_keras.callbacks.Callback]
    ) -> tuple[dict[str, tuple[float, ...]], tuple[int, ...]]:
        """Train and return the logs per epoch, and the numbers of the epochs that ran."""
        before, self.sim.optimizer = self.sim.optimizer, self.steps.descent.weights
        try:
            return self._run(callbacks)
        finally:
            self.sim.optimizer = before

    def _run(self, callbacks):
        rows: dict[int, dict[str, float]] = {}
        if self.resume is not None:
            self.position = self.resume.restore()
        per_epoch = self.schedule.steps_per_epoch or batches_in(self.passes(0))
        heard = tf_keras.callbacks.CallbackList(
            list(callbacks),
            model=self.sim,
            verbose=0,
            epochs=self.schedule.epochs,
            steps=per_epoch,
        )
        self.sim.stop_training = False
        heard.on_train_begin()
        logs: dict[str, float] = {}
        first = self.position.epoch
        for epoch in range(first, self.schedule.epochs):
            heard.on_epoch_begin(epoch)
            logs = self._epoch(heard, per_epoch)
            if self.checks is not None:
                logs |= {f"val_{name}": value for name, value in self._validate(heard).items()}
            heard.on_epoch_end(epoch, logs)
            rows[epoch] = logs
            self.position.epoch, self.position.step = epoch + 1, 0
            if self.resume is not None:
                self.resume.save(self.position)
            if self.sim.stop_training:
                break
        self.steps.descent.finish()
        heard.on_train_end(logs)
        names = dict.fromkeys(name for row in rows.values() for name in row)
        nan = float("nan")
        history = {n: tuple(float(row.get(n, nan)) for row in rows.values()) for n in names}
        return history, tuple(rows)

    def _epoch(self, heard, per_epoch: int | None) -> dict[str, float]:
        """Run what is left of an epoch and return its logs."""
        self._reset_scores()
        sums, samples, logs = np.zeros(len(self.steps.names)), 0.0, self._logs(0.0, 0.0, {})
        at, schedule = self.position, self.schedule
        title = f"epoch {at.epoch + 1}/{schedule.epochs}"
        with tqdm(
            total=per_epoch, initial=at.step, desc=title, disable=not schedule.progress
        ) as bar:
            while schedule.steps_per_epoch is None or at.step < schedule.steps_per_epoch:
                if self._iterator is None:
                    self._open()
                asked = self._portion()
                if asked:
                    heard.on_train_batch_begin(at.step)
                taken, lost, seen, scores = self._take(asked)
                sums, samples = sums + lost, samples + seen
                if taken:
                    bar.update(taken)
                    logs = self._logs(sums, samples, scores)
                    bar.set_postfix(loss=f"{logs['loss']:.4g}", refresh=False)
                    heard.on_train_batch_end(at.step - 1, logs)
                    self._save_within()
                ended = taken < asked or at.seen == self._length
                if ended or (self.sim.stop_training and schedule.steps_per_epoch is None):
                    self._next_pass()
                if self.sim.stop_training or (ended and schedule.steps_per_epoch is None):
                    break
        return logs

    def _open(self) -> None:
        """Begin to read a pass, behind what was seen of it."""
        dataset, seen = self.passes(self.position.number), self.position.seen
        self._length = batches_in(dataset)
        self._iterator = iter(self._distributed(dataset.skip(seen) if seen else dataset))

    def _take(self, asked: int) -> tuple[int, np.ndarray, float, dict[str, Any]]:
        """Take steps; return how many, sums of losses, samples, and metrics."""
        at = self.position
        taken, sums, samples, last, scores = self.steps.train(self._iterator, np.int64(asked))
        taken = int(taken)
        at.step, at.seen, at.steps = at.step + taken, at.seen + taken, at.steps + taken
        if not np.isfinite(float(last)):
            raise TrainingError(
                f"The loss is {float(last)} at step {at.steps} (epoch {at.epoch}, step {at.step} "
                "of it, both from 1 for the first step); nothing was saved after it. Try a lower "
                "learning rate, clip_norm=, or look for NaN in data and labels."
            )
        return taken, sums.numpy(), float(samples), scores

    def _portion(self) -> int:
        """Return how many steps the next call takes: no further than what comes after it."""
        schedule, at = self.schedule, self.position
        count = schedule.steps_per_execution
        if self._length is not None:
            count = min(count, self._length - at.seen)
        if schedule.steps_per_epoch is not None:
            count = min(count, schedule.steps_per_epoch - at.step)
        if schedule.save_every is not None:
            count = min(count, schedule.save_every - at.steps % schedule.save_every)
        return count

    def _save_within(self) -> None:
        """Save between the steps of an epoch; at its end, the callbacks come first."""
        at, every = self.position, self.schedule.save_every
        last = at.step == self.schedule.steps_per_epoch
        if self.schedule.steps_per_epoch is None:
            last = at.seen == self._length
        if self.resume is not None and every is not None and at.steps % every == 0 and not last:
            self.resume.save(at)

    def _next_pass(self) -> None:
        if not self.position.seen:
            raise empty_error("training")
        self.position.number, self.position.seen = self.position.number + 1, 0
        self._iterator = None

    def _validate(self, heard) -> dict[str, float]:
        assert self.checks is not None  # asked before
        self._reset_scores()
        heard.on_test_begin()
        iterator = iter(self._distributed(self.checks(0)))
        sums, samples, taken = np.zeros(len(self.steps.names)), 0.0, VALIDATION_STEPS
        batch, scores = 0, {}
        while taken == VALIDATION_STEPS:
            heard.on_test_batch_begin(batch)
            made = self.steps.evaluate(iterator, np.int64(VALIDATION_STEPS))
            count, lost, seen, _, scores = made
            sums, samples, taken = sums + lost.numpy(), samples + float(seen), int(count)
            batch += taken
            heard.on_test_batch_end(max(batch - 1, 0), {})
        if not samples:
            raise empty_error("validation")
        logs = self._logs(sums, samples, scores)
        heard.on_test_end(logs)
        return logs

    def _logs(self, sums: Any, samples: float, scores: Mapping[str, Any]) -> dict[str, float]:
        names = self.steps.names
        means = sums / samples if samples else np.full(len(names), np.nan)
        logs = dict(zip(names, means.tolist(), strict=True))
        return logs | {name: float(value) for name, value in scores.items()}

    def _reset_scores(self) -> None:
        if self.steps.scores is not None:
            self.steps.scores.reset_metrics()

    def _distributed(self, dataset):
        return self.steps.strategy.experimental_distribute_dataset(dataset)
