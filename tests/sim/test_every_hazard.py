import pytest

from tests.harness import check_sim
from tests.models import HAZARDS, inputs_for, make
from tests.short import without_long

# Deep chains of tiny random layers amplify rounding more than real models do.
TOLERANCES = {"fused_activations": 0.1, "attention": 0.1}


# Other tests quantize them as well.
LONG = (
    "recurrent", "separate_activations", "fused_activations", "transfer", "nested_twice",
    "nested_same_names", "op_constants", "op_layers", "separable",
    "attention", "written_out",
)  # fmt: skip


@pytest.mark.parametrize("hazard", without_long(HAZARDS, *LONG))
def test_a_sim_computes_nearly_the_float_model_and_survives_saving_and_training(hazard):
    model = make(hazard)
    check_sim(model, inputs_for(model), tolerance=TOLERANCES.get(hazard, 0.05))
