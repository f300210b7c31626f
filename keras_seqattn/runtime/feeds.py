"""Checks the inputs that a user gives to run a graph once, and converts their types."""

import numpy as np

from keras_seqattn.arguments import shown
from keras_seqattn.errors import InputError
from keras_seqattn.generation.prompts import as_array, as_integers, check_token_ids
from keras_seqattn.runtime.graph_ports import numpy_dtype
from keras_seqattn.runtime.values import check_filled

_MASKS = ("mask", "source_mask", "global_mask")


def feeds_of(ports, inputs, vocabulary_size=None):
    """Check the inputs of one run, and convert them to the types of the graph.

    Args:
        ports: `Ports` of the graph.
        inputs: dict of name -> array, or something that NumPy makes into an array.
        vocabulary_size: None, or int, token ids must be below it.

    Returns:
        dict of name -> NumPy array.

    Raises:
        InputError: an input is missing, unknown or empty, or has a wrong type, size or value.
    """
    if not isinstance(inputs, dict):
        raise InputError(f"inputs must be a dict of arrays by name, not {shown(inputs)}")
    declared = {port.name: port for port in ports.inputs}
    wrong = sorted(map(_plain, set(inputs) ^ set(declared)))
    if wrong:
        more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise InputError(
            f"the inputs are {', '.join(declared)}; "
            f"missing or unknown: {', '.join(wrong[:8])}{more}"
        )
    feeds = {name: _typed(declared[name], value) for name, value in inputs.items()}
    _check_sizes(ports, feeds)
    for port in ports.inputs:
        _check_values(port, feeds[port.name], vocabulary_size)
    return feeds


def _check_values(port, array, vocabulary_size):
    """Check that an input holds only values that its role and its range allow."""
    if port.role in ("tokens", "targets") and vocabulary_size is not None:
        check_token_ids(array, vocabulary_size, port.name)
    is_limited = port.role in _MASKS and (port.least, port.below) == (0, 2)
    if is_limited and not np.isin(array, (0, 1)).all():
        raise InputError(f"{port.name} must hold 0 and 1 only")
    if port.is_integer:
        _check_range(port, array)
    if port.most_ones is not None and np.atleast_1d(array).sum(axis=-1).max() > port.most_ones:
        raise InputError(f"{port.name} must have at most {port.most_ones} ones in a row")


def _check_range(port, array):
    least, largest = int(array.min()), int(array.max())
    if port.least is not None and least < port.least:
        raise InputError(f"{port.name} holds {least}, but its values must be at least {port.least}")
    if port.below is not None and largest >= port.below:
        raise InputError(f"{port.name} holds {largest}, but its values must be below {port.below}")


def _check_sizes(ports, feeds):
    """Check that a dimension, such as batch_size, has one size in all inputs, within its limit."""
    first = {}
    for port in ports.inputs:
        for dimension, size in zip(port.axes, feeds[port.name].shape, strict=True):
            if not isinstance(dimension, str):
                continue
            other, known = first.setdefault(dimension, (port.name, size))
            if size != known:
                raise InputError(
                    f"{port.name} and {other} must have the same {dimension}, but they have "
                    f"{size} and {known}"
                )
            limit = ports.limits.get(dimension, size)
            if size > limit:
                raise InputError(
                    f"{port.name} has {dimension} {size}, and the model takes at most {limit}"
                )


def _typed(declared, value):
    """The value as an array with the type of the graph. Its sizes must fit the graph."""
    name, axes, dtype = declared.name, declared.axes, numpy_dtype(declared)
    array = as_array(value, name)
    sizes = array.shape
    fits = len(sizes) == len(axes) and all(
        size == axis for size, axis in zip(sizes, axes, strict=True) if isinstance(axis, int)
    )
    if not fits:
        raise InputError(f"{name} must be {_shape(axes)}, not {_shape(sizes)}")
    check_filled(declared, array)
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
