"""Train the ranges of a sim along with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keras_edgeq.errors import EncodingsError, QuantizationWarning, warn
from keras_edgeq.graph.rebuild import clone, copy_weights, rebuild
from keras_edgeq.layers import FakeQuant, QuantizedLayer
from keras_edgeq.layers.learned_range import METHODS
from keras_edgeq.nearest import did_you_mean
from keras_edgeq.sim.freeze import all_quantizers, matching
from keras_edgeq.sim.quant_sim import QuantSim


def learn_ranges(sim: QuantSim, *patterns: str, method: str = "lsq", ewgs: float = 0.0) -> QuantSim:
    """Return a sim like `sim` whose ranges are trained by gradients.

    The trained variable is the change relative to the present range, so one learning rate suits all
    tensors, and the sim computes the same until the first step. `sim.range_variables()` lists the
    variables. Ranges that the target fixes (softmax) and half precision have none.

    Args:
        sim: a calibrated sim; it is not changed.
        patterns: names of tensors as `describe` prints them, `*` and `?` allowed; these are learned
            even if they were frozen. None learns all that are not frozen. Ranges that were learned
            before are still learned.
        method: `"lsq"` trains scale and, of asymmetric ranges, zero point, with LSQ's gradient
            scale; a range that starts at 0 keeps its start. `"tqt"` trains the logarithm of the
            scale, and zero points. `"pact"` trains the clipping bound of activations, by clipped
            values alone; weights keep their ranges.
        ewgs: strength of element-wise gradient scaling for these tensors, in units of the whole
            range; 0 is the straight-through gradient.

    Raises:
        EncodingsError: a pattern names no tensor, or one without a range to learn; or the method is
            unknown.

    Warns:
        QuantizationWarning: without patterns, and there is no range to learn.

    Example:
        >>> sim = eq.learn_ranges(sim)
        >>> sim.compile(tf_keras.optimizers.Adam(1e-3), "mse")
        >>> history = sim.fit(x, y, verbose=0)

    Reference:
        Esser et al. 2020 (LSQ), arXiv:1902.08153; Bhalgat et al. 2020 (LSQ+), arXiv:2004.09576;
        Jain et al. 2020 (TQT), arXiv:1903.08066; Choi et al. 2018 (PACT), arXiv:1805.06085; Lee et
        al. 2021 (EWGS), arXiv:2104.00903.
    """
    if method not in METHODS:
        raise EncodingsError(
            f"method must be one of {METHODS}, not {method!r}." + did_you_mean(method, METHODS)
        )
    quantizers = all_quantizers(sim)
    empty = sorted(name for name, q in quantizers.items() if q.encoding is None)
    if empty:
        raise EncodingsError(f"{empty[:20]} have no grid to start from; calibrate the sim first.")
    free = {name for name, q in quantizers.items() if _is_free(sim, name, q, method)}
    names = matching(patterns, quantizers) if patterns else free - sim.record.frozen
    if patterns and not names <= free:
        raise EncodingsError(
            f"{sorted(names - free)[:20]} have no range that {method!r} could learn: the target "
            "fixes it, or it is half precision, or that of a weight."
        )
    if not names:
        warn(
            f"learn_ranges found no range in {sim.name!r} that {method!r} could learn: those that "
            "there are were frozen, are fixed by the target, or are half precision"
            f"{' or of weights' if method == 'pact' else ''}.",
            QuantizationWarning,
        )
    options = {name: {"learn": method, "ewgs": ewgs} for name in names}
    return _with_options(sim, options)


def _is_free(sim: QuantSim, name: str, quantizer: FakeQuant, method: str) -> bool:
    spec = quantizer.spec
    is_weight = name not in sim.quantizers()
    return not (spec.is_half or spec.fixed_range or (method == "pact" and is_weight))


def _with_options(sim: QuantSim, options: Mapping[str, Mapping[str, Any]]) -> QuantSim:
    """Return a sim of which some quantizers are made with other options."""
    copies = []

    def on_layer(layer):
        if isinstance(layer, FakeQuant) and layer.tensor in options:
            return clone(layer, **options[layer.tensor])
        if not isinstance(layer, QuantizedLayer):
            return None
        training = layer.get_config()["training"]
        for name in layer.quantizers:
            training[name] = options.get(f"{layer.name}/{name}", training[name])
        copies.append((layer, clone(layer, training=training)))
        return copies[-1][1]

    result = rebuild(sim, on_layer, make=QuantSim)
    assert isinstance(result, QuantSim)  # rebuild returns what `make` makes
    for old, new in copies:
        copy_weights(old.layer, new.layer)
    result.attach(replace(sim.record, frozen=sim.record.frozen - set(options)))
    old = all_quantizers(sim)
    for name, quantizer in all_quantizers(result).items():
        _copy_grid(old[name], quantizer, again=name in options)
    return result


def _copy_grid(old: FakeQuant, new: FakeQuant, again: bool) -> None:
    """Give a quantizer the grid of another; one that learns goes on, or starts `again` there."""
    if again or len(old.weights) != len(new.weights):
        encoding = old.encoding
        if encoding is not None and not encoding.spec.is_half:
            new.assign(encoding)
    else:
        copy_weights(old, new)
