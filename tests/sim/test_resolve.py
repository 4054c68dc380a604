from dataclasses import replace

import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import ProfileError, UnsupportedModelError
from keras_edgeq.prepare import prepare
from keras_edgeq.profiles import load_profile
from keras_edgeq.profiles.precision import OpRule
from keras_edgeq.sim.resolve import resolve
from keras_edgeq.spec import TensorRef
from tests.models import Input, make

L = tf_keras.layers
LITERT = load_profile("litert_int8")


def plan_of(model, profile=LITERT):
    model = make(model) if isinstance(model, str) else model
    return resolve(prepare(model), profile)


def owners(plan):
    """Names of activation tensors with a grid of their own."""
    return {str(ref) for ref in plan.specs if ref.kind != "param"}


def params(plan):
    return {str(ref): spec for ref, spec in plan.specs.items() if ref.kind == "param"}


def on(plan, name, kind="output"):
    """Printed name of the tensor whose grid `name` lies on."""
    return str(plan.owner(TensorRef.parse(name, kind)))


def test_a_fused_chain_has_no_quantizer_inside():
    model = prepare(make("residual"))
    plan = resolve(model, LITERT)
    relus = {layer.name for layer in model.layers if isinstance(layer, L.ReLU)}
    convolutions = {layer.name for layer in model.layers if "conv2d" in layer.name}
    assert len(relus) == 3
    assert relus <= owners(plan)
    # The last convolution has no ReLU and so a grid; the others lie inside a chain.
    assert len(convolutions & owners(plan)) == 1
    assert {"image", "skip", "scores", "scores/softmax"} <= owners(plan)


def test_a_relu_with_a_second_reader_in_front_is_not_fused():
    plan = plan_of("batch_norm_two_readers")
    assert "conv" in owners(plan)


def test_which_chains_are_fused_is_the_profiles_business():
    plan = plan_of("separate_activations", replace(LITERT, fused=()))
    assert "conv" in owners(plan)
    assert "conv" not in owners(plan_of("separate_activations"))


def test_the_longest_chain_wins():
    x = Input((6, 6, 2))
    y = L.Conv2D(2, 3, padding="same", name="conv")(x)
    model = tf_keras.Model(x, L.ReLU(name="relu")(L.Add(name="sum")([y, x])))
    plan = plan_of(model)
    assert {"conv", "relu"} <= owners(plan)
    assert "sum" not in owners(plan)


def test_an_output_inside_a_chain_ends_the_chain():
    x = Input((6, 6, 2))
    y = L.Conv2D(2, 3, name="conv")(x)
    plan = plan_of(tf_keras.Model(x, [y, L.ReLU(name="relu")(y)]))
    assert {"conv", "relu"} <= owners(plan)


def test_layers_that_move_integers_share_the_grid_of_their_input():
    plan = plan_of("moves")
    first = owners(plan) - {"conv", "last"}
    assert len(first) == 1
    assert on(plan, "pad") == first.pop()
    for name in ("crop", "turn", "reshape"):
        assert on(plan, name) == "conv"
        assert TensorRef(name) in plan.carriers


def test_pools_share_and_average_pools_round_again_half_away():
    plan = plan_of("pools")
    assert on(plan, "max") == on(plan, "average") == on(plan, "global_max") == "conv"
    assert TensorRef("average") in plan.shared
    assert plan.rounding == {TensorRef("average"): "half_away"}
    assert {TensorRef("max"), TensorRef("global_max")} <= set(plan.carriers)
    assert "global_average" in owners(plan)


def test_onnx_runtime_gives_average_pools_a_grid_of_their_own():
    plan = plan_of("pools", load_profile("onnxruntime_int8"))
    assert {"average", "global_average"} <= owners(plan)
    assert on(plan, "max") == "conv"


def test_resizing_shares_and_rounds_ties_as_its_kernel():
    plan = plan_of("upsampling")
    assert TensorRef("nearest") in plan.carriers
    assert plan.shared[TensorRef("bilinear")] == TensorRef("conv")
    assert plan.rounding == {TensorRef("bilinear"): LITERT.regrid["Resize"]}


def test_inputs_of_a_concat_share_one_grid():
    plan = plan_of("unsorted_inputs")
    assert on(plan, "da") == on(plan, "dz") == on(plan, "both")
    assert len({"da", "dz", "both"} & owners(plan)) == 1


def test_a_fixed_range_keeps_its_grid_and_is_requantized_into_a_concat():
    plan = plan_of("fixed_meets_free")
    assert plan.specs[TensorRef("gate")].fixed_range == (0.0, 0.99609375)
    assert on(plan, "joined") == "free"
    assert plan.shared[TensorRef("joined", "input")] == TensorRef("free")
    assert TensorRef("joined", "input", index=1) not in plan.shared


def test_a_concat_of_fixed_ranges_gets_a_grid_of_its_own():
    x = Input((6,))
    parts = [L.Activation("sigmoid", name="a")(x), L.Activation("tanh", name="b")(x)]
    plan = plan_of(tf_keras.Model(x, L.Concatenate(name="both")(parts)))
    assert on(plan, "both") == "both"
    assert plan.specs[TensorRef("both")].fixed_range is None
    assert {str(r) for r in plan.shared if r.kind == "input"} == {"both<0", "both<1"}


def test_a_concat_of_one_fixed_tensor_with_itself_keeps_the_fixed_grid():
    x = Input((6,))
    y = L.Activation("sigmoid", name="a")(x)
    plan = plan_of(tf_keras.Model(x, L.Concatenate(name="both")([y, y])))
    assert on(plan, "both") == "a"


@pytest.mark.parametrize(("profile", "tanh"), [
    ("litert_int8", (-1.0, 127 / 128)), ("onnxruntime_int8", None),
])  # fmt: skip
def test_softmax_sigmoid_and_tanh_have_the_range_of_their_kernel(profile, tanh):
    fixed = {"softmax": (0.0, 255 / 256), "sigmoid": (0.0, 255 / 256), "tanh": tanh}
    x = Input((6,))
    outputs = [L.Activation(name, name=name)(x) for name in fixed]
    plan = plan_of(tf_keras.Model(x, outputs), load_profile(profile))
    assert {name: plan.specs[TensorRef(name)].fixed_range for name in fixed} == fixed


def test_weights_get_a_grid_per_channel_and_the_bias_the_derived_one():
    got = params(plan_of("residual"))
    depthwise = next(s for name, s in got.items() if name.endswith("depthwise_kernel"))
    assert depthwise.axes == (2, 3)
    assert (depthwise.symmetric, depthwise.narrow_range, depthwise.bits) == (True, True, 8)
    assert got["scores/kernel"].axes == (1,)
    assert got["scores/bias"].rule == "derived"


def test_a_profile_without_per_channel_kernels_gives_one_scale_per_tensor():
    got = params(plan_of("residual", replace(LITERT, per_channel=frozenset())))
    assert {spec.axes for spec in got.values()} == {()}


def test_a_profile_with_float_biases_plans_none():
    got = params(plan_of("residual", replace(LITERT, bias="float")))
    assert not [name for name in got if name.endswith("bias")]
    assert got


def test_a_shared_layer_has_one_grid_for_its_kernel_and_one_per_call_for_its_output():
    plan = plan_of("shared_in_series")
    assert list(params(plan)) == ["dense/kernel", "dense/bias"]
    assert {"dense/relu", "dense/relu@1"} <= owners(plan)


@pytest.mark.parametrize(("hazard", "layer", "reason"), [
    ("lambda_island", "island", "Lambda has no integer kernel in profile 'litert_int8'"),
    ("attention", "norm", "LayerNormalization has no integer kernel"),
    ("conv3d", "conv3d", "Conv3D has no integer kernel"),
])  # fmt: skip
def test_a_layer_that_stays_float_is_named_with_the_reason(hazard, layer, reason):
    model = make(hazard)
    floats = plan_of(model).floats
    (name,) = [n for n in floats if n.startswith(layer)]
    assert floats[name].startswith(reason)


def test_a_float_island_reads_and_feeds_quantized_tensors():
    plan = plan_of("lambda_island")
    assert {"before", "island", "after"} <= owners(plan)
    assert list(plan.floats) == ["island"]


def test_what_only_floats_read_is_not_quantized():
    x = Input((None, 4))  # recurrent layers of unknown length stay
    y = L.LSTM(3, return_sequences=True, name="lstm")(L.Dense(4, name="before")(x))
    y = L.Dense(2, name="after")(L.GRU(3, name="gru")(y))
    plan = plan_of(tf_keras.Model(x, y))
    assert "lstm" not in owners(plan)
    assert {"before", "gru"} <= owners(plan)


def test_a_model_that_is_all_integer_names_no_floats():
    assert plan_of("residual").floats == {}


@pytest.mark.parametrize(("function", "reason"), [
    (lambda x: tf.reshape(tf.range(36.0), (6, 6, 1)) - x, "constant operand"),
    (lambda x: tf.maximum(x, [0.5, 0.1]), "constant operand"),
    (lambda x: tf.clip_by_value(x, tf.reduce_min(x, 1, True), 1.0), "clips to bounds"),
    (lambda x: tf.clip_by_value(x, 1.0, -1.0), "clips to bounds"),
    (lambda x: tf.gather(x, tf.cast(x[0, :, 0, 0] > 0, tf.int32), axis=1), "picks at places"),
    (lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=1.0), "pads with"),
    (lambda x: tf.minimum(x, y=tf.reshape(tf.range(36.0), (6, 6, 1))), "constant operand"),
])  # fmt: skip
def test_an_op_with_arguments_no_kernel_takes_stays_float(function, reason):
    x = Input((6, 6, 2))
    y = function(L.Conv2D(2, 1)(x))
    name = y.node.layer.name
    plan = plan_of(tf_keras.Model(x, L.Conv2D(2, 1)(y)))
    assert reason in plan.floats[name]


@pytest.mark.parametrize("function", [
    lambda x: x * 2.0,
    lambda x: 1.0 + x,
    lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]),
    lambda x: tf.concat([x, x], axis=-1),
])  # fmt: skip
def test_an_op_with_arguments_a_kernel_takes_is_quantized(function):
    x = Input((6, 6, 2))
    plan = plan_of(tf_keras.Model(x, L.Conv2D(2, 1)(function(L.Conv2D(2, 1)(x)))))
    assert plan.floats == {}


def test_channels_first_stays_float():
    x = Input((3, 6, 6))
    y = L.Dense(3, name="dense")(L.MaxPooling2D(data_format="channels_first", name="pool")(x))
    plan = plan_of(tf_keras.Model(x, y))
    assert "channels_first" in plan.floats["pool"]


def test_integer_tensors_get_no_grid():
    plan = plan_of("embedding")
    assert "tokens" not in owners(plan)
    assert "embedding" in owners(plan)
    assert params(plan)["embedding/embeddings"].rule == "minmax"


def test_dropout_carries_the_grid():
    plan = plan_of("sequential")
    dropout = next(r for r in plan.carriers if "dropout" in r.layer)
    assert str(plan.carriers[dropout]) != str(dropout)


def test_a_model_in_which_nothing_runs_in_integers_is_refused():
    x = Input((6,))
    model = tf_keras.Model(x, L.LayerNormalization()(x))
    with pytest.raises(
        UnsupportedModelError, match=r"litert_int8.*no integer kernel for any layer"
    ):
        plan_of(model)


def test_resolving_does_not_depend_on_when_it_is_done():
    model = prepare(make("op_layers"))
    assert resolve(model, LITERT) == resolve(model, LITERT)


def in_row():
    """Two convolutions and a dense layer, each with a name."""
    x = Input((6, 6, 2), name="image")
    y = L.Conv2D(3, 3, activation="relu", name="conv1")(x)
    y = L.Conv2D(3, 3, name="conv2")(y)
    return tf_keras.Model(x, L.Dense(2, name="head")(L.Flatten(name="flat")(y)))


def plan_with(asked, model=None, profile=LITERT):
    return resolve(prepare(model or in_row()), profile, asked)


def test_a_layer_of_another_width_quantizes_its_input_again():
    plan = plan_with({"conv2": "W8A16"})
    edge = TensorRef("conv2", "input")
    assert plan.specs[edge].bits == 16
    assert plan.specs[TensorRef("conv1/relu")].bits == 8
    assert plan.specs[TensorRef("conv2")].bits == 16
    # What moves behind it moves 16 bits; the next layer reads 8.
    assert on(plan, "flat") == "conv2"
    assert plan.specs[TensorRef("head", "input")].bits == 8
    assert plan.floats == {}


def test_layers_of_one_width_share_the_tensor_between_them():
    plan = plan_with({"conv*": "W8A16", "head": "W4A16"})
    assert not [ref for ref in plan.specs if ref.kind == "input"]
    assert {spec.bits for ref, spec in plan.specs.items() if ref.kind == "output"} == {16}
    assert plan.specs[TensorRef("head", "param", param="kernel")].bits == 4


def test_only_weights_differ_where_the_width_of_activations_does_not():
    plan = plan_with({"conv2": "W4A8"})
    assert [str(r) for r, s in plan.specs.items() if s.bits == 4] == ["conv2/kernel"]
    assert owners(plan) == owners(plan_with({}))


def test_a_wide_layer_has_a_wide_bias_and_the_ranges_of_its_kernels():
    x = Input((6,))
    model = tf_keras.Model(x, L.Dense(3, activation="softmax", name="scores")(x))
    plan = plan_with({"scores": "W8A16"}, model)
    assert plan.specs[TensorRef("scores", "param", param="bias")].bits == 64
    low, high = plan.specs[TensorRef("scores/softmax")].fixed_range or (0, 0)
    assert (low, high) == (-32767 / 32768, 32767 / 32768)


def test_a_half_layer_of_litert_has_half_weights_and_float_activations():
    plan = plan_with({"conv2": "FP16"})
    assert plan.specs[TensorRef("conv2", "param", param="kernel")].is_half
    assert plan.specs[TensorRef("conv2", "param", param="bias")].is_half
    assert plan.specs[TensorRef("conv2", "param", param="kernel")].axes == ()
    assert "FP16" in plan.floats["conv2"]
    # The next integer layer reads what was moved from there, so that lies on a grid.
    assert plan.specs[TensorRef("flat")].bits == 8
    assert "conv2" not in owners(plan)


def test_a_half_layer_of_onnx_runtime_reads_and_makes_halves():
    plan = plan_with({"conv2": "FP16"}, profile=load_profile("onnxruntime_int8"))
    assert plan.specs[TensorRef("conv2", "input")].is_half
    assert plan.specs[TensorRef("conv2")].is_half
    assert not plan.specs[TensorRef("head", "input")].is_half


def test_a_float_layer_keeps_its_weights():
    plan = plan_with({"conv2": "FP32"})
    assert "conv2/kernel" not in params(plan)
    assert "FP32" in plan.floats["conv2"]
    assert "conv2<0" not in owners(plan)


def test_a_model_may_be_asked_to_stay_float_as_a_whole():
    plan = plan_with({"*": "FP32"})
    assert plan.specs == {}
    assert {"conv1", "conv2", "head"} <= set(plan.floats)


def with_rule(op, rule, **changes):
    return replace(LITERT, ops={**LITERT.ops, op: rule}, **changes)


def test_a_rule_may_leave_an_output_without_a_quantizer():
    plan = plan_with({}, profile=with_rule("Conv2D", OpRule(output=False)))
    assert "conv2" not in owners(plan)
    assert "conv2/kernel" in params(plan)
    assert plan.owner(TensorRef("flat")) is None


def test_a_rule_may_leave_a_model_input_float():
    plan = plan_with({}, profile=with_rule("Input", OpRule(output=False)))
    assert "image" not in owners(plan)
    assert "conv1/relu" in owners(plan)


def test_a_rule_may_leave_weights_float():
    plan = plan_with({}, profile=with_rule("Dense", OpRule(weights=False)))
    assert not [name for name in params(plan) if name.startswith("head")]
    assert "head" in owners(plan)


def test_a_rule_changes_fields_of_the_grids_of_one_operation():
    rule = OpRule(activation={"symmetric": True}, weight={"narrow_range": False})
    plan = plan_with({}, profile=with_rule("Dense", rule))
    assert plan.specs[TensorRef("head")].symmetric
    assert not plan.specs[TensorRef("conv2")].symmetric
    assert not plan.specs[TensorRef("head", "param", param="kernel")].narrow_range
    assert plan.specs[TensorRef("conv2", "param", param="kernel")].narrow_range


def test_a_rule_fixes_a_range_in_integers_and_not_in_halves():
    profile = replace(
        load_profile("onnxruntime_int8"), ops={"Dense": OpRule(fixed_range=(-4.0, 4.0))}
    )
    assert plan_with({}, profile=profile).specs[TensorRef("head")].fixed_range == (-4.0, 4.0)
    half = plan_with({"head": "FP16"}, profile=profile).specs[TensorRef("head")]
    assert half.is_half
    assert half.fixed_range is None


def test_tensors_that_must_share_a_grid_and_cannot_are_named_with_both_rules():
    x = Input((6, 6, 2), name="x")
    parts = [L.Conv2D(2, 1, name="a")(x), L.DepthwiseConv2D(1, name="b")(x)]
    model = tf_keras.Model(x, L.Concatenate(name="both")(parts))
    profile = with_rule("Conv2D", OpRule(activation={"symmetric": True}))
    with pytest.raises(ProfileError, match=r"'both'.*Conv2D \(a\).*DepthwiseConv2D \(b\)"):
        plan_with({}, model, profile)


def test_a_profile_of_all_operations_quantizes_what_it_does_not_know():
    x = Input((6,))
    y = L.LayerNormalization(name="norm")(L.Dense(4, name="dense")(x))
    model = tf_keras.Model(x, L.Activation("elu", name="elu")(y))
    plan = plan_with({}, model, load_profile("aimet_default"))
    assert {"dense", "norm", "elu"} <= owners(plan)
    assert plan.floats == {}
