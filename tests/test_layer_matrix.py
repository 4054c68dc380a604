"""docs/layers.md names every public layer, and says what is so."""

import re

import pytest
import tf_keras

from tests.layer_cases import CASES, LAYERS, OTHERS
from tests.scripts import script
from tests.short import short

L = tf_keras.layers
matrix = script("layer_matrix")
TITLES = matrix.TITLES
TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in matrix.PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
]
ROWS = {name.strip("`"): dict(zip(TITLES[1:], cells, strict=False)) for name, *cells in TABLE}
KEPT = (
    *("Conv2D", "Conv3D", "Embedding", "Dot", "RandomFlip", "GRU", "UpSampling3D"),
    *("TimeDistributed", "tf.gather", "tf.einsum(x, constant)", "tf.clip_by_value", "x / y"),
)
# Run whole: one that is in integers, one of a table, one that only ONNX Runtime computes.
WHOLE = ("Conv2D", "tf.abs", "MaxPooling3D")


def test_every_public_layer_has_a_row_or_a_reason():
    public = {kind for name in dir(L) if isinstance(kind := getattr(L, name), type)}
    known = {getattr(L, name) for name in (*LAYERS, *OTHERS)}
    assert public == known
    assert set(CASES) == set(ROWS)


@pytest.mark.parametrize("name", short(CASES, *KEPT))
def test_what_targets_compute_is_what_the_page_says(name):
    said = [ROWS[name][f"{runtime} computes"] for runtime in ("LiteRT", "ONNX Runtime")]
    if "refused" in said:
        pytest.skip("its error has a test of its own")
    model = matrix.model_of(CASES[name])
    assert [matrix.computed(model, profile)[0] for profile in matrix.TARGETS] == said


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_row_is_what_a_run_gives(name):
    made = matrix.row_of(name)
    assert {title: made[title] for title in TITLES[1:]} == ROWS[name]


def test_notes_of_the_page_are_all_referred_to():
    text = matrix.PAGE.read_text(encoding="utf-8")
    notes = re.findall(r"^(\d+)\. ", text, re.M)
    assert set(notes) == set(re.findall(r"\| \((\d+)\) \|", text))
