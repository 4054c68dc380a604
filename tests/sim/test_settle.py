"""Bits asked for in a plan become grids: those of asking by precision, from statistics alone."""

import json
import warnings
from functools import cache

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import CalibrationDataError, ProfileError
from keras_edgeq.plan import QuantPlan
from keras_edgeq.prepare import fold_batch_norms, prepare
from keras_edgeq.profiles import load_profile
from keras_edgeq.sim.freeze import all_quantizers
from keras_edgeq.sim.resolve import resolve
from keras_edgeq.sim.resolve_asked import settle
from keras_edgeq.spec import TensorRef
from tests.harness import assert_same_arrays, assert_same_sim, assert_same_state, outputs, snapshot
from tests.models import Input, inputs_for, make, train_like

L = tf_keras.layers
QUIET = {"progress": False}


def build():
    """Two branches that are joined, and a head: what shares grids and what does not."""
    x = Input((8, 8, 3), name="image")
    y = L.Conv2D(6, 3, padding="same", activation="relu", name="stem")(x)
    left = L.Conv2D(4, 1, name="pw_left")(y)
    right = L.Conv2D(4, 1, name="pw_right")(y)
    y = L.MaxPooling2D(name="pool")(L.Concatenate(name="cat")([left, right]))
    y = L.DepthwiseConv2D(3, name="deep")(y)
    return train_like(tf_keras.Model(x, L.Dense(3, name="head")(L.Flatten(name="flat")(y))))


X = inputs_for(build(), 48)


def quantized(**options):
    return eq.quantize(build(), X, **QUIET, **options)


@cache
def sim():
    return quantized()


def plan():
    return sim().record.plan


def bits(sim):
    return {name: q.encoding.spec.bits for name, q in all_quantizers(sim).items()}


def test_a_plan_that_asks_for_nothing_gives_the_same_sim_to_the_bit():
    mixed = quantized(precision={"pw_*": "W4A8", "head": "W8A16", "deep": "FP16"})
    read = QuantPlan.from_json(json.loads(json.dumps(mixed.record.plan.to_json())))
    again = quantized(plan=read)
    assert again.record.plan == mixed.record.plan
    assert_same_arrays(mixed.get_weights(), again.get_weights())
    assert_same_arrays(outputs(mixed, X[:8]), outputs(again, X[:8]))


CASES = {
    "weights": (("pw_*",), {"weights": 4}, {"pw_*": "W4A8"}),
    "operation": (("DepthwiseConv2D", "Dense"), {"weights": 4}, {"deep": "W4A8", "head": "W4A8"}),
    "all": (("*",), {"weights": 4, "activations": 16}, {"*": "W8A16", "pw_*": "W4A16",
            "stem": "W4A16", "deep": "W4A16", "head": "W4A16"}),
    "output": (("output",), {"activations": 16}, {"head": "W8A16"}),
    "input": (("input",), {"precision": "FP16"}, {"stem": "FP16"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bits_in_a_plan_are_the_precisions_asked_for_by_name(case):
    patterns, asked, precision = CASES[case]
    pending = plan().with_bits(*patterns, **asked)
    pending = QuantPlan.from_json(json.loads(json.dumps(pending.to_json())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = eq.requantize(sim(), plan=pending)
        anew = quantized(plan=pending)
    assert got.record.plan == anew.record.plan
    assert not got.record.plan.asked
    wanted = eq.requantize(sim(), precision=precision)
    assert got.record.plan.specs == wanted.record.plan.specs
    assert_same_arrays(outputs(wanted, X[:8]), outputs(got, X[:8]))
    assert_same_arrays(outputs(quantized(precision=precision), X[:8]), outputs(anew, X[:8]))
    assert got.stats is sim().stats


def test_what_follows_is_named_and_what_is_quantized_again_is_in_the_difference():
    with pytest.warns(UserWarning, match=r"^cat \(W8A16\), pool \(W8A16\) follow") as told:
        got = eq.requantize(sim(), plan=plan().with_bits("pw_*", activations=16))
    assert len(told) == 1
    assert told[0].filename == __file__
    diff = plan().diff(got.record.plan)
    assert {c.name: c.after for c in diff.layers} == dict.fromkeys(
        ["pw_left", "pw_right", "cat", "pool"], "W8A16"
    )
    lines = {c.name: (c.before, c.after, c.why) for c in diff.tensors}
    assert lines["pw_left<0"] == ("as made", "int16", "quantized again for pw_left")
    assert lines["pool"] == ("int8", "int16", "on the grid of pw_left")
    assert lines["deep<0"] == ("as made", "int8", "quantized again for deep")
    assert "stem/relu" not in lines


def test_branches_of_other_bits_are_quantized_again_where_they_are_joined():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = eq.requantize(sim(), plan=plan().with_bits("pw_left", activations=16))
    lines = {c.name: (c.after, c.why) for c in plan().diff(got.record.plan).tensors}
    assert lines["cat<0"] == ("int8", "quantized again for cat, on the grid of pw_right")
    assert (bits(got)["pw_left"], bits(got)["pw_right"]) == (16, 8)
    # Named as well, the joint takes the wide grid, and the narrow branch is quantized again.
    with pytest.warns(UserWarning, match=r"^pool \(W8A16\) follow"):
        wide = eq.requantize(sim(), plan=plan().with_bits("pw_left", "cat", activations=16))
    lines = {c.name: (c.after, c.why) for c in plan().diff(wide.record.plan).tensors}
    assert lines["cat<1"] == ("int16", "quantized again for cat, on the grid of pw_left")


def test_a_layer_that_only_moves_integers_does_so_in_what_it_was_asked_for():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = eq.requantize(sim(), plan=plan().with_bits("pool", activations=16))
    lines = {c.name: (c.after, c.why) for c in plan().diff(got.record.plan).tensors}
    assert lines["pool<0"] == ("int16", "quantized again for pool")
    assert got.record.plan.kernels["pool"].precision == "W8A16"
    assert got.record.plan.kernels["cat"].precision == "W8A8"


def test_layers_that_were_not_named_keep_what_they_have():
    head = eq.requantize(sim(), plan=plan().with_bits("head", precision="W8A16"))
    both = eq.requantize(head, plan=head.record.plan.with_bits("stem", weights=4))
    chosen = {name: kernel.precision for name, kernel in both.record.plan.kernels.items()}
    assert (chosen["head"], chosen["stem"], chosen["deep"]) == ("W8A16", "W4A8", "W8A8")
    assert both.record.precision == {"head": "W8A16", "stem": "W4A8"}
    assert eq.requantize(both).record.plan == both.record.plan


def test_rules_and_exchanged_grids_stay():
    own = quantized(rules={"activations": "minmax", "head/kernel": "octav"})
    kept = own.record.plan
    narrow = TensorRef("stem", "param", param="kernel")
    kept = kept.replace({narrow: type(kept.specs[narrow])(**{
        **{f: getattr(kept.specs[narrow], f) for f in ("symmetric", "narrow_range", "axes")},
        "bits": 5})})  # fmt: skip
    got = eq.requantize(own, plan=kept.with_bits("head", weights=4, activations=16))
    specs = {str(ref): spec for ref, spec in got.record.plan.specs.items()}
    assert (specs["stem/kernel"].bits, specs["head/kernel"].bits) == (5, 4)
    assert specs["head/kernel"].rule == "octav"
    assert {specs[name].rule for name in ("stem/relu", "head", "head<0")} == {"minmax"}
    later = eq.requantize(got, plan=got.record.plan, rules={"head": "mse"})
    assert {str(r): s.rule for r, s in later.record.plan.specs.items()}["head"] == "mse"
    assert later.record.rules == {**own.record.rules, "head": "mse"}
    assert bits(later)["stem/kernel"] == 5


def test_the_given_sim_and_plan_are_not_changed():
    before, pending = snapshot(sim()), plan().with_bits("pw_*", weights=4)
    asked = pending.to_json()
    eq.requantize(sim(), plan=pending)
    assert_same_state(before, snapshot(sim()))
    assert pending.to_json() == asked


def test_a_plan_without_data_is_resolved_from_batch_norms():
    model = make("residual")
    x = inputs_for(model)
    asked = eq.quantize(model, x, **QUIET).record.plan.with_bits("*", weights=4)
    got = eq.quantize(model, plan=asked, input_range=(-3.0, 3.0), **QUIET)
    assert {bits(got)[name] for name in bits(got) if name.endswith("kernel")} == {4}


MOVES = {*load_profile("litert_int8").same_grid, *load_profile("litert_int8").regrid}


@pytest.mark.filterwarnings("ignore:.*follow:UserWarning")
@pytest.mark.parametrize("name", ["residual", "separable", "nested_twice", "op_silu", "pools"])
def test_only_what_is_named_or_moves_integers_changes_and_all_of_it_changes_back(name):
    model, profile = fold_batch_norms(prepare(make(name))), load_profile("litert_int8")
    start = resolve(model, profile)
    for layer in start.kernels:
        for precision in ("W4A8", "W8A16", "FP16"):
            asking = start.with_bits(layer, precision=precision)
            there = settle(asking, model, profile)
            changed = {change.name for change in start.diff(there).layers}
            assert all(start.kernels[n].op in MOVES for n in changed - set(asking.asked))
            back = settle(there.with_bits(*asking.asked, precision="W8A8"), model, profile)
            assert back == start


@pytest.mark.parametrize("pending", [False, True])
def test_a_plan_of_another_model_is_refused(pending):
    other = make("residual")
    foreign = eq.quantize(other, inputs_for(other), **QUIET).record.plan
    foreign = foreign.with_bits("scores", weights=4) if pending else foreign
    with pytest.raises(ProfileError, match=r"another model.*has no .*conv2d"):
        eq.requantize(sim(), plan=foreign)


def test_a_plan_of_another_profile_is_refused():
    with pytest.raises(ProfileError, match="another profile than 'snpe_w8a8': stem, pw_left"):
        quantized(profile="snpe_w8a8", plan=plan().with_bits("head", weights=4))
    wide = plan().with_bits("head", weights=4)
    other = eq.requantize(sim(), plan=wide).record.plan.with_bits("stem", weights=4)
    with pytest.raises(ProfileError, match=r"another model or profile: .*'W4A8'"):
        quantized(profile="snpe_w8a8", plan=other)
    with pytest.raises(ProfileError, match=r"another profile than 'tflite_micro_int8': stem"):
        quantized(profile="tflite_micro_int8", plan=plan().with_bits("head", weights=4))


def test_a_plan_and_precisions_are_one_too_many():
    with pytest.raises(ProfileError, match="give one of them"):
        eq.requantize(sim(), plan=plan(), precision={"head": "W4A8"})


def test_what_was_rounded_or_frozen_keeps_its_weights_and_may_get_other_activations():
    fitted = eq.gptq(eq.requantize(sim(), plan=plan().with_bits("head", weights=4)), X, **QUIET)
    own = fitted.record.plan
    with pytest.raises(ProfileError, match="'head/kernel' is frozen"):
        eq.requantize(fitted, plan=own.with_bits("head", weights=8))
    wide = eq.requantize(fitted, plan=own.with_bits("head", activations=16))
    kernels = [s.quantized_layers()["head"].quantizers["kernel"].get_weights()
               for s in (fitted, wide)]  # fmt: skip
    assert_same_arrays(*kernels)
    assert wide.record.rounded == fitted.record.rounded


def test_statistics_that_lack_a_tensor_name_it():
    half = quantized(profile="litert_fp16")
    asked = half.record.plan.with_bits("head", precision="W8A8")
    with pytest.raises(CalibrationDataError, match="lack flat, head; calibrate"):
        eq.requantize(half, plan=asked)


@pytest.mark.slow
def test_the_whole_way_from_a_plan_to_files(tmp_path):
    asked = plan().with_bits("pw_*", weights=4).with_bits("deep", activations=16)
    with pytest.warns(UserWarning, match="flat"):
        mixed = quantized(plan=asked.with_bits("head", precision="FP16"))
    rounded = eq.gptq(mixed, X, **QUIET)
    assert rounded.record.plan.kernels["pw_left"].precision == "W4A8"
    eq.save_sim(rounded, tmp_path / "sim.keras")
    loaded = eq.load_sim(tmp_path / "sim.keras")
    assert_same_sim(rounded, loaded)
    assert loaded.record.plan == rounded.record.plan
    report = eq.export(loaded, tmp_path / "out", ["tflite", "onnx"], verify=X, **QUIET)
    assert {run.artifact for run in report.runs} == {"model.tflite", "model.onnx"}
    assert all(run.agrees for run in report.runs)
    learning = eq.learn_ranges(loaded)
    learning.compile(tf_keras.optimizers.SGD(1e-3), "mse")
    learning.fit(X, np.zeros((48, 3)), epochs=1, verbose=0)
    assert learning.record.plan == rounded.record.plan
