"""Layers that look up integers and texts in a vocabulary, or hash them."""

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower import hashing
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape

# The domain of LabelEncoder, and its version.
_LEARNING = "ai.onnx.ml"
_LEARNING_VERSION = 3


@lowers(keras.layers.IntegerLookup, keras.layers.StringLookup)
def lookup(tracer, layer, inputs):
    x = tracer.symbol(inputs)
    found = looked_up(tracer, layer, x)
    return encoded_tokens(tracer, layer, found)


def looked_up(tracer, layer, x):
    """The values that the table of a lookup layer has for its keys. Keys may be texts."""
    exported = (np.asarray(part).tolist() for part in layer.lookup_table.export())
    keys, values = ([_text(entry) for entry in part] for part in exported)
    if layer.mask_token is not None:
        # What is masked comes first: the node takes the first of equal keys.
        masked = 0 if layer.output_mode == "int" else np.iinfo(np.int64).max
        mask = (0, layer.mask_token) if layer.invert else (layer.mask_token, masked)
        kept = [(k, v) for k, v in zip(keys, values, strict=True) if k != mask[0]]
        keys, values = (list(part) for part in zip(mask, *kept, strict=True))
    if layer.invert:
        return _encoded(tracer, x, keys, values, layer.oov_token)
    unknown = layer.num_oov_indices
    if unknown == 1:
        return _encoded(tracer, x, keys, values, layer._oov_start_index())
    if unknown == 0:
        return _known_only(tracer, x, keys, values)
    found = _encoded(tracer, x, keys, values, -1)
    return ops.where(found < 0, _hashed_unknown(tracer, layer, x), found)


def _encoded(tracer, x, keys, values, default):
    """One LabelEncoder."""
    attributes = {f"default_{_kind(default)}": default}
    for name, entries, kind in (("keys", keys, x.dtype), ("values", values, _kind(default))):
        kind = "string" if kind == "string" else "int64"
        attributes[f"{name}_{kind}s"] = entries
    tracer.graph.opset_imports[_LEARNING] = _LEARNING_VERSION
    form = {"sizes": x.sizes, "dtype": _kind(default)}
    return tracer.emit("LabelEncoder", [x], attributes, domain=_LEARNING, **form)


def _kind(value):
    return "string" if isinstance(value, str) else "int64"


def _text(entry):
    return entry.decode("utf-8") if isinstance(entry, bytes) else entry


def _known_only(tracer, x, keys, values):
    """Without a place for unknown keys, Keras stops at one. So does the Gather of the file."""
    places = _encoded(tracer, x, keys, list(range(len(keys))), len(keys))
    values = tracer.constant(np.array(values, np.int64))
    return tracer.emit("Gather", [values, places], {"axis": 0}, sizes=x.sizes, dtype="int64")


def _hashed_unknown(tracer, layer, x):
    """The places of unknown keys, if there are several."""
    count = layer.num_oov_indices
    if layer.oov_method == "farmhash" or x.dtype == "string":
        bins = hashing.hashed(tracer, x, count, layer.salt)
    else:
        bins = ops.mod(x, count)
    return bins + layer._oov_start_index()


def encoded_tokens(tracer, layer, found):
    """Token numbers as the output mode of a lookup layer wants them."""
    if layer.output_mode == "int":
        return found
    depth = layer.max_tokens if layer.pad_to_max_tokens else layer._frozen_vocab_size
    if layer.output_mode != "tf_idf":
        return encoded(tracer, found, layer.output_mode, int(depth), "int64")
    counts = encoded(tracer, found, "count", int(depth), "float32")
    return counts * tracer.constant(keras.ops.convert_to_numpy(layer.idf_weights))


def encoded(tracer, x, mode, depth, dtype):
    """Numbers as one-hot or multi-hot vectors, or as counts. Numbers of no class do not count.

    Args:
        x: integers (...,) or (..., n).
        mode: "int", "one_hot", "multi_hot" or "count".
        depth: the number of classes.
        dtype: of the result.
    """
    if mode == "int":
        return cast(tracer, x, dtype)
    if not x.sizes:
        x = reshape(tracer, x, (1,))
    if mode == "one_hot":
        if len(x.sizes) > 1 and x.sizes[-1] == 1:
            x = ops.squeeze(x, axis=-1)
        return ops.one_hot(x, depth, dtype=dtype)
    # Keras sums over this axis of more than two, too.
    axis = min(1, len(x.sizes) - 1)
    reduce = ops.max if mode == "multi_hot" else ops.sum
    return reduce(ops.one_hot(x, depth, dtype=dtype), axis=axis)


@lowers(keras.layers.Hashing)
def hashing_layer(tracer, layer, inputs):
    x = tracer.symbol(inputs)
    if layer.output_mode == "one_hot" and len(x.sizes) and x.sizes[-1] == 1:
        x = ops.squeeze(x, axis=-1)
    bins, masked = layer.num_bins, layer.mask_value is not None
    if not masked or bins == 1:
        return encoded(tracer, hashing.hashed(tracer, x, bins, layer.salt), *_form(layer))
    is_masked = ops.equal(x, layer.mask_value)
    found = ops.where(is_masked, 0, hashing.hashed(tracer, x, bins - 1, layer.salt) + 1)
    return encoded(tracer, found, *_form(layer))


def _form(layer):
    return layer.output_mode, layer.num_bins, layer.dtype


@lowers(keras.layers.TextVectorization)
def text_vectorization(tracer, layer, inputs):
    raise ExportError(
        f"{tracer.where()}: TextVectorization cannot be exported, because ONNX has no operator "
        "that removes punctuation; call it before the file, and begin the exported model after it, "
        "with keras.Input(shape, dtype='int64')"
    )


@lowers(keras.layers.HashedCrossing)
def hashed_crossing(tracer, layer, inputs):
    raise ExportError(
        f"{tracer.where()}: HashedCrossing cannot be exported; compute it before the file, or "
        "cross the inputs with integer arithmetic and IntegerLookup"
    )
