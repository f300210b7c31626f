"""Layers around models of keras-hub, whose buffers of keys and values become pasts that grow.

keras-hub generates with one buffer of a fixed length for all keys and values. Its models write new
tokens at an index into the buffer. Here the buffer is made of the pasts of the layers and of room
for the new tokens. So the result is the past and the new tokens.
"""

import keras
from keras import ops

from keras_seqattn.ports import Port, names

_PARTS = ("key", "value")


class HubLayer(keras.layers.Layer):
    """A layer around a model of keras-hub, the `source`."""

    def __init__(self, source, **kwargs):
        super().__init__(**kwargs, dtype=source.dtype_policy)
        self.source = source

    def build(self, input_shape):
        # The source has its weights.
        self.built = True

    def logits_spec(self, input_ids):
        """The `keras.KerasTensor` of the logits for ids (b, t)."""
        width = self.source.backbone.vocabulary_size
        return keras.KerasTensor((*input_ids.shape, width), self.source.compute_dtype)


class HubStepLayer(HubLayer):
    """One step of a decoder. Its inputs and outputs are dicts with the names of a bundle.

    Here, for Keras, all tokens are real. The exporter also follows `attention_mask`; see
    `onnx/lower/hub.py`.

    Args:
        source: the model of keras-hub.
        stacked: whether it keeps all keys and values in one tensor (b, layers, 2, n, g, d).
    """

    def __init__(self, source, stacked=True, **kwargs):
        super().__init__(source, **kwargs)
        self.stacked = stacked

    def call(self, inputs):
        logits, presents = self.step(inputs)
        presents = {name: ops.transpose(x, (0, 2, 1, 3)) for name, x in presents.items()}
        return {"logits": logits, **presents}

    def step(self, inputs):
        """(logits, dict of output name -> all keys or values, float (b, n, g, d))."""
        raise NotImplementedError

    def compute_output_spec(self, inputs):
        outputs = {"logits": self.logits_spec(inputs["input_ids"])}
        for tensor in inputs.values():
            port = getattr(tensor, "port", None)
            if port is not None and port.role in ("cache", "source_cache"):
                shape = (tensor.shape[0], tensor.shape[1], None, tensor.shape[3])
                outputs[port.follows] = keras.KerasTensor(shape, tensor.dtype)
        return outputs

    def rooms(self, inputs, side, new):
        """Buffers of a past and of zeros for new tokens, and the index of the new tokens.

        Args:
            inputs: the inputs of the layer.
            side: None, or "decoder" or "encoder", as in `names.cache_names`.
            new: (b, t) or (b, t, m), the new tokens.

        Returns:
            For each layer a pair float (b, p + t, g, d), and an int.
        """
        pairs = []
        while names.cache_names(len(pairs), "key", side)[0] in inputs:
            index = len(pairs)
            pairs.append([inputs[names.cache_names(index, part, side)[0]] for part in _PARTS])
        rooms = tuple(tuple(_room(past, new) for past in pair) for pair in pairs)
        return rooms, ops.shape(pairs[0][0])[2]


def _room(past, new):
    past = ops.transpose(past, (0, 2, 1, 3))
    batch, length = ops.shape(new)[:2]
    shape = (batch, length, *past.shape[2:])
    return ops.concatenate([past, ops.zeros(shape, past.dtype)], axis=1)


def pairs_as_tensor(pairs):
    """The pairs of all layers as one tensor (b, layers, 2, n, g, d)."""
    return ops.stack([ops.stack(pair, axis=1) for pair in pairs], axis=1)


def tensor_as_pairs(cache, count):
    """The pair of each of `count` layers in one tensor (b, layers, 2, n, g, d)."""
    return [(cache[:, index, 0], cache[:, index, 1]) for index in range(count)]


def named_presents(pairs, side=None):
    """dict of the name of an output -> the keys or values of a layer."""
    return {
        names.cache_names(index, part, side)[1]: x
        for index, pair in enumerate(pairs)
        for part, x in zip(_PARTS, pair, strict=True)
    }


def cache_ports(shape, dtype, role, length, side=None):
    """list of `Port`, the pasts of all layers.

    Args:
        shape: (number of layers, number of heads, size of a head).
        dtype: the type of keys and values.
        role: "cache" or "source_cache".
        length: the name of the dimension of their length.
        side: as in `names.cache_names`.
    """
    layers, heads, size = shape
    axes = (names.BATCH, heads, length, size)
    both = [names.cache_names(i, part, side) for i in range(layers) for part in _PARTS]
    return [Port(past, role, axes, dtype, follows=present) for past, present in both]


def side_by_side(ids, mask):
    """Rows whose real tokens come first, in their order, as in keras-hub.

    Args:
        ids, mask: int (b, t).

    Returns:
        ids, mask and the indices int32 (b, t) that bring each token back to its place.
    """
    ids, mask = ops.cast(ids, "int32"), ops.cast(mask, "int32")
    length = ops.shape(ids)[1]
    # No two of these numbers are equal, so that the order does not depend on the backend.
    order = ops.argsort((1 - mask) * length + ops.arange(length, dtype="int32"), axis=1)
    ids, mask = (ops.take_along_axis(x, order, axis=1) for x in (ids, mask))
    return ids, mask, ops.argsort(order, axis=1)
