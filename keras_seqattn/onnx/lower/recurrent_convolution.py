"""Convolutional recurrent layers: one convolution of the inputs of all steps, and a Scan."""

import keras
from keras import ops

from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.recurrent_scan import by_scan
from keras_seqattn.onnx.lower.recurrent_states import (
    boolean_mask,
    first_states,
    keep_states,
    refuse_dropout,
)
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape, transpose


@lowers(keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)
def conv_lstm(tracer, layer, sequences, initial_state=None, mask=None, training=False):
    """A layer over (b, t, ..., c). In the loop, the channels come first, as convolutions want it.

    The four gates are one convolution of the input and one of the state.
    """
    refuse_dropout(tracer, layer, training)
    x, mask = tracer.symbol(sequences), boolean_mask(tracer, mask)
    cell, last = layer.cell, layer.cell.data_format == "channels_last"
    gates = _of_inputs(tracer, cell, _channels(tracer, x, 2, -1, 2) if last else x)
    shape = [tracer.size(gates, 0), cell.filters, *(tracer.size(gates, i) for i in _space(gates))]
    states = first_states(tracer, [layer], initial_state)
    if states is None:
        states = [tracer.filled(shape, 0, cell.compute_dtype) for _ in range(2)]
    elif last:
        states = [_channels(tracer, tracer.symbol(s), 1, -1, 1) for s in states]

    def step(z, states):
        return _step(cell, z, *states)

    output, states = by_scan(tracer, layer, step, gates, states, mask, shape)
    if last:
        lead = 2 if layer.return_sequences else 1
        output = _channels(tracer, output, lead, lead, -1)
        states = [_channels(tracer, s, 1, 1, -1) for s in states]
    output, *states = [cast(tracer, y, layer.compute_dtype) for y in (output, *states)]
    keep_states(tracer, [layer], states)
    return (output, *states) if layer.return_state else output


def _space(gates):
    return range(3, len(gates.sizes))


def _channels(tracer, x, lead, source, target):
    """`x` with its axis `source` at `target`. The first `lead` axes stay."""
    axes = list(range(len(x.sizes)))
    channel = axes.pop(source)
    axes.insert(target % (len(axes) + 1), channel)
    return transpose(tracer, x, axes)


def _of_inputs(tracer, cell, x):
    """(b, t, c, ...) -> (b, t, 4f, ...), what the inputs give to the gates of all steps."""
    b, t, *rest = x.sizes
    flat = reshape(tracer, x, (b * t, *rest))
    y = ops.conv(
        flat,
        cell.kernel,
        strides=cell.strides,
        padding=cell.padding,
        data_format="channels_first",
        dilation_rate=cell.dilation_rate,
    )
    if cell.use_bias:
        y = ops.add(y, ops.reshape(cell.bias, (1, -1, *[1] * cell.rank)))
    return reshape(tracer, y, (b, t, *y.sizes[1:]))


def _step(cell, z, h, c):
    """(h, [h, c]) after one step. The gates of Keras: input, forget, candidate, output."""
    z = ops.add(z, ops.conv(h, cell.recurrent_kernel, padding="same", data_format="channels_first"))
    i, f, candidate, o = ops.split(z, 4, axis=1)
    i, f, o = (cell.recurrent_activation(gate) for gate in (i, f, o))
    c = ops.add(ops.multiply(f, c), ops.multiply(i, cell.activation(candidate)))
    h = ops.multiply(o, cell.activation(c))
    return h, [h, c]
