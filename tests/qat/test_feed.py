import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.errors import TrainingError
from keras_edgeq.qat.feed import batches_in, check_length, passes_over

X = np.arange(10.0, dtype=np.float32)


class Pairs(tf_keras.utils.Sequence):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return X[4 * index : 4 * index + 4], 2.0 * X[4 * index : 4 * index + 4]


def read(dataset):
    return [tf.nest.map_structure(lambda t: t.numpy().tolist(), batch) for batch in dataset]


def test_arrays_come_in_another_order_in_each_pass_and_in_the_same_in_each_process():
    passes, again = (passes_over((X, -X), 4, shuffle=True, seed=3) for _ in range(2))
    first, second = read(passes(0)), read(passes(1))
    assert first != second
    assert read(again(1)) == second
    assert read(passes(0)) == first
    rows = sorted(x for batch, _ in first for x in batch)
    assert rows == X.tolist()
    assert all(y == [-x for x in xs] for xs, y in first)


def test_arrays_of_several_inputs_stay_together():
    batch = read(passes_over(({"a": X, "b": [X, X]}, X), 10)(0))[0]
    assert batch[0]["b"][1] == batch[0]["a"] == batch[1]


@pytest.mark.parametrize(
    "data", [Pairs(), tf.data.Dataset.from_tensor_slices((X, 2.0 * X)).batch(4), (X, 2.0 * X)]
)
def test_every_form_gives_the_same_batches_again_and_again(data):
    for passes in (passes_over(data, 4), passes_over(lambda number: data, 4)):
        for number in range(2):
            dataset = passes(number)
            assert batches_in(dataset) == 3
            found = read(dataset)
            assert [len(x) for x, _ in found] == [4, 4, 2]
            assert [x for xs, _ in found for x in xs] == X.tolist()


def test_a_function_of_the_pass_is_asked_for_each():
    passes = passes_over(lambda number: X[: number + 1], 4)
    assert [len(batch) for number in (0, 1) for batch in read(passes(number))] == [1, 2]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (iter([X]), "read only once"),
        ("photos", "Cannot read training data from str"),
        ((X, X[:3]), "different lengths"),
    ],
)
def test_other_data_is_refused(data, said):
    with pytest.raises(TrainingError, match=said):
        passes_over(data, 4)


def test_empty_and_endless_data_are_refused():
    with pytest.raises(TrainingError, match="training data holds no samples"):
        check_length(passes_over(X[:0], 4), None, "training")
    endless = passes_over(tf.data.Dataset.from_tensors(X).repeat(), 4)
    with pytest.raises(TrainingError, match="give steps_per_epoch="):
        check_length(endless, None, "training")
    check_length(endless, 3, "training")
