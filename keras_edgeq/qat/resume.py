"""`Resume`: what training needs to go on where it was killed, in a folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import tensorflow as tf

from keras_edgeq.errors import TrainingError
from keras_edgeq.graph.os_errors import os_errors


@dataclass
class Position:
    """Where training stands.

    Args:
        epoch: the epoch that runs, from 0.
        step: steps taken in it.
        number: the pass over the data that is being read.
        seen: batches read of it.
        steps: steps taken in all.
    """

    epoch: int = 0
    step: int = 0
    number: int = 0
    seen: int = 0
    steps: int = 0


class Resume:
    """Saves and restores a sim in training: weights, grids, optimizer slots, position.

    Several workers restore what the chief wrote, so the folder is one that all of them see.

    Args:
        folder: of the checkpoints; made when the first is written.
        strategy: under which the sim was made.
        parts: what to save, by name.
    """

    def __init__(self, folder: str | Path, strategy: tf.distribute.Strategy, parts: dict[str, Any]):
        self.folder = Path(folder)
        self._values = tf.Variable(tf.zeros([len(fields(Position))], tf.int64), trainable=False)
        self._checkpoint = tf.train.Checkpoint(position=self._values, **parts)
        # Making a variable takes all workers, and only the chief will count.
        _ = self._checkpoint.save_counter
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(self.folder), max_to_keep=2
        )
        cluster = strategy.cluster_resolver
        kind, task = (cluster.task_type, int(cluster.task_id or 0)) if cluster else (None, 0)
        named = cluster is not None and "chief" in cluster.cluster_spec().jobs
        # Without a chief by name, the first worker is it.
        self._is_chief = kind in (None, "", "chief") or (task == 0 and not named)
        self._aside = self.folder / f"aside-{task}"

    def restore(self) -> Position:
        """Return the position saved last, with everything restored; the start without one.

        Raises:
            TrainingError: the folder belongs to another sim, optimizer or model.
        """
        latest = self._manager.latest_checkpoint
        if latest is None:
            return Position()
        try:
            # What is missing here is said by the error, and needs no warning at exit.
            status = self._checkpoint.restore(latest).expect_partial()
            status.assert_existing_objects_matched()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            reason = str(error).splitlines()[0]
            raise TrainingError(
                f"{latest} does not fit this sim and these optimizers ({reason}) Go on with those "
                "that it was written with, or give checkpoint= another folder."
            ) from None
        return Position(*map(int, self._values.numpy()))

    def save(self, position: Position) -> None:
        """Write a checkpoint; the last two are kept.

        Raises:
            TrainingError: it cannot be written.
        """
        self._values.assign([getattr(position, field.name) for field in fields(Position)])
        try:
            with os_errors():
                self._write()
        except OSError as error:
            raise TrainingError(
                f"Cannot write a checkpoint to {self.folder} ({error}); earlier ones stay valid. "
                "Make room, or give checkpoint= another folder."
            ) from error

    def _write(self) -> None:
        if self._is_chief:
            self._manager.save()
            return
        # Every worker takes part in reading variables that are spread, but one writes.
        self._checkpoint.write(str(self._aside / "checkpoint"))
        shutil.rmtree(self._aside)
