"""How many bits of a weight the artifact stores at a precision."""

from __future__ import annotations

from keras_edgeq.export.tflite.kernels import OPERATIONS, WEIGHTED
from keras_edgeq.profiles.precision import FLOAT_BITS, Precision
from keras_edgeq.profiles.target_profile import TargetProfile

CONTAINERS = (4, 8, 16)


def is_tflite(profile: TargetProfile) -> bool:
    """Tell whether the profile's artifact is a TFLite file; ONNX otherwise."""
    return "tflite" in profile.formats


def grid_bits(profile: TargetProfile, precision: Precision, op: str) -> int:
    """Return the bits of the grid of an operation's weights; 32 for float, 16 for half."""
    spec = profile.weight_spec(op, precision)
    return FLOAT_BITS if spec is None else spec.bits


def stored_bits(profile: TargetProfile, precision: Precision, op: str) -> int:
    """Return the bits that the artifact takes for each weight of an operation.

    ONNX has types of 4, 8 and 16 bits. In TFLite 4 bits are for convolutions, but transposed ones,
    and for dense layers, with 8-bit activations; other kernels read what is narrower as int8.
    """
    spec = profile.weight_spec(op, precision)
    if spec is None:
        return FLOAT_BITS
    if spec.is_half:
        return spec.bits
    narrowest = next(bits for bits in CONTAINERS if bits >= spec.bits)
    if narrowest > 4 or not is_tflite(profile):
        return narrowest
    kernel = WEIGHTED.get(OPERATIONS.get(op, ""))
    activation = precision.activation
    has_kernel = kernel is not None and kernel.int4_version is not None
    return 4 if has_kernel and activation is not None and activation.bits <= 8 else 8


def activation_bytes(precision: Precision) -> int:
    """Return the bytes of each number that a kernel makes."""
    spec = precision.activation
    return 4 if spec is None else 1 if spec.bits <= 8 else 2
