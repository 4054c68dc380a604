"""Say by name that a technique found nothing to work on."""

from __future__ import annotations

from collections.abc import Collection

from keras_edgeq.errors import QuantizationWarning, warn
from keras_edgeq.ptq.layer_visit import is_product
from keras_edgeq.sim.quant_sim import QuantSim

SHOWN = 8


def warn_of_nothing(technique: str, model: str, why: str) -> None:
    """Warn that a technique returns what it was given.

    Args:
        technique: name of the function.
        model: name of what it was given.
        why: a sentence, and what to do.
    """
    warn(f"{technique} changed nothing in {model!r}: {why}", QuantizationWarning)


def warn_if_no_products(technique: str, sim: QuantSim) -> None:
    """Warn where a technique for integer weights finds no layer, with what each is instead."""
    layers = sim.quantized_layers()
    if any(map(is_product, layers.values())):
        return
    halves = [n for n, one in layers.items() if one.quantizers[one.kernel_name].spec.is_half]
    others = [name for name in layers if name not in halves]
    kinds = {"in half precision": halves, "no product of matrices": others}
    told = "; ".join(_listed(what, names) for what, names in kinds.items() if names)
    warn_of_nothing(
        technique,
        sim.name,
        "no layer of it is a product of matrices with integer weights "
        f"({told or 'all compute in float'}). Quantize it in a precision with such weights.",
    )


def names_of(found: Collection[str]) -> str:
    """Return names as a sentence has them, the first of many."""
    names = sorted(found)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else "")


def _listed(what: str, names: list[str]) -> str:
    return f"{names_of(names)}: {what}"
