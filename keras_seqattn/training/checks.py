"""Checks of the arguments of objectives and batches."""

import numpy as np

from keras_seqattn.arguments import integer, shown
from keras_seqattn.errors import InputError
from keras_seqattn.generation.prompts import as_integers

_LARGEST = int(np.iinfo("int32").max)


def token_ids(values, name="tokens", axes=1):
    """`values` as an int32 array with `axes` axes; InputError if they are not token ids."""
    is_empty = isinstance(values, (list, tuple)) and not values
    array = as_integers(np.zeros(0, "int32") if is_empty else values, name)
    if array.ndim != axes:
        shape = "(n,)" if axes == 1 else "(b, t)"
        raise InputError(f"{name} must be integers {shape}, not of shape {array.shape}")
    if array.size and max(-int(array.min()), int(array.max())) > _LARGEST:
        raise InputError(f"{name} must hold integers of 32 bits")
    return array.astype("int32")


def token_id(value, name):
    """`value` as an int, which must be a token id."""
    return integer(value, name, most=_LARGEST)


def texts_of_ids(texts, name):
    """`texts`, which must be a list of sequences of token ids."""
    if isinstance(texts, (str, bytes, dict)) or not hasattr(texts, "__len__"):
        raise InputError(f"{name} must be a list of lists of token ids, not {shown(texts)}")
    for i in range(len(texts)):
        token_ids(texts[i], f"{name}[{i}]")
    return texts


def generator(rng):
    """`rng`, which must be a numpy.random.Generator."""
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"rng must be a numpy.random.Generator, not {type(rng).__name__}")
    return rng


def iterable(values, name):
    """`values`, which must be a list or another iterable, not a single value."""
    is_one = isinstance(values, (str, bytes)) or getattr(values, "ndim", 1) == 0
    if is_one or not hasattr(values, "__iter__"):
        raise InputError(f"{name} must be a list, not {shown(values)}")
    return values


def pair_of_texts(pair):
    """`pair`, which must be (source, target) texts."""
    if not isinstance(pair, (tuple, list)) or [isinstance(x, str) for x in pair] != [True, True]:
        raise InputError(f"a pair must be (source, target) texts, not {shown(pair)}")
    return pair
