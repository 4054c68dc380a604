import json

import numpy as np
import pytest

from keras_edgeq.errors import CalibrationDataError
from keras_edgeq.numerics.histogram import BINS, Histogram
from keras_edgeq.numerics.range_rules import histogram_range
from keras_edgeq.sim import CalibrationStats


@pytest.fixture
def stats():
    counts = np.random.default_rng(0).integers(0, 2**40, (2, BINS))
    histograms = {
        "conv": Histogram(counts[0], -3, -1.25, 7.0 / 3, -1.0, 2.0 / 3, 17),
        "encoder/dense@1": Histogram(counts[1], 5, 0.0, 1e-30),
    }
    means = {"conv": np.float32([0.1, -2.5, 1e-20]), "encoder/dense@1": np.float32([7.0])}
    return CalibrationStats(histograms, 500, means)


@pytest.fixture
def path(stats, tmp_path):
    stats.save(tmp_path / "sim.stats.npz")
    return tmp_path / "sim.stats.npz"


def test_statistics_survive_the_disk_bit_for_bit(stats, path):
    loaded = CalibrationStats.load(path)
    assert loaded.samples == 500
    assert list(loaded.histograms) == list(stats.histograms)
    for name, histogram in stats.histograms.items():
        other = loaded.histograms[name]
        np.testing.assert_array_equal(histogram.counts, other.counts)
        assert (histogram.exponent, histogram.low, histogram.high) == (
            other.exponent, other.low, other.high,
        )  # fmt: skip
        np.testing.assert_array_equal(
            [histogram.average_low, histogram.average_high, histogram.batches],
            [other.average_low, other.average_high, other.batches],
        )
    assert list(loaded.means) == list(stats.means)
    for name, mean in stats.means.items():
        assert loaded.means[name].dtype == np.float32
        np.testing.assert_array_equal(loaded.means[name], mean)


def test_a_file_from_before_means_were_kept_knows_none(stats, path):
    head = {"schema": 1, "tensors": list(stats.histograms), "samples": 500}
    rewritten(path, means=None, head=np.frombuffer(json.dumps(head).encode(), np.uint8))
    assert CalibrationStats.load(path).means == {}


def test_a_file_without_the_averages_serves_every_rule_but_theirs(path):
    rewritten(path, average=None, batches=None)
    histogram = CalibrationStats.load(path).histograms["conv"]
    grid = {"bits": 8, "symmetric": False, "signed": True}
    assert histogram_range(histogram, "minmax", **grid) == (-1.25, 7.0 / 3)
    with pytest.raises(CalibrationDataError, match=r"moving_average.*calibrate again"):
        histogram_range(histogram, "moving_average", **grid)


def rewritten(path, **changes):
    with np.load(path) as data:
        arrays = {**data, **changes}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def with_sizes(path, sizes):
    with np.load(path) as data:
        head = {**json.loads(data["head"].tobytes()), "means": sizes}
    rewritten(path, head=np.frombuffer(json.dumps(head).encode(), np.uint8))


def as_text(path):
    path.write_text("not an archive")


def as_single_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def flipped(path):
    content = bytearray(path.read_bytes())
    for i in range(200, len(content) - 400, 7):
        content[i] ^= 0xFF
    path.write_bytes(content)


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": as_text,
    "one array": as_single_array,
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped bytes": flipped,
    "no counts": lambda path: rewritten(path, counts=None),
    "no head": lambda path: rewritten(path, head=None),
    "head is no JSON": lambda path: rewritten(path, head=np.zeros(5, np.uint8)),
    "head is a list": lambda path: rewritten(path, head=np.frombuffer(b"[1]", np.uint8)),
    "too few bins": lambda path: rewritten(path, counts=np.zeros((2, 7), np.int64)),
    "negative counts": lambda path: rewritten(path, counts=-np.ones((2, BINS), np.int64)),
    "too few rows": lambda path: rewritten(path, exponent=np.zeros(1, np.int32)),
    "exponent out of range": lambda path: rewritten(path, exponent=np.array([0, 10_000])),
    "averages without batches": lambda path: rewritten(path, batches=None),
    "too few averages": lambda path: rewritten(path, average=np.zeros((1, 2))),
    "no means": lambda path: rewritten(path, means=None),
    "too few means": lambda path: rewritten(path, means=np.zeros(3, np.float32)),
    "means of NaN": lambda path: rewritten(path, means=np.full(4, np.nan, np.float32)),
    "sizes below zero": lambda path: with_sizes(path, {"a": -1, "b": 5}),
    "sizes of text": lambda path: with_sizes(path, {"a": "4"}),
    "sizes in a list": lambda path: with_sizes(path, [4]),
    "pickled": lambda path: rewritten(path, counts=np.array([{}, {}], object)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_and_nothing_else_is_raised(path, damage):
    DAMAGE[damage](path)
    with pytest.raises(CalibrationDataError, match=r"sim\.stats\.npz"):
        CalibrationStats.load(path)
