"""Operations that had another name in profiles of earlier versions."""

from __future__ import annotations

from typing import Any

from keras_edgeq.errors import warn

NAMES = {
    "ELU": "Elu",
    "elu": "Elu",
    "selu": "Selu",
    "gelu": "Gelu",
    "mish": "Mish",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "hard_sigmoid": "HardSigmoid",
    "exponential": "Exp",
    "tf.nn.elu": "Elu",
    "tf.nn.selu": "Selu",
    "tf.nn.gelu": "Gelu",
    "tf.nn.softplus": "Softplus",
    "tf.math.softplus": "Softplus",
    "tf.nn.softsign": "Softsign",
    "tf.math.atan": "Atan",
    "tf.math.cos": "Cos",
    "tf.math.erf": "Erf",
    "tf.math.exp": "Exp",
    "tf.math.expm1": "Expm1",
    "tf.math.log": "Log",
    "tf.math.log1p": "Log1p",
    "tf.math.reciprocal": "Reciprocal",
    "tf.math.rsqrt": "Rsqrt",
    "tf.math.sign": "Sign",
    "tf.math.sin": "Sin",
    "tf.math.sqrt": "Sqrt",
    "ThresholdedReLU": "ThresholdedRelu",
    "MaxPooling3D": "MaxPool3D",
    "AveragePooling3D": "AveragePool3D",
    "tf.broadcast_to": "BroadcastTo",
    "tf.clip_by_value": "Clip",
    "tf.gather": "Gather",
    "tf.math.abs": "Abs",
    "tf.math.reduce_min": "ReduceMin",
    "tf.nn.depth_to_space": "DepthToSpace",
    "tf.nn.space_to_depth": "SpaceToDepth",
}


def with_new_names(data: Any, where: str) -> Any:
    """Return the values of JSON with operations as they are called today; `where` is warned of."""
    found: dict[str, None] = {}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {renamed(key): renamed(part) for key, part in value.items()}
        if isinstance(value, list):
            return [renamed(part) for part in value]
        if isinstance(value, str) and value in NAMES:
            found[value] = None
            return NAMES[value]
        return value

    made = renamed(data)
    if found:
        pairs = ", ".join(f"{old!r} is {NAMES[old]!r} now" for old in found)
        warn(f"In {where}: {pairs}.", DeprecationWarning)
    return made
