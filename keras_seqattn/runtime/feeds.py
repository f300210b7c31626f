"""What a user gives a graph to run once: the inputs it declares, in its types and sizes."""

import numpy as np

from keras_seqattn.arguments import shown
from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.generation.prompts import as_array, as_integers, check_token_ids
from keras_seqattn.runtime.values import check_filled

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
} | {
    f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}").type
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}
_IDS = ("input_ids", "decoder_input_ids")
_MASKS = ("attention_mask", "encoder_attention_mask", "global_attention_mask")


def declared_dtype(value):
    """The NumPy type of an input of a session.

    Args:
        value: onnxruntime.NodeArg.

    Raises:
        BundleError: NumPy has none for it.
    """
    dtype = _DTYPES.get(value.type)
    if dtype is None:
        raise BundleError(f"{shown(value.name)} is {value.type}, which is not supported")
    return dtype


def feeds_of(session, inputs, vocabulary_size=None):
    """Check the inputs of one run, and bring them into the graph's types.

    Args:
        session: Session.
        inputs: dict name -> array, or what can be one.
        vocabulary_size: int, token ids must be below it, or None.

    Returns:
        dict name -> NumPy array.

    Raises:
        InputError: an input is missing, unknown, empty, or of a wrong type, size or value.
    """
    if not isinstance(inputs, dict):
        raise InputError(f"inputs must be a dict of arrays by name, not {shown(inputs)}")
    declared = {value.name: value for value in session.get_inputs()}
    wrong = sorted(map(_plain, set(inputs) ^ set(declared)))
    if wrong:
        more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise InputError(
            f"the inputs are {', '.join(declared)}; "
            f"missing or unknown: {', '.join(wrong[:8])}{more}"
        )
    feeds = {name: _typed(declared[name], value) for name, value in inputs.items()}
    _check_common_sizes(declared, feeds)
    for name in set(_IDS) & set(feeds) if vocabulary_size is not None else ():
        check_token_ids(feeds[name], vocabulary_size, name)
    for name in set(_MASKS) & set(feeds):
        if not np.isin(feeds[name], (0, 1)).all():
            raise InputError(f"{name} must hold 0 and 1 only")
    return feeds


def _check_common_sizes(declared, feeds):
    """Dimensions of one name, such as batch_size, are of one size in all inputs."""
    first = {}
    for name, array in feeds.items():
        for dimension, size in zip(declared[name].shape, array.shape, strict=True):
            if not isinstance(dimension, str):
                continue
            other, known = first.setdefault(dimension, (name, size))
            if size != known:
                raise InputError(
                    f"{name} and {other} must have the same {dimension}, but they have "
                    f"{size} and {known}"
                )


def _typed(declared, value):
    """The value as an array of the graph's type and of sizes that it can take."""
    name, dtype = declared.name, declared_dtype(declared)
    array = as_array(value, name)
    sizes = array.shape
    if len(sizes) != len(declared.shape):
        raise InputError(f"{name} must be {_shape(declared.shape)}, not {_shape(sizes)}")
    fixed = zip(sizes, declared.shape, strict=True)
    if any(isinstance(wanted, int) and size != wanted for size, wanted in fixed):
        raise InputError(f"{name} must be {_shape(declared.shape)}, not {_shape(sizes)}")
    check_filled(name, array)
    if np.issubdtype(dtype, np.integer):
        array = as_integers(array, name)
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise InputError(f"{name} must hold integers from {limits.min} to {limits.max}")
    elif not np.can_cast(array.dtype, dtype, "same_kind"):
        raise InputError(f"{name} must be {np.dtype(dtype)}, not {array.dtype}")
    with np.errstate(over="ignore"):
        typed = array.astype(dtype, copy=False)
    if typed is not array and np.isinf(typed).any() and not np.isinf(array).any():
        raise InputError(f"{name} holds numbers beyond {np.dtype(dtype)}")
    return typed


def _shape(sizes):
    return f"({', '.join(map(str, sizes))})"


def _plain(name):
    return shown(name)[1:-1] if isinstance(name, str) else shown(name)
