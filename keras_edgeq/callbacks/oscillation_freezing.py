"""`OscillationFreezing`: weights that jump between two integers are brought to rest."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf
import tf_keras

from keras_edgeq.callbacks.oscillation import Track, follow, start
from keras_edgeq.callbacks.sim_of import BackupOrder, sim_of
from keras_edgeq.errors import UnsupportedModelError
from keras_edgeq.graph import keras_compat
from keras_edgeq.layers import FakeQuant
from keras_edgeq.sim import QuantSim
from keras_edgeq.sim.new_ranges import own_bits

# The sim's attribute while it trains: through it checkpoints save what is known of the weights.
ATTRIBUTE = "oscillations"


class OscillationFreezing(tf_keras.callbacks.Callback):
    """Freezes weights that oscillate between two integers, at low bits, while a sim trains.

    After each step, a weight whose integer turned back too often is set to the integer where it was
    most of the time, times the present scale, and stays there. Ranges may be static or learned.
    With `dampening`, weights are also pulled towards the grid: `w -= 2 λ lr (clip(w) - rounded w)`
    after the optimizer's step, with the optimizer's present learning rate. This is decoupled from
    the loss, as AdamW's weight decay is. The paper adds `λ (clip(w) - rounded w)²` to the loss;
    for plain SGD that is the same except for the order of the two. When the bits of a kernel
    change, tracking starts again and its frozen weights are free again.

    The tracking data take 17 bytes per weight while training. `BackupAndRestore` and other
    TensorFlow checkpoints save them; list those that save after batches behind this callback. Such
    a restart goes on within the epoch but reads the dataset from its beginning. It therefore equals
    a training that was not killed only if all batches are alike. Weights saved in TensorFlow's own
    format during training bring the tracking data to a later training, too.

    Args:
        threshold: turns per step, as a moving average, above which a weight is frozen. Above
            `momentum`, or the first turn freezes; two or three times it is a good start.
        momentum: share of the present step in the moving averages.
        final_threshold: where the threshold goes, by half a cosine over all steps of the training.
        dampening: λ; 0 pulls nothing.
        final_dampening: λ at the end, on the same schedule.
        most_bits: kernels whose plan has more bits are left alone; so is each for as long as
            `BitWidthSchedule` gives it more.

    Attributes:
        frozen_share: of the tracked weights, at the end of the last epoch.

    Raises:
        ValueError: a threshold or a momentum outside (0, 1], or a negative dampening; when `fit`
            starts, an annealing over a number of steps that is not known.
        UnsupportedModelError: when `fit` starts, the model is not a sim, has no kernel of so few
            bits, or has no optimizer to take the learning rate of the dampening from; when a call
            has taken several steps, which `steps_per_execution` above 1 does.

    Warns:
        UserWarning: `BackupAndRestore` saves batches before this callback has seen them.

    Example:
        >>> sim = eq.quantize(model, data, precision="W4A8", progress=False)
        >>> sim.compile("adam", "mse")
        >>> freezing = eq.callbacks.OscillationFreezing(0.04, final_threshold=0.02)
        >>> history = sim.fit(x, y, epochs=2, callbacks=[freezing], verbose=0)

    Reference:
        Nagel et al. 2022, "Overcoming Oscillations in Quantization-Aware Training",
        arXiv:2203.11086, sections 4.1 to 4.3 and algorithm 1.
    """

    def __init__(
        self,
        threshold: float,
        *,
        momentum: float = 0.01,
        final_threshold: float | None = None,
        dampening: float = 0.0,
        final_dampening: float | None = None,
        most_bits: int = 4,
    ):
        super().__init__()
        keras_compat.skip_numpy_logs(self)
        final_threshold = threshold if final_threshold is None else final_threshold
        final_dampening = dampening if final_dampening is None else final_dampening
        for value in (threshold, final_threshold, momentum):
            if not 0.0 < value <= 1.0:
                raise ValueError(f"threshold and momentum must lie in (0, 1], but one is {value}.")
        if min(dampening, final_dampening) < 0.0:
            raise ValueError(
                f"dampening is {min(dampening, final_dampening)}; it must be at least 0."
            )
        self.thresholds = threshold, final_threshold
        self.dampenings = dampening, final_dampening
        self.momentum, self.most_bits = momentum, most_bits
        self.frozen_share = 0.0

    def on_train_begin(self, logs=None):
        del logs
        sim = sim_of(self)
        if any(self.dampenings) and getattr(sim, "optimizer", None) is None:
            raise UnsupportedModelError(
                "The dampening takes the optimizer's learning rate, and the sim has no optimizer; "
                "compile it with one, or leave dampening at 0."
            )
        if hasattr(sim, ATTRIBUTE):  # of a training that was killed
            keras_compat.forget(sim, ATTRIBUTE)
        kernels = _kernels(sim, self.most_bits)
        with sim.distribute_strategy.scope():
            self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._tracked = [
                _Tracked(quantizer, layer, name, 2**self.most_bits)
                for layer, name, quantizer in kernels.values()
            ]
        states = [tf.train.Checkpoint(**t.variables) for t in self._tracked]
        # Set at last, because a checkpoint that was read before is restored into it here.
        setattr(sim, ATTRIBUTE, tf.train.Checkpoint(step=self._step, kernels=states))
        self._total = self._total_steps()
        traced = tf.function(self._update_all, autograph=False)
        # Here, so that the first batch need not wait, of which Keras would warn.
        self._update = traced.get_concrete_function(tf.TensorSpec([], tf.float32))
        self._order = BackupOrder(self)

    def on_epoch_begin(self, epoch, logs=None):
        del epoch, logs
        self._order.check_batches()

    def on_train_batch_begin(self, batch, logs=None):
        del logs
        self._begun = batch

    def on_train_batch_end(self, batch, logs=None):
        del logs
        if batch != self._begun:
            raise UnsupportedModelError(
                f"OscillationFreezing looks at the weights after each step, and one call took the "
                f"steps {self._begun} to {batch}; train with steps_per_execution=1."
            )
        self._update(self._learning_rate())

    def on_epoch_end(self, epoch, logs=None):
        del epoch, logs
        frozen = sum(int(tf.math.count_nonzero(t.variables["frozen"])) for t in self._tracked)
        total = sum(t.variables["frozen"].shape.num_elements() for t in self._tracked)
        self.frozen_share = frozen / total

    def on_train_end(self, logs=None):
        del logs
        keras_compat.forget(sim_of(self), ATTRIBUTE)
        del self._tracked, self._step, self._update

    def _total_steps(self) -> int | None:
        """Return over how many steps something is annealed, None if nothing is."""
        annealed = any(start != end for start, end in (self.thresholds, self.dampenings))
        if not annealed:
            return None
        steps = self.params["steps"]
        if steps is None:
            raise ValueError(
                "OscillationFreezing anneals over all steps, and the dataset does not know its "
                "length; give fit steps_per_epoch."
            )
        return steps * self.params["epochs"]

    def _learning_rate(self) -> tf.Tensor:
        if not any(self.dampenings):
            return tf.constant(0.0)
        optimizer: Any = sim_of(self).optimizer
        rate = optimizer.learning_rate
        return tf.cast(rate(optimizer.iterations) if callable(rate) else rate, tf.float32)

    def _update_all(self, learning_rate) -> None:
        threshold, dampening = self._annealed(self.thresholds), self._annealed(self.dampenings)
        pull = tf.minimum(2.0 * dampening * learning_rate, 1.0)
        for tracked in self._tracked:
            tracked.update(self.momentum, threshold, pull if any(self.dampenings) else None)
        self._step.assign_add(1)

    def _annealed(self, ends: tuple[float, float]):
        first, last = ends
        if first == last or self._total is None:
            return tf.constant(first)
        done = tf.cast(self._step, tf.float32) / self._total
        return last + (first - last) * 0.5 * (1.0 + tf.cos(math.pi * done))


class _Tracked:
    """A kernel with its quantizer, and the variables that follow it."""

    def __init__(self, quantizer: FakeQuant, layer: Any, name: str, most: int):
        self.quantizer, self.layer, self.name, self.most = quantizer, layer, name, most
        zeros = tf.zeros(getattr(layer, name).shape)
        # Greatest integer of the grid that was followed: another one, such as the 0 of the
        # beginning, means that what is known is of no use.
        self.variables = {"qmax": tf.Variable(0.0, trainable=False)}
        for field, value in start(zeros)._asdict().items():
            self.variables[field] = tf.Variable(value, trainable=False)

    def update(self, momentum: float, threshold, pull) -> None:
        """Follow the weights through one step; freeze and pull them."""
        weight = getattr(self.layer, self.name)
        rounded, steps, scale = self.quantizer(weight)
        qmin, qmax = (tf.convert_to_tensor(v) for v in (self.quantizer.qmin, self.quantizer.qmax))
        known = Track(*(tf.convert_to_tensor(self.variables[f]) for f in Track._fields))
        is_low = qmax - qmin < self.most
        is_known = is_low & tf.equal(qmax, self.variables["qmax"])
        followed = follow(known, steps, momentum, threshold)
        track = Track(
            *(tf.where(is_known, a, b) for a, b in zip(followed, start(steps), strict=True))
        )
        values = tf.convert_to_tensor(weight)
        if pull is not None:
            zero = self.quantizer.zero_point
            clipped = tf.clip_by_value(values, (qmin - zero) * scale, (qmax - zero) * scale)
            values = tf.where(is_low, values - pull * (clipped - rounded), values)
        weight.assign(tf.where(track.frozen, track.average * scale, values))
        for field, value in track._asdict().items():
            self.variables[field].assign(value)
        self.variables["qmax"].assign(tf.where(is_low, qmax, 0.0))


def _kernels(sim: QuantSim, most_bits: int) -> dict[str, tuple[Any, str, FakeQuant]]:
    """Return layer, parameter and quantizer of the kernels that are followed, by name."""
    bits = own_bits(sim)
    found = {
        f"{layer.name}/{name}": (layer.layer, name, quantizer)
        for layer in sim.quantized_layers().values()
        for name, quantizer in layer.quantizers.items()
        if bits.get(f"{layer.name}/{name}", most_bits + 1) <= most_bits
    }
    if not found:
        raise UnsupportedModelError(
            f"No kernel of the sim has {most_bits} bits or less, so there is nothing for "
            "OscillationFreezing to follow. Quantize with a precision of fewer bits, or give "
            "most_bits=."
        )
    return found
