"""What was measured is kept, line by line, and read again."""

import numpy as np
import pytest

from keras_edgeq.errors import EdgeqError
from keras_edgeq.measure.measurement_log import MeasurementLog

CHOICE, OTHER = {"a": "W4A8", "b": "W8A8"}, {"a": "W8A8", "b": "W8A8"}
NUMBERS = np.array([[1.0 / 3.0, 2e-300], [np.pi, 4.0]])


def test_numbers_come_back_exactly(tmp_path):
    path = tmp_path / "new" / "measured.jsonl"
    MeasurementLog(path, "run").add(CHOICE, "0", NUMBERS)
    found = MeasurementLog(path, "run")
    np.testing.assert_array_equal(found.get(CHOICE, "0"), NUMBERS)
    np.testing.assert_array_equal(found.get(dict(reversed(CHOICE.items())), "0"), NUMBERS)
    assert found.get(CHOICE, "1") is None
    assert found.get(OTHER, "0") is None


def test_an_unfinished_line_is_cut_off(tmp_path):
    path = tmp_path / "measured.jsonl"
    log = MeasurementLog(path, "run")
    log.add(CHOICE, "0", NUMBERS)
    log.add(CHOICE, "1", NUMBERS)
    path.write_text(path.read_text()[:-20])
    again = MeasurementLog(path, "run")
    assert again.get(CHOICE, "1") is None
    again.add(CHOICE, "1", NUMBERS)
    np.testing.assert_array_equal(MeasurementLog(path, "run").get(CHOICE, "1"), NUMBERS)


def test_another_run_or_damage_is_an_error_and_nothing_is_lost(tmp_path):
    path = tmp_path / "measured.jsonl"
    MeasurementLog(path, "run").add(CHOICE, "0", NUMBERS)
    kept = path.read_text()
    with pytest.raises(EdgeqError, match="another run"):
        MeasurementLog(path, "other")
    assert path.read_text() == kept
    path.write_text(kept + "no json\n")
    with pytest.raises(EdgeqError, match="damaged"):
        MeasurementLog(path, "run")


def test_no_place_to_write(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeqError, match="Cannot keep results"):
        MeasurementLog(tmp_path / "file" / "measured.jsonl", "run")


def test_without_a_path_nothing_is_written(tmp_path):
    log = MeasurementLog(None, "run")
    log.add(CHOICE, "0", NUMBERS)
    np.testing.assert_array_equal(log.get(CHOICE, "0"), NUMBERS)
    assert not list(tmp_path.iterdir())
