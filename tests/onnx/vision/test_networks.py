"""Files of convolutional networks: right at every size, in one layout, and folded."""

import collections

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_seqattn.onnx import build_graph, export
from tests.onnx.apply import Apply
from tests.onnx.vision.many import ON_JAX, TARGETS, predicted, randomised, session_of
from tests.onnx.vision.networks import residual, u_net

FIRST = pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="no channels first on a CPU"
)


def kinds(graph):
    return collections.Counter(node.op_type for node in graph.graph)


def compare(model, graph, shapes, tolerance=1e-4):
    """Of float32 sums in another order, through some ten layers."""
    session, rng = session_of(graph), np.random.default_rng(5)
    (name,) = [i.name for i in session.get_inputs()]
    for shape in shapes[: 1 if ON_JAX else None]:
        x = rng.uniform(-2, 9, shape).astype("float32")
        expected = predicted(model, x)
        (actual,) = session.run(None, {name: x})
        assert actual.shape == expected.shape
        error = np.abs(actual - expected).max() / np.abs(expected).max()
        assert error < tolerance, f"{shape}: {error:.1e}"


@pytest.mark.parametrize("target", TARGETS)
def test_a_residual_network(target):
    model = randomised(residual())
    graph = build_graph(model, target)
    compare(model, graph, [(2, 37, 29, 3), (1, 8, 8, 3), (1, 5, 1, 3)])
    found = kinds(graph)
    assert found["Transpose"] == 1, "the layout of the input"
    # The scale and the offset of the pixels, and the product with the gate of each block.
    assert found["Mul"] - found["Sigmoid"] <= 3
    assert found["Conv"] == 10 and "Pad" not in found and "Reshape" not in found - found


@pytest.mark.backend_free
def test_batch_normalisation_is_in_the_weights():
    model = randomised(residual())
    found = kinds(build_graph(model, "ort"))
    assert not set(found) & {"BatchNormalization", "Sqrt", "Sub", "Div"}
    # Of two blocks; of the classifier, two; of the pixels.
    assert found["Add"] == 2 + 2 + 1


@FIRST
def test_a_network_with_the_channels_first():
    model = randomised(residual(data_format="channels_first"))
    graph = build_graph(model, "ort")
    compare(model, graph, [(2, 3, 37, 29), (1, 3, 8, 8)])
    assert "Transpose" not in kinds(graph)


def test_a_u_net():
    model = randomised(u_net())
    graph = build_graph(model, "ort")
    compare(model, graph, [(2, 12, 20, 3), (1, 4, 4, 3)])
    assert kinds(graph)["Transpose"] == 2, "the layouts of the input and the output"


@pytest.mark.backend_free
@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_other_precisions(precision, tmp_path):
    """Convolutions stay float, or become float16; the rest of the file is as it was."""
    model = randomised(residual())
    assert export(model, tmp_path / "model.onnx", precision=precision, lengths=[16]).ok


def through(function, shape=(5, 7, 6), lengths=(2, 5, 7, 6), last=True):
    """The kinds of a graph of a convolution, a function, and a convolution, which is compared."""
    x = keras.Input(shape, name="x")
    y = Apply(function, name="own")(layers.Conv2D(4, 1, name="before")(x))
    y = layers.Conv2D(2, 1, name="after")(y) if last else y
    model = randomised(keras.Model(x, y))
    graph = build_graph(model, "ort")
    compare(model, graph, [lengths, (1, *lengths[1:])])
    return kinds(graph)


ROW = ops.arange(1, 8, dtype="float32")
MOVED = {
    "activations": lambda x: ops.tanh(ops.relu6(x) + ops.softplus(x)),
    "scalar": lambda x: 2.0 * x - 0.5,
    "channels": lambda x: x * ROW[:4] / (ROW[:4] + 1),
    "rows": lambda x: x + ROW[:, None],
    "picture": lambda x: x + ops.reshape(ops.arange(35, dtype="float32"), (1, 5, 7, 1)),
    "concatenation": lambda x: ops.concatenate([x, x * 2, ops.abs(x)], axis=2),
    "channel concatenation": lambda x: ops.concatenate([x, -x], axis=-1),
    "split": lambda x: ops.add(*ops.split(x, 2, axis=-1)),
    "padding": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)), constant_values=1.5),
    "reflection": lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)), mode="reflect"),
    "slice": lambda x: x[:, 1:, ::2, :3],
    "maximum kept": lambda x: x - ops.max(x, axis=(1, 2), keepdims=True),
    "channel mean": lambda x: x * ops.mean(x, axis=-1, keepdims=True),
    "where": lambda x: ops.where(x > 0.1, x, ops.zeros_like(x)),
    "sizes": lambda x: x * ops.cast(ops.shape(x)[2], "float32"),
    "tile": lambda x: ops.tile(x, (1, 2, 1, 3)),
    "flip": lambda x: ops.flip(x, axis=1),
    "take": lambda x: ops.take(x, [2, 0, 1], axis=1),
    "pooling": lambda x: ops.max_pool(ops.average_pool(x, 2, 1), (1, 2), 1, padding="same"),
    "permutations": lambda x: ops.transpose(ops.transpose(x, (0, 3, 1, 2)) * 2, (0, 2, 3, 1)),
}


@pytest.mark.backend_free
@pytest.mark.parametrize("name", MOVED)
def test_the_layout_goes_through(name):
    found = through(MOVED[name])
    assert found["Transpose"] == 2, "the layouts of the input and the output"


STOPPED = {
    "softmax": lambda x: ops.softmax(x, axis=-1),
    "reshape": lambda x: ops.reshape(ops.reshape(x, (-1, 35, 4)), (-1, 5, 7, 4)),
    "product": lambda x: ops.matmul(x, ops.ones((4, 4))),
    "other permutation": lambda x: ops.transpose(x, (0, 2, 1, 3)),
    "sum of two": lambda x: x + ops.softmax(x, axis=-1),
}


@pytest.mark.backend_free
@pytest.mark.parametrize("name", STOPPED)
def test_the_layout_is_changed_where_it_has_to_be(name):
    found = through(STOPPED[name])
    assert 2 <= found["Transpose"] <= 4


REDUCED = {
    "mean": lambda x: ops.mean(x, axis=(1, 2)),
    "maximum of channels": lambda x: ops.max(x, axis=-1),
    "all": lambda x: ops.sum(x, axis=(1, 2, 3)),
    "argmax": lambda x: ops.cast(ops.argmax(x, axis=-1), "float32"),
    "squeezed": lambda x: ops.squeeze(ops.mean(x, axis=(1, 2), keepdims=True), (1, 2)),
    "flattened": lambda x: ops.reshape(ops.mean(x, axis=(1, 2), keepdims=True), (-1, 4)),
}


@pytest.mark.backend_free
@pytest.mark.parametrize("name", REDUCED)
def test_reductions_end_the_layout(name):
    assert through(REDUCED[name], last=False)["Transpose"] == 1, "the layout of the input"


@pytest.mark.backend_free
def test_a_mean_that_leaves_two_axes_keeps_their_order():
    found = through(lambda x: ops.mean(x, axis=1), last=False)
    assert found["Transpose"] <= 2


FOLDED = {
    "bias": lambda x: x + ROW[:4],
    "scale and shift": lambda x: (x * ROW[:4] - 0.5) / ROW[1:5] + ROW[:4],
    "from the left": lambda x: ROW[:4] * x,
}


@pytest.mark.backend_free
@pytest.mark.parametrize("name", FOLDED)
def test_constants_per_channel_are_folded(name):
    found = through(FOLDED[name])
    assert not set(found) & {"Add", "Sub", "Mul", "Div"}


KEPT = {
    "minus": lambda x: ROW[:4] - x,
    "rows": lambda x: x * ROW[:, None],
    "read twice": lambda x: x + ops.square(x * 2.0),
    "wider": lambda x: ops.sum(x, axis=-1, keepdims=True) * ROW[:4],
}


@pytest.mark.backend_free
@pytest.mark.parametrize("name", KEPT)
def test_what_is_not_one_constant_per_channel_stays(name):
    found = through(KEPT[name])
    assert set(found) & {"Add", "Sub", "Mul"}


@pytest.mark.backend_free
def test_one_filter_is_not_widened():
    x = keras.Input((5, 7, 6), name="x")
    y = Apply(lambda y: y * ROW[:4])(layers.Conv2D(1, 2)(x))
    model = randomised(keras.Model(x, y))
    compare(model, build_graph(model), [(2, 5, 7, 6)])


@pytest.mark.backend_free
def test_a_convolution_that_is_called_twice():
    """The weights that two batch normalisations make of one kernel are two."""
    x = keras.Input((None, 4), name="x")
    shared = layers.Conv1D(4, 3, padding="same")
    y = layers.BatchNormalization()(shared(x))
    z = layers.BatchNormalization()(shared(y))
    model = randomised(keras.Model(x, layers.Add()([shared(z), y])))
    compare(model, build_graph(model), [(2, 5, 4), (1, 1, 4)])


@pytest.mark.backend_free
def test_a_padding_joins_a_pooling_only_after_a_relu():
    def pooled(before):
        x = keras.Input((5, 7, 4), name="x")
        y = layers.ZeroPadding2D(1)(layers.Activation(before)(layers.Conv2D(4, 1)(x)))
        model = randomised(keras.Model(x, layers.MaxPooling2D(3, strides=2)(y)))
        graph = build_graph(model)
        compare(model, graph, [(2, 5, 7, 4)])
        return kinds(graph)["Pad"]

    assert pooled("relu") == 0 and pooled("tanh") == 1
