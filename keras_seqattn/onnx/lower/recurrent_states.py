"""The cells, masks and states of recurrent layers, whatever computes their steps."""

import keras
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast


def refuse_dropout(tracer, layer, training):
    """Raises:
    ExportError: the layer was called so that it drops values.
    """
    kind = type(layer).__name__
    dropped = any(
        getattr(c, n, 0) for c in cells_of(layer) for n in ("dropout", "recurrent_dropout")
    )
    if training and dropped:
        raise ExportError(
            f"{tracer.where()}: {kind} was called with training=True, and a file has no dropout; "
            "call it without training=True"
        )


def first_states(tracer, layers, given):
    """The given states. Without any, what stateful layers have kept, or None."""
    if given is not None or not all(layer.stateful for layer in layers):
        return given
    states = keras.tree.map_structure(tracer.states.read, [list(layer.states) for layer in layers])
    return states[0] if len(layers) == 1 else keras.tree.flatten(states)


def keep_states(tracer, layers, states):
    """Stateful layers keep their last states."""
    variables = keras.tree.flatten([list(layer.states) for layer in layers if layer.stateful])
    for variable, state in zip(variables, states, strict=bool(variables)):
        tracer.states.replace(variable, cast(tracer, state, variable.dtype))


def cells_of(layer):
    """list of the cells of a layer, those of a stack one by one."""
    stacked = isinstance(layer.cell, keras.layers.StackedRNNCells)
    return layer.cell.cells if stacked else [layer.cell]


def boolean_mask(tracer, mask):
    """None, or the mask as bool (b, t). For several inputs, Keras passes a list."""
    mask = keras.tree.flatten(mask)[0]
    if mask is None:
        return None
    mask = tracer.symbol(mask)
    if len(mask.sizes) == 3 and mask.sizes[2] == 1:
        mask = ops.squeeze(mask, 2)
    if len(mask.sizes) != 2:
        raise ExportError(f"{tracer.where()}: a mask of shape {mask.shape}; pass one of (b, t)")
    return tracer.once(("mask", mask.value), lambda: cast(tracer, mask, "bool"))


def flat_states(tracer, states, dtype="float32"):
    """The states of a layer as a flat list of Symbols; empty for None."""
    states = [] if states is None else keras.tree.flatten(states)
    return [cast(tracer, tracer.symbol(s, dtype), dtype) for s in states]
