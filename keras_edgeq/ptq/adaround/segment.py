"""`Segment`: the calls of a unit, computed from the tensors that live in front of it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import tensorflow as tf

from keras_edgeq.graph.rebuild import Call, compute
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.block_scales import of_steps
from keras_edgeq.layers.swap import swapped
from keras_edgeq.ptq.adaround.blocks import Unit
from keras_edgeq.streams.pieces import OnCall
from keras_edgeq.streams.stream import rounded_call


class Segment:
    """What of a model leads to the end of a unit.

    Args:
        walked: all calls of the model behind its inputs.
        unit: numbers of calls among them.
        start: call in front of which the tensors live.
    """

    def __init__(self, walked: list[Call], unit: Unit, start: int):
        made: dict[int, int] = {}
        for i in range(start, unit.end + 1):
            made.update({id(t): i for t in tf.nest.flatten(walked[i].node.outputs)})
        needed, waiting, reads = set(), [unit.end], []
        while waiting:
            i = waiting.pop()
            if i in needed:
                continue
            needed.add(i)
            for t in walked[i].reads:
                reads.append(id(t))
                waiting += [made[id(t)]] if id(t) in made else []
        self.calls = [walked[i] for i in sorted(needed)]
        self.end = walked[unit.end]
        self.inputs = [key for key in dict.fromkeys(reads) if key not in made]

    def run(self, values: Mapping[int, Any], on_call: OnCall) -> dict[int, Any]:
        """Compute the calls and return every tensor by the id of its symbol."""
        known = dict(values)
        compute(self.calls, known, on_call)
        return known

    def output(self, values: Mapping[int, Any]) -> Any:
        """Return the unit's output among computed tensors."""
        return values[id(tf.nest.flatten(self.end.node.outputs)[0])]


class _OpenGrid:
    """Stands in for a kernel's quantizer while its rounding is open."""

    def __init__(self, quantizer: FakeQuant, steps: Any):
        self.spec, self._quantizer, self._steps = quantizer.spec, quantizer, steps

    def __call__(self, kernel):
        """Return what the quantizer would, of the kernel in steps that are given."""
        return of_steps(self._quantizer, self._steps, tf.convert_to_tensor(self._quantizer.scale))


def open_call(end: Call, kernels: Mapping[str, Any], drop: float = 0.0, seed: Any = None) -> OnCall:
    """Return how a unit's calls are computed while its rounding is open.

    The last quantizer only applies its activation. Ties are rounded to even throughout: kernels
    differ in that by a step here and there, which is not worth their float64 arithmetic.

    Args:
        end: the last call.
        kernels: layer name -> kernel in steps.
        drop: probability with which an element of a quantized activation stays as it was.
        seed: two integers for that, a tensor.
    """
    dropped = count()

    def on_call(call: Call, args: tuple, kwargs: dict) -> Any:
        layer = call.layer
        if isinstance(layer, QuantizedLayer) and layer.name in kernels:
            name = layer.kernel_name
            grid = _OpenGrid(layer.quantizers[name], kernels[layer.name])
            with swapped(layer, {"quantizers": {**layer.quantizers, name: grid}}):
                return layer(*args, **kwargs)
        if not isinstance(layer, FakeQuant):
            return rounded_call(call, args, kwargs)
        kwargs = {key: value for key, value in kwargs.items() if key != "rounding"}
        if call.node is not end.node and not drop:
            return layer(*args, **kwargs)
        scale = kwargs.get("input_scale")
        real = args[0] if scale is None else args[0] * tf.cast(scale, tf.float32)
        real = layer.activate(real, kwargs)
        if call.node is end.node:
            return real, real, tf.constant(1.0)
        rounded, _, scale = layer(*args, **kwargs)
        own = tf.random.experimental.stateless_fold_in(seed, next(dropped))
        mixed = tf.where(tf.random.stateless_uniform(tf.shape(real), own) < drop, real, rounded)
        return mixed, mixed * tf.math.divide_no_nan(1.0, scale), scale

    return on_call
