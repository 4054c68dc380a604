"""Which weights have a scale per block, where a precision asks for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keras_edgeq.errors import QuantizationWarning, warn
from keras_edgeq.numerics.blocks import inner_axes
from keras_edgeq.ops import weights_of
from keras_edgeq.ops.table import OPS, in_blocks
from keras_edgeq.plan.quant_plan import QuantPlan
from keras_edgeq.profiles.target_profile import TargetProfile
from keras_edgeq.spec.quant_spec import QuantSpec


def in_whole_blocks(spec: QuantSpec, layer: Any) -> QuantSpec:
    """Return the grid of a kernel without blocks where it cannot have them.

    Multiples of the scale of a channel are for whole blocks only, as in AIMET; where each block has
    a scale of its own the last one may be shorter.
    """
    if not spec.block_size or _can(spec, layer):
        return spec
    return replace(spec, block_size=0, block_bits=0)


def _can(spec: QuantSpec, layer: Any) -> bool:
    if not spec.axes or not in_blocks(layer):
        return False
    trait = weights_of(layer)
    assert trait is not None  # it has a kernel with axes
    shape = getattr(layer, trait.kernel).shape
    (inner,) = inner_axes(len(shape), spec.axes)
    return not spec.block_bits or int(shape[inner]) % spec.block_size == 0


def warn_of_whole_channels(plan: QuantPlan, profile: TargetProfile) -> None:
    """Name the layers whose channels own a scale each although blocks were asked for."""
    sizes: dict[str, int] = {}
    specs = {ref.layer: s for ref, s in plan.specs.items() if ref.kind == "param" and s.axes}
    for name, kernel in plan.kernels.items():
        weight = profile.precision(kernel.precision).weight
        if weight is None or not weight.block_size or OPS[kernel.op].in_blocks is None:
            continue
        if name in specs and not specs[name].block_size:
            sizes[name] = weight.block_size
    if sizes:
        some = ", ".join(f"{name} ({size})" for name, size in list(sizes.items())[:10])
        warn(
            f"The inputs of {some} are no whole number of blocks, or lie along several axes of the "
            "kernel; these weights have a scale per channel.",
            QuantizationWarning,
        )
