"""Damaged, truncated and hostile files: every reader loads them or says clearly why not."""

import numpy as np
import pytest

from keras_edgeq.errors import EdgeqError
from tests import fuzz

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras 3 with NumPy 2
NAMES = (
    "statistics", "profile", "sim", "keras model", "h5 model", "keras 3 model",
    "keras 3 h5 model", "tflite", "onnx", "data",
    "encodings 0.6.1", "encodings 1.0.0", "encodings 2.0.0",
)  # fmt: skip
# Building a model takes a tenth of a second, starting a runtime half of one, reading arrays a
# thousandth.
CASES = {
    "statistics": 120, "data": 120, "sim": 15, "keras model": 20, "keras 3 model": 20,
    "keras 3 h5 model": 20, "tflite": 15, "onnx": 15,
}  # fmt: skip
MANY = 40


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    found = fuzz.readers(tmp_path_factory.mktemp("valid"))
    assert sorted(reader.name for reader in found) == sorted(NAMES)
    return {reader.name: reader for reader in found}


def outcome(reader, path):
    """Return "loads" or the message of the documented error; anything else is a failure."""
    message = "loads"
    try:
        reader.read(path)
    except EdgeqError as error:
        message = str(error)
    assert 0 < len(message) < 5000, f"a message of {len(message)} characters"
    return message


@pytest.mark.parametrize("name", NAMES)
def test_the_undamaged_file_loads(name, readers):
    assert outcome(readers[name], readers[name].valid) == "loads"


@pytest.mark.filterwarnings("ignore")  # Keras and NumPy warn of what they read
@pytest.mark.parametrize("name", NAMES)
def test_damaged_bytes_load_or_are_one_clear_error(name, readers, tmp_path):
    reader = readers[name]
    seen = set()
    for seed in range(CASES.get(name, MANY)):
        content = fuzz.damaged(reader, seed)
        path = fuzz.as_file(tmp_path, reader.valid.suffix, content)
        seen.add(outcome(reader, path) == "loads")
    assert False in seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["sim", "keras model", "keras 3 model"])
def test_damaged_configurations_load_or_are_one_clear_error(name, readers, tmp_path):
    for seed in range(20):
        content = fuzz.inner_damaged(readers[name], seed)
        outcome(readers[name], fuzz.as_file(tmp_path, ".keras", content))


@pytest.mark.parametrize("text", fuzz.TEXTS)
@pytest.mark.parametrize("name", NAMES)
def test_hostile_text_is_one_clear_error(name, text, readers, tmp_path):
    reader = readers[name]
    path = fuzz.as_file(tmp_path, reader.valid.suffix, fuzz.TEXTS[text])
    assert outcome(reader, path) != "loads"


@pytest.mark.parametrize("name", NAMES)
def test_folders_and_missing_files_are_one_clear_error(name, readers, tmp_path):
    reader = readers[name]
    assert outcome(reader, tmp_path / f"missing{reader.valid.suffix}") != "loads"
    folder = tmp_path / f"folder{reader.valid.suffix}"
    folder.mkdir()
    assert outcome(reader, folder) != "loads"


@pytest.fixture(scope="module")
def bombs():
    return fuzz.bombs()


@pytest.mark.parametrize(
    "bomb",
    ["declared huge", "declared beyond 64 bits", "negative shape", "array bomb", "objects"],
)
def test_arrays_that_declare_more_than_they_hold_are_refused(bomb, bombs, readers, tmp_path):
    path = fuzz.as_file(tmp_path, *bombs[bomb])
    message = outcome(readers["statistics"], path)
    assert any(word in message for word in ("declares", "unpacked", "objects", "shape"))


def test_a_model_that_unpacks_to_many_times_its_size_is_refused(bombs, readers, tmp_path):
    path = fuzz.as_file(tmp_path, *bombs["model bomb"])
    assert "unpacks" in outcome(readers["keras model"], path)


def test_layers_that_the_file_has_no_values_for_are_not_allocated(readers, tmp_path):
    def change(config):
        (head,) = [layer for layer in config["config"]["layers"] if layer["name"] == "head"]
        head["config"]["units"] = 10**9

    path = tmp_path / "huge.keras"
    fuzz.with_config(readers["keras model"].valid, path, change)
    assert "no values" in outcome(readers["keras model"], path)


def test_a_declared_array_is_not_allocated_for_data_files(readers, tmp_path):
    path = fuzz.as_file(tmp_path, ".npy", fuzz.header((10**12, 4, 4, 2), np.float32))
    assert "declares" in outcome(readers["data"], path)


@pytest.mark.parametrize("number", [1, -1, 10**9, None])
def test_a_model_whose_layers_wait_for_ever_is_refused(number, readers, tmp_path):
    def change(config):
        (head,) = [layer for layer in config["config"]["layers"] if layer["name"] == "head"]
        head["inbound_nodes"][0][0][1] = number

    path = tmp_path / "waits.keras"
    fuzz.with_config(readers["keras model"].valid, path, change)
    assert "'head' reads call" in outcome(readers["keras model"], path)


def test_a_data_file_that_unpacks_to_many_times_its_size_is_refused(bombs, readers, tmp_path):
    path = fuzz.as_file(tmp_path, *bombs["array bomb"])
    assert "unpacked" in outcome(readers["data"], path)
