import numpy as np
import pytest
import tensorflow as tf

from keras_edgeq.callbacks import EncodingLogger, encoding_logger
from keras_edgeq.errors import EdgeqError
from tests.callbacks.training import drive, encodings, fresh


def read(folder):
    """Every value of the event files: tag -> step -> number, or edges of a histogram."""
    found = {}
    for path in sorted(folder.iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                number = tf.make_ndarray(value.tensor)
                found.setdefault(value.tag, {})[event.step] = number
    return found


def test_every_grid_is_written_as_it_is(learning, tmp_path):
    own = fresh(learning)
    drive(own, [EncodingLogger(tmp_path / "logs", every=2)])
    found, grids = read(tmp_path / "logs"), encodings(own)
    assert {tag.rsplit("/", 1)[0] for tag in found} == set(grids)
    for name, (bits, scale, zero_point) in grids.items():
        scale = np.float32(scale)
        wanted = {
            "scale_min": scale.min(), "scale_mean": scale.mean(), "scale_max": scale.max(),
            "zero_point_min": np.min(zero_point), "zero_point_max": np.max(zero_point),
            "bits": bits,
        }  # fmt: skip
        for key, value in wanted.items():
            assert list(found[f"{name}/{key}"]) == [0, 2, 3]
            assert found[f"{name}/{key}"][3] == np.float32(value)
        assert (f"{name}/scales" in found) == (scale.size > 1)
    edges = found["conv/kernel/scales"][3]
    assert edges[:, 2].sum() == 4


def test_without_tensorboard_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(encoding_logger, "find_spec", lambda name: None)
    with pytest.raises(EdgeqError, match=r"pip install 'keras_edgeq\[tensorboard\]'"):
        EncodingLogger(tmp_path)


def test_every_is_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        EncodingLogger(tmp_path, every=0)
