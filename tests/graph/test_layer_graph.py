import pytest
import tensorflow as tf
import tf_keras

from keras_edgeq.graph.layer_graph import LayerGraph
from keras_edgeq.spec import TensorRef
from tests.models import Input, make

L = tf_keras.layers


@pytest.fixture(scope="module")
def diamond():
    """One tensor read twice by one layer and once by another; it is no output."""
    x = Input((4,), name="x")
    y = L.Dense(4, name="y")(x)
    square = L.Multiply(name="square")([y, y])
    return tf_keras.Model(x, L.Add(name="sum")([square, L.ReLU(name="relu")(y)]))


def test_a_reader_is_listed_once_even_if_it_reads_twice(diamond):
    graph = LayerGraph.of(diamond)
    assert [n.layer.name for n in graph.consumers(TensorRef("y"))] == ["square", "relu"]
    square = graph.producer(TensorRef("square"))
    assert square.inputs == (TensorRef("y"), TensorRef("y"))


def test_the_only_consumer_is_none_for_several_readers_and_for_outputs(diamond):
    graph = LayerGraph.of(diamond)
    assert graph.only_consumer(TensorRef("y")) is None
    assert graph.only_consumer(TensorRef("sum")) is None
    assert graph.only_consumer(TensorRef("square")).layer.name == "sum"


def test_a_tensor_that_is_read_and_an_output_has_no_only_consumer():
    x = Input((4,), name="x")
    y = L.Dense(4, name="y")(x)
    graph = LayerGraph.of(tf_keras.Model(x, [y, L.ReLU(name="z")(y)]))
    assert graph.only_consumer(TensorRef("y")) is None
    assert [n.layer.name for n in graph.consumers(TensorRef("y"))] == ["z"]


def test_outputs_are_named_in_the_order_of_the_model():
    assert LayerGraph.of(make("several_outputs")).outputs == (
        TensorRef("boxes"),
        TensorRef("score"),
    )


def test_a_shared_layer_has_a_node_for_each_call():
    model = make("shared_layer")
    graph = LayerGraph.of(model)
    nodes = graph.calls_of(model.get_layer("conv"))
    assert [n.outputs for n in nodes] == [(TensorRef("conv"),), (TensorRef("conv", call=1),)]
    assert [n.inputs for n in nodes] == [(TensorRef("a"),), (TensorRef("b"),)]


def test_shapes_and_number_types_are_known():
    x = Input((None, 4), dtype="int32", name="x")
    graph = LayerGraph.of(tf_keras.Model(x, tf.one_hot(x, 3)))
    first, second = graph.nodes
    assert first.shapes == ((None, None, 4),)
    assert not first.is_float
    assert second.is_float


def test_a_symbolic_tensor_leads_to_its_name(diamond):
    graph = LayerGraph.of(diamond)
    assert graph.name_of(diamond.get_layer("relu").output) == TensorRef("relu")
