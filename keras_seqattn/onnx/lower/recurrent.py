"""Recurrent layers: ONNX LSTM, GRU and RNN nodes, or a Scan with the step of any other cell."""

import contextlib

import keras
from keras import ops

from keras_seqattn.onnx.lower import registry
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.joining import split_lengths
from keras_seqattn.onnx.lower.recurrent_node import node_form, run_node
from keras_seqattn.onnx.lower.recurrent_padding import PaddedSequences
from keras_seqattn.onnx.lower.recurrent_scan import by_scan
from keras_seqattn.onnx.lower.recurrent_states import (
    boolean_mask,
    cells_of,
    first_states,
    flat_states,
    keep_states,
    refuse_dropout,
)
from keras_seqattn.onnx.lower.registry import lowers


@lowers(keras.layers.RNN, keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
def recurrent(tracer, layer, sequences, initial_state=None, mask=None, training=False):
    """A layer in one direction.

    At masked steps, the state does not change. The output is that of the step before, or zeros with
    `zero_output_for_mask`; before the first real step, outputs are zeros. TensorFlow and PyTorch do
    the same. JAX repeats the first state, which is the same unless a state was passed in.
    """
    refuse_dropout(tracer, layer, training)
    x, mask = tracer.symbol(sequences), boolean_mask(tracer, mask)
    initial_state = first_states(tracer, [layer], initial_state)
    if all(map(node_form, cells_of(layer))):
        output, states = _by_nodes(tracer, [layer], x, initial_state, mask)
        if layer.return_sequences and layer.go_backwards:
            output = ops.flip(output, axis=1)
    else:
        if initial_state is None:
            initial_state = layer.get_initial_state(batch_size=tracer.size(x, 0))
        cell, width = layer.cell, [tracer.size(x, 0), _width(layer.cell)]
        with _inference(cells_of(layer)):
            output, states = by_scan(tracer, layer, cell, x, initial_state, mask, width)
    output, *states = [cast(tracer, y, layer.compute_dtype) for y in (output, *states)]
    keep_states(tracer, [layer], states)
    if not layer.return_state:
        return output
    return output, *keras.tree.pack_sequence_as(layer.state_size, states)


@lowers(keras.layers.Bidirectional)
def bidirectional(tracer, layer, sequences, initial_state=None, mask=None, training=False):
    """Two layers. If their cells have the same form, they become one node."""
    layers = [layer.forward_layer, layer.backward_layer]
    mask = boolean_mask(tracer, mask)
    if _one_node(layers, mask):
        for each in layers:
            refuse_dropout(tracer, each, training)
        initial_state = first_states(tracer, layers, initial_state)
        output, states = _by_nodes(tracer, layers, tracer.symbol(sequences), initial_state, mask)
        output, *states = [cast(tracer, y, layer.compute_dtype) for y in (output, *states)]
        keep_states(tracer, layers, states)
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


def _merge(forward, backward, mode):
    if mode == "concat":
        return ops.concatenate([forward, backward], axis=-1)
    if mode is None:
        return forward, backward
    merged = ops.multiply(forward, backward) if mode == "mul" else ops.add(forward, backward)
    return ops.divide(merged, 2) if mode == "ave" else merged


def _one_node(layers, mask):
    if any(registry.find(layer) is not recurrent or len(cells_of(layer)) > 1 for layer in layers):
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


def _by_nodes(tracer, layers, x, initial_state, mask):
    """One node for each cell of a layer, or for a forward and a backward layer.

    Returns:
        (outputs (b, t, d*n) in the order of time, or the last ones (b, d*n); and last states).
    """
    layer, sequences = layers[0], PaddedSequences(tracer, mask)
    states = flat_states(tracer, initial_state)
    x, last = sequences.to_node(x), []
    for cells in zip(*map(cells_of, layers), strict=True):
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


def _width(cell):
    """The output size of a cell. If the cell does not say it, the size of its first state."""
    size = getattr(cell, "output_size", None)
    return keras.tree.flatten(cell.state_size)[0] if size is None else size


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
