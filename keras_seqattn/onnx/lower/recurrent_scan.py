"""The steps of a recurrent layer as ONNX Scan, for cells that no recurrent node computes."""

import keras
from keras import ops

from keras_seqattn.onnx.lower.recurrent_states import flat_states
from keras_seqattn.onnx.lower.scan import scan


def by_scan(tracer, layer, cell, x, initial_state, mask, shape):
    """A step of a layer as the body of a Scan.

    Args:
        tracer: the Tracer.
        layer: says what is returned, in which direction it runs, and what masked steps give.
        cell: function(slice of x, states) -> (output, new states).
        x: Symbol (b, t, ...).
        initial_state: the states for the first step, which may be nested.
        mask: bool (b, t), or None.
        shape: of the output of a step, ints and scalar Symbols.

    Returns:
        (outputs (b, t, ...) or last output, last states as a flat list).
    """
    if not keras.tree.is_nested(initial_state):
        initial_state = [initial_state]
    states = flat_states(tracer, initial_state, layer.cell.compute_dtype)
    zeros = mask is not None and layer.zero_output_for_mask
    # A value that is repeated at masked steps, or returned at the end, is one of the states.
    carries = not layer.return_sequences or (mask is not None and not zeros)
    if carries:
        states.append(tracer.filled(shape, 0, layer.cell.compute_dtype))

    def step(states, slices):
        *states, previous = states if carries else (*states, None)
        output, new = cell(slices[0], keras.tree.pack_sequence_as(initial_state, states))
        new = keras.tree.flatten(new)
        if mask is not None:
            output = _where(slices[1], output, 0.0 if zeros else previous)
            new = [_where(slices[1], n, s) for n, s in zip(new, states, strict=True)]
        return [*new, output] if carries else new, [output] if layer.return_sequences else []

    xs = [x] if mask is None else [x, mask]
    states, outputs = scan(tracer, step, states, xs, axis=1, reverse_inputs=layer.go_backwards)
    last = states.pop() if carries else None
    return outputs[0] if layer.return_sequences else last, states


def _where(mask, x, other):
    """`x` in the rows where a mask (b,) is true, `other` in the other rows."""
    return ops.where(ops.reshape(mask, (-1, *[1] * (len(x.shape) - 1))), x, other)
