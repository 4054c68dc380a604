"""The kernels in a plan give the same plan again, and know the ends of the model."""

import json

import pytest
import tf_keras

from keras_edgeq.plan import QuantPlan
from keras_edgeq.plan.kernel import parents_first, precisions_of
from keras_edgeq.prepare import prepare
from keras_edgeq.profiles import load_profile
from keras_edgeq.sim.resolve import resolve
from tests.models import Input, make

L = tf_keras.layers
LITERT = load_profile("litert_int8")


def branches():
    image = Input((8, 8, 3), name="image")
    x = L.ZeroPadding2D(name="pad")(image)
    left = L.Conv2D(4, 3, activation="relu", name="left")(x)
    right = L.Conv2D(4, 3, name="right")(x)
    y = L.Concatenate(name="cat")([left, right])
    y = L.DepthwiseConv2D(3, name="deep")(y)
    y = L.Flatten(name="flat")(L.MaxPooling2D(name="pool")(y))
    return tf_keras.Model(image, L.Dense(3, activation="softmax", name="head")(y))


def every_second(plan):
    wide = {n: kernel for n, kernel in plan.kernels.items() if "W8A16" in kernel.allowed}
    weighted = [name for name, kernel in wide.items() if kernel.has_weights]
    return dict.fromkeys((weighted or list(wide))[::2], "W8A16")


@pytest.mark.parametrize("name", [
    "residual", "nested_same_names", "shared_in_series", "separate_activations", "op_silu",
    "separable", "prelu", "pools", "moves", "fixed_meets_free", "preprocessing", "lambda_island",
])  # fmt: skip
def test_the_precisions_of_the_kernels_give_the_same_plan_again(name):
    model = prepare(make(name))
    mixed = resolve(model, LITERT, every_second(resolve(model, LITERT)))
    assert "W8A16" in {kernel.precision for kernel in mixed.kernels.values()}
    every = {layer: kernel.precision for layer, kernel in mixed.kernels.items()}
    assert resolve(model, LITERT, parents_first(every)) == mixed
    assert resolve(model, LITERT, precisions_of(mixed.kernels)) == mixed
    assert QuantPlan.from_json(json.loads(json.dumps(mixed.to_json()))) == mixed


def test_layers_at_the_ends_are_those_up_to_the_next_weights():
    kernels = resolve(prepare(branches()), LITERT).kernels
    at = {end: {n for n, k in kernels.items() if end in k.ends} for end in ("input", "output")}
    assert at == {"input": {"pad", "left", "right"}, "output": {"head", "head/softmax"}}


def test_what_is_fused_belongs_to_its_layer_and_what_is_float_has_no_kernel():
    kernels = resolve(prepare(branches()), LITERT).kernels
    assert kernels["left"].parts == ("left/relu",)
    assert "left/relu" not in kernels
    assert "image" not in kernels
    assert "island" not in resolve(prepare(make("lambda_island")), LITERT).kernels


def test_bits_are_those_of_the_profile_with_its_rules_for_the_operation():
    kernels = resolve(prepare(branches()), LITERT).kernels
    assert kernels["deep"].allowed == {
        "W8A8": (8, 8), "W4A8": (4, 8), "W8A16": (8, 16), "W4A16": (4, 16),
        "W8": (None, None), "W4": (None, None), "FP16": (None, None), "FP32": (None, None),
    }  # fmt: skip
    assert kernels["pool"].allowed["W4A16"] == (None, 16)
    prelu = resolve(prepare(make("prelu")), LITERT).kernels
    assert "W8A16" not in next(k for k in prelu.values() if k.op == "PRelu").allowed
