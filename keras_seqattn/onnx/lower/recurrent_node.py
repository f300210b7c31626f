"""One ONNX LSTM, GRU or RNN node: the cells that it can compute, its weights and its inputs."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.shaping import reshape, transpose
from keras_seqattn.onnx.symbol import DTYPES, Symbol, joined_name, lazy_initializer


@dataclasses.dataclass(frozen=True)
class _Kind:
    """The ONNX operator of a class of cells. `gates` are those of Keras, in the order of ONNX."""

    op_type: str
    gates: tuple
    activations: tuple
    states: int = 1


_KINDS = {
    keras.layers.LSTMCell: _Kind(
        "LSTM", (0, 3, 1, 2), ("recurrent_activation", "activation", "activation"), 2
    ),
    keras.layers.GRUCell: _Kind("GRU", (0, 1, 2), ("recurrent_activation", "activation")),
    keras.layers.SimpleRNNCell: _Kind("RNN", (0,), ("activation",)),
}
# Name, and alpha and beta if the function has them. The hard sigmoid of Keras is relu6(x + 3) / 6.
_ACTIVATIONS = {
    keras.activations.tanh: ("Tanh", None),
    keras.activations.sigmoid: ("Sigmoid", None),
    keras.activations.relu: ("Relu", None),
    keras.activations.hard_sigmoid: ("HardSigmoid", (1 / 6, 0.5)),
    keras.activations.linear: ("Affine", (1.0, 0.0)),
}


def node_form(cell):
    """The operator and the settings of the node that computes `cell`, or None if there is none.

    Two cells with equal forms can be the two directions of one node.
    """
    kind = _kind(cell)
    if kind is None:
        return None
    if any(getattr(cell, name) not in _ACTIVATIONS for name in kind.activations):
        return None
    form = {"hidden_size": cell.units}
    if kind.op_type == "GRU":
        form["linear_before_reset"] = int(cell.reset_after)
    return kind.op_type, form


def _kind(cell):
    for parent in type(cell).__mro__:
        if parent in _KINDS or "call" in vars(parent):
            return _KINDS.get(parent)
    return None


def run_node(tracer, cells, x, states, lengths=None, backwards=False):
    """Emit the node of one cell, or of a forward and a backward cell with equal forms.

    Args:
        tracer: the Tracer.
        cells: one or two built cells.
        x: Symbol, float (t, b, m).
        states: the first states (b, n), those of the forward cell first. Without states, zeros.
        lengths: int32 (b,), also int32 in the file: the number of steps of each row.
        backwards: run one cell from the last step to the first.

    Returns:
        (outputs float (t, b, d*n) for d cells, last states in the form of `states`).
    """
    kind, (op_type, form) = _kind(cells[0]), node_form(cells[0])
    direction = "bidirectional" if len(cells) == 2 else "reverse" if backwards else "forward"
    attributes = {**form, "direction": direction, **_activations(cells)}
    d, (t, b, _), n = len(cells), x.sizes, cells[0].units
    first = [None] * kind.states
    if states:
        first = [_first(tracer, states[i :: kind.states]) for i in range(kind.states)]
    outputs = [((t, d, b, n), "float32")] + [((d, b, n), "float32")] * kind.states
    inputs = [cast(tracer, x, "float32"), *_weights(tracer, kind, cells), lengths, *first]
    y, *last = tracer.emit(op_type, inputs, attributes, outputs=outputs)
    if d == 2:
        y = transpose(tracer, y, (0, 2, 1, 3))
    return reshape(tracer, y, (t, b, d * n)), [_at(tracer, s, i) for i in range(d) for s in last]


def _first(tracer, states):
    """(b, n) of each direction -> (d, b, n)."""
    return cast(tracer, ops.stack(states, axis=0), "float32")


def _at(tracer, state, direction):
    """(d, b, n) -> (b, n)."""
    return ops.squeeze(state, 0) if state.sizes[0] == 1 else state[direction]


def _activations(cells):
    functions = [
        _ACTIVATIONS[getattr(cell, name)] for cell in cells for name in _kind(cell).activations
    ]
    # Each list holds values only for functions that have such a value.
    given = [values for _, values in functions if values is not None]
    return {
        "activations": [name for name, _ in functions],
        "activation_alpha": [alpha for alpha, _ in given] or None,
        "activation_beta": [beta for _, beta in given] or None,
    }


def _weights(tracer, kind, cells):
    """W (d, g*n, m), R (d, g*n, n) and B (d, 2*g*n) or None, made when they are written."""

    def weight(attribute, letter, read):
        variables = [getattr(cell, attribute) for cell in cells]
        key = (letter, *(id(v) for v in variables))
        name = joined_name([v.path for v in variables]) + f"/{letter}"
        return tracer.once(key, lambda: _initializer(tracer, name, cells, read))

    W = weight("kernel", "W", lambda cell: _gates_first(kind, cell.kernel).T)
    R = weight("recurrent_kernel", "R", lambda cell: _gates_first(kind, cell.recurrent_kernel).T)
    if not any(cell.use_bias for cell in cells):
        return W, R, None
    return W, R, weight("bias", "B", lambda cell: _both_biases(kind, cell))


def _initializer(tracer, name, cells, read):
    shape = (len(cells), *read(cells[0]).shape)
    value = lazy_initializer(
        tracer.unique_name(name), shape, DTYPES["float32"], lambda: np.stack(list(map(read, cells)))
    )
    tracer.graph.register_initializer(value)
    return Symbol(value, shape, "float32")


def _gates_first(kind, variable):
    """A variable (..., g*n) with the gates in the order of ONNX."""
    gates = np.split(keras.ops.convert_to_numpy(variable.value), len(kind.gates), axis=-1)
    return np.concatenate([gates[i] for i in kind.gates], axis=-1)


def _both_biases(kind, cell):
    """The bias of the input, then the bias of the recurrence."""
    width = len(kind.gates) * cell.units
    both = np.zeros((2, width), np.float32)
    if cell.use_bias:
        bias = _gates_first(kind, cell.bias)
        both[: np.size(bias) // width] = bias
    return both.reshape(-1)
