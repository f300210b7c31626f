"""Recurrent layers: ONNX LSTM, GRU and RNN nodes, or a Scan with the step of any other cell."""

import contextlib

import keras
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower import registry
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.joining import split_lengths
from keras_seqattn.onnx.lower.recurrent_node import node_form, run_node
from keras_seqattn.onnx.lower.recurrent_padding import PaddedSequences
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.scan import scan


@lowers(keras.layers.RNN, keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
def recurrent(tracer, layer, sequences, initial_state=None, mask=None, training=False):
    """A layer in one direction.

    At masked steps, the state does not change. The output is that of the step before, or zeros with
    `zero_output_for_mask`; before the first real step, outputs are zeros. TensorFlow and PyTorch do
    the same. JAX repeats the first state, which is the same unless a state was passed in.
    """
    _refuse(tracer, layer, training)
    x, mask = tracer.symbol(sequences), _boolean(tracer, mask)
    initial_state = _first_states(tracer, [layer], initial_state)
    if all(map(node_form, _cells(layer))):
        output, states = _by_nodes(tracer, [layer], x, initial_state, mask)
        if layer.return_sequences and layer.go_backwards:
            output = ops.flip(output, axis=1)
    else:
        output, states = _by_scan(tracer, layer, x, initial_state, mask)
    output, *states = [cast(tracer, y, layer.compute_dtype) for y in (output, *states)]
    _keep(tracer, [layer], states)
    if not layer.return_state:
        return output
    return output, *keras.tree.pack_sequence_as(layer.state_size, states)


@lowers(keras.layers.Bidirectional)
def bidirectional(tracer, layer, sequences, initial_state=None, mask=None, training=False):
    """Two layers. If their cells have the same form, they become one node."""
    layers = [layer.forward_layer, layer.backward_layer]
    mask = _boolean(tracer, mask)
    if _one_node(layers, mask):
        for each in layers:
            _refuse(tracer, each, training)
        initial_state = _first_states(tracer, layers, initial_state)
        output, states = _by_nodes(tracer, layers, tracer.symbol(sequences), initial_state, mask)
        output, *states = [cast(tracer, y, layer.compute_dtype) for y in (output, *states)]
        _keep(tracer, layers, states)
        if layer.merge_mode != "concat":
            widths = [each.units for each in layers]
            halves = split_lengths(tracer, output, widths, len(output.sizes) - 1)
            output = _merge(*halves, layer.merge_mode)
    else:
        halves, states = _two_layers(layers, sequences, initial_state, mask)
        output = _merge(*halves, layer.merge_mode)
    if not layer.return_state:
        return output
    return (*output, *states) if isinstance(output, tuple) else (output, *states)


@lowers(keras.layers.TimeDistributed)
def time_distributed(tracer, layer, inputs, training=False, mask=None):
    """A layer that is applied to every step, for all steps at once: (b, t, ...) as (b*t, ...)."""
    x = tracer.symbol(inputs)
    batch, length, *rest = ops.shape(x)
    given = {}
    if mask is not None and len(mask.shape) > 2:
        given["mask"] = ops.reshape(mask, (batch * length, *ops.shape(mask)[2:]))
    y = layer.layer(ops.reshape(x, (batch * length, *rest)), **given)
    return ops.reshape(y, (batch, length, *ops.shape(y)[1:]))


@lowers(keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)
def convolutional(tracer, layer, *args, **kwargs):
    raise ExportError(
        f"{tracer.where()}: {type(layer).__name__} has no ONNX lowering; write its step as a cell "
        "for keras.layers.RNN, of operations that have one"
    )


def _merge(forward, backward, mode):
    if mode == "concat":
        return ops.concatenate([forward, backward], axis=-1)
    if mode is None:
        return forward, backward
    merged = ops.multiply(forward, backward) if mode == "mul" else ops.add(forward, backward)
    return ops.divide(merged, 2) if mode == "ave" else merged


def _one_node(layers, mask):
    if any(registry.find(layer) is not recurrent or len(_cells(layer)) > 1 for layer in layers):
        return False
    first, second = (node_form(layer.cell) for layer in layers)
    masked = mask is not None and layers[0].return_sequences
    alike = first is not None and first == second and not layers[0].go_backwards
    return alike and not (masked and not all(layer.zero_output_for_mask for layer in layers))


def _two_layers(layers, sequences, states, mask):
    """([outputs forward, backward] in the order of time, states), with one node per layer."""
    halves, last = [], []
    for i, layer in enumerate(layers):
        given = {} if mask is None else {"mask": mask}
        if states is not None:
            half = len(states) // 2
            given["initial_state"] = states[half * i : half * (i + 1)]
        output = layer(sequences, **given)
        if layer.return_state:
            output, *new = output
            last += new
        flipped = layer.return_sequences and i == 1
        halves.append(ops.flip(output, axis=1) if flipped else output)
    return halves, last


def _refuse(tracer, layer, training):
    kind = type(layer).__name__
    dropped = any(getattr(c, n, 0) for c in _cells(layer) for n in ("dropout", "recurrent_dropout"))
    if training and dropped:
        raise ExportError(
            f"{tracer.where()}: {kind} was called with training=True, and a file has no dropout; "
            "call it without training=True"
        )


def _first_states(tracer, layers, given):
    """The given states. Without any, what stateful layers have kept, or None."""
    if given is not None or not all(layer.stateful for layer in layers):
        return given
    states = keras.tree.map_structure(tracer.states.read, [list(layer.states) for layer in layers])
    return states[0] if len(layers) == 1 else keras.tree.flatten(states)


def _keep(tracer, layers, states):
    """Stateful layers keep their last states."""
    variables = keras.tree.flatten([list(layer.states) for layer in layers if layer.stateful])
    for variable, state in zip(variables, states, strict=bool(variables)):
        tracer.states.replace(variable, cast(tracer, state, variable.dtype))


def _cells(layer):
    stacked = isinstance(layer.cell, keras.layers.StackedRNNCells)
    return layer.cell.cells if stacked else [layer.cell]


def _boolean(tracer, mask):
    """None, or the mask as bool (b, t). For several inputs, Keras passes a list."""
    mask = keras.tree.flatten(mask)[0]
    if mask is None:
        return None
    mask = tracer.symbol(mask)
    if len(mask.sizes) != 2:
        raise ExportError(f"{tracer.where()}: a mask of shape {mask.shape}; pass one of (b, t)")
    return tracer.once(("mask", mask.value), lambda: cast(tracer, mask, "bool"))


def _by_nodes(tracer, layers, x, initial_state, mask):
    """One node for each cell of a layer, or for a forward and a backward layer.

    Returns:
        (outputs (b, t, d*n) in the order of time, or the last ones (b, d*n); and last states).
    """
    layer, sequences = layers[0], PaddedSequences(tracer, mask)
    states = _flat(tracer, initial_state)
    x, last = sequences.to_node(x), []
    for cells in zip(*map(_cells, layers), strict=True):
        count = len(cells) * len(keras.tree.flatten(cells[0].state_size))
        first, states = states[:count], states[count:]
        x, new = run_node(tracer, cells, x, first, sequences.lengths(), layer.go_backwards)
        last += sequences.states(new, first)
    if layer.return_sequences:
        return sequences.from_node(x, layer.go_backwards, layer.zero_output_for_mask), last
    hidden = last[-count :: count // len(cells)]
    hidden = hidden[0] if len(hidden) == 1 else ops.concatenate(hidden, axis=-1)
    if mask is not None and (first or layer.zero_output_for_mask):
        end = mask[:, :1] if layer.go_backwards else mask[:, -1:]
        hidden = ops.where(end if layer.zero_output_for_mask else sequences.any(), hidden, 0.0)
    return hidden, last


def _flat(tracer, states, dtype="float32"):
    """The states of a layer as a flat list of Symbols; empty for None."""
    states = [] if states is None else keras.tree.flatten(states)
    return [cast(tracer, tracer.symbol(s, dtype), dtype) for s in states]


def _by_scan(tracer, layer, x, initial_state, mask):
    """The cell of a layer as the body of a Scan: (outputs or last output, last states)."""
    cell, batch = layer.cell, tracer.size(x, 0)
    if initial_state is None:
        initial_state = layer.get_initial_state(batch_size=batch)
    if not keras.tree.is_nested(initial_state):
        initial_state = [initial_state]
    states = _flat(tracer, initial_state, cell.compute_dtype)
    zeros = mask is not None and layer.zero_output_for_mask
    # A value that is repeated at masked steps, or returned at the end, is one of the states.
    carries = not layer.return_sequences or (mask is not None and not zeros)
    if carries:
        states.append(tracer.filled([batch, _width(cell)], 0, cell.compute_dtype))

    def step(states, slices):
        *states, previous = states if carries else (*states, None)
        output, new = cell(slices[0], keras.tree.pack_sequence_as(initial_state, states))
        new = keras.tree.flatten(new)
        if mask is not None:
            output = _where(slices[1], output, 0.0 if zeros else previous)
            new = [_where(slices[1], n, s) for n, s in zip(new, states, strict=True)]
        return [*new, output] if carries else new, [output] if layer.return_sequences else []

    xs = [x] if mask is None else [x, mask]
    with _inference(_cells(layer)):
        states, outputs = scan(tracer, step, states, xs, axis=1, reverse_inputs=layer.go_backwards)
    last = states.pop() if carries else None
    return outputs[0] if layer.return_sequences else last, states


def _width(cell):
    """The output size of a cell. If the cell does not say it, the size of its first state."""
    size = getattr(cell, "output_size", None)
    return keras.tree.flatten(cell.state_size)[0] if size is None else size


def _where(mask, x, other):
    """`x` in the rows where a mask (b,) is true, `other` in the other rows."""
    return ops.where(ops.reshape(mask, (-1, *[1] * (len(x.shape) - 1))), x, other)


@contextlib.contextmanager
def _inference(cells):
    """The cells without dropout: some make dropout masks even if they do not use them."""
    with contextlib.ExitStack() as stack:
        for cell in cells:
            for name in ("dropout", "recurrent_dropout"):
                if getattr(cell, name, 0):
                    stack.callback(setattr, cell, name, getattr(cell, name))
                    setattr(cell, name, 0.0)
        yield
