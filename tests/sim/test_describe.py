import pytest
import tf_keras

import keras_edgeq as eq
from keras_edgeq.errors import ProfileError, UnsupportedModelError
from tests.harness import assert_same_state, snapshot
from tests.models import inputs_for, make
from tests.short import without_long

L = tf_keras.layers

# What has float islands, and what is rewritten most.
SOME = (
    "lambda_island", "recurrent", "attention", "conv3d", "transposed3d", "op_silu", "preprocessing",
    "nested_twice", "shared_in_series", "dicts", "moves", "mixed_precision",
)  # fmt: skip


def rows(model, profile="litert_int8"):
    return {row.layer: (row.computes, row.why) for row in eq.describe(model, profile).rows}


def test_each_layer_says_how_it_computes():
    model = make("residual")
    relu, conv = (next(x.name for x in model.layers if type(x) is k) for k in (L.ReLU, L.Conv2D))
    seen = rows(model)
    assert seen[relu] == ("fused", f"into {conv}")
    assert seen["scores/softmax"] == ("integer", "fixed range 0 to 0.996094")
    assert seen[conv] == ("integer", "kernel int8 per channel, bias int32")


def test_layers_that_move_integers_name_the_grid_they_are_on():
    x = tf_keras.Input((4, 4, 2), name="image")
    y = L.Flatten(name="flat")(L.Dropout(0.5, name="dropped")(L.MaxPooling2D(name="pool")(x)))
    seen = rows(tf_keras.Model(x, L.Dense(2, name="head")(y)))
    assert seen["pool"] == seen["flat"] == ("moves integers", "on the grid of image")
    assert "dropped" not in seen


def test_the_table_is_aligned_and_ends_with_the_sum():
    *table, total = str(eq.describe(make("lambda_island"))).splitlines()[1:]
    assert total == "2 of 3 layers compute in integers; 1 stays float."
    assert (
        len(
            {
                line.index(word)
                for line, word in zip(table[1:], ("Dense", "Lambda", "Dense"), strict=True)
            }
        )
        == 1
    )


@pytest.mark.parametrize("hazard", without_long(SOME, "recurrent"))
def test_floats_are_those_of_the_sims_plan_and_the_model_stays_as_it_is(hazard):
    model = make(hazard)
    before = snapshot(model)
    description = eq.describe(model)
    assert_same_state(before, snapshot(model))
    floats = {row.layer: row.why for row in description.floats}
    sim_floats = eq.quantize(model, inputs_for(model, 2), progress=False).record.plan.floats
    assert floats == dict(sim_floats)


def test_unknown_profiles_and_models_without_integers_are_errors():
    with pytest.raises(ProfileError, match="int9"):
        eq.describe(make("sequential"), "int9")
    x = tf_keras.Input((4,))
    with pytest.raises(UnsupportedModelError, match="no integer kernel for any layer"):
        eq.describe(tf_keras.Model(x, L.LayerNormalization()(x)))
