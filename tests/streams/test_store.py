"""Tensors past the limit lie in files, and no file is left behind."""

import numpy as np
import pytest
import tensorflow as tf

import keras_edgeq as eq
from keras_edgeq.errors import EdgeqError
from keras_edgeq.streams.store import StoredBatches, TensorStore
from tests.models import inputs_for, make

KILO = np.arange(256, dtype=np.float32)  # 1024 bytes


def test_what_does_not_fit_into_memory_lies_in_files_until_it_is_dropped(tmp_path):
    with TensorStore(2_500, tmp_path) as store:
        numbers = [store.put(tf.constant(i + KILO)) for i in range(4)]
        (folder,) = tmp_path.iterdir()
        assert len(list(folder.iterdir())) == 2
        assert store.used_bytes == store.peak_bytes == 2_048
        for i, number in enumerate(numbers):
            np.testing.assert_array_equal(store.get(number), i + KILO)
        store.drop(numbers[3])
        assert len(list(folder.iterdir())) == 1
        store.drop(numbers[0])
        assert store.used_bytes == 1_024
        again = store.put(tf.constant(KILO))
        assert len(list(folder.iterdir())) == 1
        assert len({*numbers, again}) == 5
        assert store.peak_bytes == 2_048
    assert list(tmp_path.iterdir()) == []
    assert store.used_bytes == 0


def test_nothing_is_made_on_disk_while_memory_suffices(tmp_path):
    with TensorStore(4_096, tmp_path) as store:
        for _ in range(4):
            store.put(tf.constant(KILO))
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [tf.float32, tf.int32, tf.int64, tf.bool, tf.float16])
def test_types_and_shapes_survive_the_disk(tmp_path, dtype):
    with TensorStore(0, tmp_path) as store:
        for shape in ((), (3, 0, 2), (2, 3)):
            tensor = tf.cast(tf.ones(shape), dtype)
            back = store.get(store.put(tensor))
            assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
            np.testing.assert_array_equal(back, tensor)


def test_batches_can_be_read_again_and_again(tmp_path):
    source = ([np.full((n, 2), n, np.float32), np.full(n, n)] for n in (3, 3, 1))
    with TensorStore(40, tmp_path) as store:
        kept = StoredBatches(source, store)
        assert len(kept) == 3
        for _ in range(2):
            assert [len(batch[0]) for batch in kept] == [3, 3, 1]
        assert [int(batch[1][0]) for batch in kept] == [3, 3, 1]


def test_an_error_leaves_no_files(tmp_path):
    def interrupted():
        with TensorStore(0, tmp_path) as store:
            store.put(tf.constant(KILO))
            assert list(tmp_path.iterdir())
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("technique", [eq.gptq, eq.correct_bias])
def test_a_full_disk_is_one_error_and_leaves_no_files(dense, tmp_path, monkeypatch, technique):
    sim, x = dense

    def full(path, array):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save", full)
    with pytest.raises(EdgeqError, match=r"No space left.*cache_folder="):
        technique(sim, x, memory_bytes=0, cache_folder=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_the_same_error(dense, tmp_path):
    sim, x = dense
    with pytest.raises(EdgeqError, match="cache_folder="):
        eq.gptq(sim, x, memory_bytes=0, cache_folder=tmp_path / "gone", progress=False)


def test_a_walk_through_files_gives_what_a_walk_in_memory_gives(dense, tmp_path):
    sim, x = dense
    disk = eq.gptq(sim, x, batch_size=7, memory_bytes=500, cache_folder=tmp_path, progress=False)
    memory = eq.gptq(sim, x, batch_size=7, progress=False)
    for a, b in zip(disk.get_weights(), memory.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def dense():
    model = make("forward_dense")
    x = inputs_for(model)
    return eq.quantize(model, x, progress=False), x
