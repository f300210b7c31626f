"""Cells, models and rows padded in every way, for the tests of recurrent layers."""

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime
from keras import layers, ops

from keras_seqattn.onnx import build_graph
from keras_seqattn.ops import attention
from tests.helpers import randomise

WIDTH, UNITS = 5, 7
NODES = ("LSTM", "GRU", "RNN", "Scan")


class Recurrent(layers.Layer):
    """h' = tanh(x W + h R): one state, which is the output."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], self.units))
        self.recurrent = self.add_weight(name="recurrent", shape=(self.units, self.units))

    def call(self, inputs, states):
        h = ops.tanh(ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent))
        return h, [h]


class Counting(Recurrent):
    """Two states, the second a running mean of the steps, and an output of another width."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.state_size, self.output_size = [units, 2], 3

    def call(self, inputs, states):
        h, _ = super().call(inputs, states[:1])
        # A size that is first asked for inside the loop.
        count = states[1] + ops.ones((ops.shape(inputs)[0], 1)) / self.units
        return ops.concatenate([h[:, :2] * count[:, :1], count[:, 1:]], axis=-1), [h, count]


def model(layer, masked=False, states=(), length=None):
    """`layer` between inputs x, mask and state_0, state_1, ... of the given sizes."""
    x = keras.Input((length, WIDTH), name="x")
    inputs, arguments = {"x": x}, {}
    if masked:
        inputs["mask"] = arguments["mask"] = keras.Input((length,), dtype="bool", name="mask")
    if states:
        given = [keras.Input((n,), name=f"state_{i}") for i, n in enumerate(states)]
        inputs.update((tensor.name, tensor) for tensor in given)
        arguments["initial_state"] = given
    return randomise(keras.Model(inputs, layer(x, **arguments)), seed=6)


def attentive_model():
    """A loop over a target that attends to a source; sizes are used in, between and after loops."""
    source = keras.Input((None, WIDTH), name="source")
    target = keras.Input((None, WIDTH), name="target")
    encoded = layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True, name="lstm"), name="b")
    loop = layers.RNN(Counting(UNITS, name="cell"), return_sequences=True, name="loop")
    x = loop(Attend(name="attend")(target, encoded(source)))
    return randomise(keras.Model({"source": source, "target": target}, x), seed=6)


class Attend(layers.Layer):
    """h' = tanh(x + attention of h to a memory), by ops.scan, and attention of the last h.

    The length of the memory and the mask as the attention wants it are first asked for in the loop.
    """

    def call(self, x, memory):
        steps = ops.transpose(ops.tile(x, (1, 1, 3))[:, :, : memory.shape[2]], (1, 0, 2))
        mask = memory[:, :, 0] > -0.1
        keys = ops.expand_dims(memory, 2)

        def attend(h):
            found = attention(h[:, None, None], keys, keys, mask=mask)[:, 0, 0]
            return found / ops.cast(ops.shape(memory)[1], "float32")

        def step(h, x_t):
            h = ops.tanh(x_t + attend(h))
            return h, h

        last, states = ops.scan(step, ops.zeros_like(steps[0]), steps)
        return ops.transpose(states, (1, 0, 2)) + ops.expand_dims(attend(last), 1)

    def compute_output_shape(self, x_shape, memory_shape):
        return (*x_shape[:2], memory_shape[2])


def masks(length):
    """bool (5, t): nothing padded, then padding left, right, in between, everywhere."""
    steps = np.arange(length)
    rows = [steps >= 0, steps >= length // 3 + 1, steps < length // 2, steps % 3 != 1, steps < 0]
    return np.stack(rows)


def begun(mask):
    """The same masks, whose first and last steps are real: every row has a state of its own."""
    mask = mask.copy()
    mask[:, [0, -1]] = True
    return mask


def feed(model, length, change):
    """Inputs of a length for five rows; a source is longer than its target."""
    random, mask = np.random.default_rng(8), change(masks(length))
    arrays = {}
    for name, tensor in model.input.items():
        steps = length + 2 * (name == "source")
        shape = [len(mask), *(steps if n is None else n for n in tensor.shape[1:])]
        arrays[name] = random.normal(size=shape).astype("float32")
        if tensor.dtype == "bool":
            arrays[name] = mask
        elif tensor.dtype == "int32":
            arrays[name] = (random.integers(1, 11, shape) * mask).astype(tensor.dtype)
    return arrays


def session(graph):
    return onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())


def check(model, change=lambda mask: mask, lengths=(29,), target="ort"):
    """Compare the file with Keras, all rows together and the last two by themselves.

    Args:
        model: its inputs are a dict.
        change: of the masks.
        lengths: of the sequences.
        target: of the export.

    Returns:
        The graph.
    """
    graph = build_graph(model, target)
    run = session(graph)
    for length in lengths:
        arrays = feed(model, length, change)
        expected = keras.tree.flatten(model(arrays, training=False))
        for rows in (slice(None), slice(3, 4), slice(4, 5)):
            actual = run.run(None, {name: array[rows] for name, array in arrays.items()})
            for e, a in zip(expected, actual, strict=True):
                # float32 rounding in another order over up to 29 steps, and onnxruntime's own
                # tanh and sigmoid.
                np.testing.assert_allclose(a, ops.convert_to_numpy(e)[rows], rtol=1e-5, atol=1e-5)
    return graph


def loops(graph):
    """The recurrent operators of a graph, in order."""
    return [n.op_type for n in graph.graph if n.op_type in NODES]
