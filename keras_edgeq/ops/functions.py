"""Rows of functions of single elements: activations that are no cut, and elementary functions."""

from __future__ import annotations

from typing import Any

import tf_keras

from keras_edgeq.ops.op import Op
from keras_edgeq.ops.plain import activation

L = tf_keras.layers


def _elementary(name: str, **facts: Any) -> Op:
    return Op(name=name, symbols=(f"math.{name.lower()}",), spread="each", **facts)


ELU = activation("Elu", functions=("elu",), symbols=("nn.elu",))
LOG = _elementary("Log", steep_at_zero=True, singular=True)
ROWS = (
    ELU,
    # With another slope than 1 where it leaves zero.
    activation("ScaledElu"),
    activation("Selu", functions=("selu",), symbols=("nn.selu",)),
    activation("Gelu", functions=("gelu",), symbols=("nn.gelu",)),
    activation("Mish", functions=("mish",)),
    activation("Softplus", functions=("softplus",), symbols=("nn.softplus", "math.softplus")),
    activation("Softsign", functions=("softsign",), symbols=("nn.softsign",), bounds=(-1.0, 1.0)),
    activation("HardSigmoid", functions=("hard_sigmoid",), bounds=(0.0, 1.0)),
    activation("Exp", functions=("exponential",), symbols=("math.exp",), singular=True),
    _elementary("Expm1", singular=True),
    LOG,
    _elementary("Log1p", singular=True),
    _elementary("Sqrt", steep_at_zero=True, singular=True),
    _elementary("Rsqrt", steep_at_zero=True, singular=True),
    _elementary("Reciprocal", steep_at_zero=True, singular=True),
    _elementary("Erf", bounds=(-1.0, 1.0)),
    _elementary("Sin", bounds=(-1.0, 1.0)),
    _elementary("Cos", bounds=(-1.0, 1.0)),
    _elementary("Atan"),
    _elementary("Sign", bounds=(-1.0, 1.0)),
)
