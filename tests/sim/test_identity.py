"""A sim without rounding is the float model; what differs is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import SimMismatchError
from keras_edgeq.graph.rebuild import calls, clone, rebuild
from keras_edgeq.layers import FakeQuant
from keras_edgeq.prepare import prepare, prepared_form
from keras_edgeq.profiles import load_profile
from keras_edgeq.sim.beside import Beside, Floats
from keras_edgeq.sim.identity import check_equal, check_identity
from keras_edgeq.sim.insert import insert
from keras_edgeq.sim.quant_sim import SimRecord
from keras_edgeq.sim.resolve import resolve
from keras_edgeq.sim.samples import few, random_inputs
from keras_edgeq.sim.unrounded import EXPONENTS, Unrounded
from tests.harness import assert_same_state, snapshot
from tests.models import HAZARDS, inputs_for, make, train_like
from tests.short import short

L = tf_keras.layers


def pieces(model, profile="litert_int8", batch_norm="fold"):
    prepared = prepared_form(model, batch_norm == "train").model
    target = load_profile(profile)
    return prepared, insert(
        prepared, SimRecord(target, resolve(prepared, target), tuple(model.output_names))
    )


def identity(prepared, sim, model):
    return check_identity(Floats(prepared, samples(model)), sim, model)


def samples(model, count=4):
    x = inputs_for(model, count)
    return [x[name] for name in model.input_names] if isinstance(x, dict) else [x]


@pytest.mark.parametrize("hazard", short(HAZARDS, *(h for h in HAZARDS if h != "recurrent")))
def test_every_hazard_passes_and_stays_as_it_is(hazard):
    model = make(hazard)
    prepared, sim = pieces(model)
    before = snapshot(model), snapshot(sim), snapshot(prepared)
    noise = 1e-2 if hazard == "mixed_precision" else 1e-4
    assert check_identity(Floats(prepared, samples(model)), sim, model) < noise
    for state, one in zip(before, (model, sim, prepared), strict=True):
        assert_same_state(state, snapshot(one))


@pytest.mark.parametrize(
    "profile", ["litert_int16x8", "litert_w4a8", "litert_fp16", "tensorrt_int8"]
)
def test_other_grids_pass(profile):
    model = make("residual")
    assert identity(*pieces(model, profile), model) < 1e-4


def test_batch_norms_that_train_pass_behind_their_layers():
    model = make("residual")
    assert identity(*pieces(model, batch_norm="train"), model) < 1e-4


def test_grids_of_powers_of_two_change_no_digits():
    """Against a reference in NumPy: a dense layer on steps, with scales and without rounding."""
    x = tf_keras.Input((6,))
    model = train_like(tf_keras.Model(x, L.Dense(3, activation="relu", name="head")(x)))
    _, sim = pieces(model)
    data = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    unrounded, seen = Unrounded(sim), {}

    def visit(name, wanted, got):
        seen[name] = wanted.numpy(), got.numpy()

    Beside(Floats(prepare(model), [data]), sim).walk(unrounded, visit)
    kernel, bias = model.get_layer("head").get_weights()
    wanted = np.maximum(data @ kernel + bias, 0.0)
    np.testing.assert_allclose(seen["head/relu"][1], wanted, atol=1e-6 * np.abs(wanted).max())
    np.testing.assert_array_equal(*seen[sim.input_names[0]])
    assert len(set(EXPONENTS)) == len(EXPONENTS)
    # The sim itself rounds as before.
    assert all(q.encoding is None for q in sim.quantizers().values())


def broken(sim, prepared):
    """Return a sim whose ReLU6 has lost its cap."""

    def on_call(call, new, args, kwargs):
        if kwargs.get("activation") == "relu6":
            kwargs = {**kwargs, "activation": "relu"}
        return new(*args, **kwargs)

    result = rebuild(sim, on_call=on_call, make=type(sim))
    result.attach(sim.record)
    return result


def test_the_first_layer_that_differs_is_named_with_both_values():
    x = tf_keras.Input((6, 6, 2), name="image")
    y = L.ReLU(6.0, name="cap")(L.Conv2D(3, 3, name="conv")(x))
    model = train_like(tf_keras.Model(x, L.Conv2D(2, 1, name="last")(y)))
    prepared, sim = pieces(model)
    data = [20.0 * samples(model)[0]]
    with pytest.raises(SimMismatchError, match=r"at 'cap'.*has 6 where.*\"cap\": \"FP32\"") as told:
        check_identity(Floats(prepared, data), broken(sim, prepared), model)
    assert told.value.tensor == "cap"
    assert told.value.wanted == 6.0
    assert told.value.got > 6.0


def test_a_rewrite_that_changes_the_model_is_named_by_the_users_layer():
    x = tf_keras.Input((6, 6, 2))
    y = L.BatchNormalization(name="norm")(L.Conv2D(3, 3, name="conv")(x))
    model = train_like(tf_keras.Model(x, L.Conv2D(2, 1, name="last")(L.ReLU(name="relu")(y))))
    other = rebuild(
        model, lambda layer: clone(layer, max_value=0.5) if layer.name == "relu" else None
    )
    with pytest.raises(SimMismatchError) as told:
        check_equal(model, other, samples(model))
    assert told.value.tensor == "relu"
    check_equal(model, prepare(model), samples(model))


def test_a_sim_that_differs_is_not_returned_unless_asked_for(monkeypatch):
    model = make("residual")
    x = 20.0 * inputs_for(model)
    module = __import__("keras_edgeq.sim.insert", fromlist=["x"])
    monkeypatch.setitem(module.NAMED, "Relu6", "relu")
    with pytest.raises(SimMismatchError):
        eq.quantize(model, x, progress=False)
    sim = eq.quantize(model, x, check=False, progress=False)
    assert sim.record.fidelity is None


def test_stateful_layers_keep_their_states():
    x = tf_keras.Input((4, 3), batch_size=2)
    lstm = L.LSTM(3, stateful=True, name="lstm")
    model = train_like(tf_keras.Model(x, L.Dense(2)(lstm(x))))
    data = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    model(data)
    states = [state.numpy() for state in lstm.states]
    assert any(np.any(state) for state in states)
    check_equal(model, rebuild(model), [data])
    for state, value in zip(lstm.states, states, strict=True):
        np.testing.assert_array_equal(state.numpy(), value)


def test_half_precision_of_the_user_is_no_mismatch():
    model = make("mixed_precision")
    assert identity(*pieces(model), model) < 0.1


def test_dict_outputs_several_outputs_and_a_fixed_batch_pass():
    for hazard in ("dicts", "several_outputs", "unsorted_inputs"):
        model = make(hazard)
        identity(*pieces(model), model)
    x = tf_keras.Input((6,), batch_size=8)
    model = train_like(tf_keras.Model(x, L.Dense(2)(x)))
    assert [len(part) for part in few([np.zeros((16, 6))], model)] == [8]
    eq.quantize(model, np.random.default_rng(0).normal(size=(16, 6)), progress=False)


def test_random_inputs_hold_ids_that_there_are():
    ids, x = tf_keras.Input((5,), name="ids"), tf_keras.Input((2,), name="x")
    y = L.Concatenate()([L.Flatten()(L.Embedding(7, 2)(ids)), x])
    model = tf_keras.Model([ids, x], L.Dense(2)(y))
    made_ids, made_x = random_inputs(prepare(model), {"x": (3.0, 4.0)})
    assert set(np.unique(made_ids)) <= set(range(7))
    assert made_x.min() >= 3.0
    assert made_x.max() <= 4.0


def test_the_public_transforms_are_checked(monkeypatch):
    model = make("residual")
    x = inputs_for(model)
    sim = eq.quantize(model, x, batch_norm="train", progress=False)
    seen = []
    for place in ("strip", "fold_batch_norms"):
        module = __import__(f"keras_edgeq.sim.{place}", fromlist=["x"])
        for name in ("check_identity", "check_equal"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *a, place=place, **k: seen.append(place))
    eq.strip(sim)
    eq.fold_batch_norms(sim)
    eq.fold_batch_norms(model)
    assert set(seen) == {"strip", "fold_batch_norms"}
    assert seen.count("fold_batch_norms") == 3


def test_quantizers_of_every_call_are_visited_once():
    model = make("shared_layer")
    prepared, sim = pieces(model)
    beside, names = Beside(Floats(prepared, samples(model)), sim), []
    beside.walk(Unrounded(sim), lambda name, *_: names.append(name))
    made = [c.node.call_kwargs["tensor"] for c in calls(sim) if isinstance(c.layer, FakeQuant)]
    assert names == made
