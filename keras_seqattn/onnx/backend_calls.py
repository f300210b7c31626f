"""Finds in a traceback the call with which a layer used its backend and not keras.ops."""

import ast
import linecache
import os
import traceback
import types

import keras

from keras_seqattn.onnx.symbol import Symbol

# Top-level packages of backends. A layer that calls them cannot be traced.
_BACKENDS = ("tensorflow", "torch", "jax", "numpy")
# Files of these packages are not the user's.
_LIBRARIES = (*_BACKENDS, "keras", "keras_seqattn", "jaxlib", "ml_dtypes", "optree")
_LONGEST = 80
# Functions of backends whose name in keras.ops is another one.
_OTHER_NAMES = {
    "acos": "arccos",
    "addmm": "matmul",
    "amax": "max",
    "amin": "min",
    "asin": "arcsin",
    "atan": "arctan",
    "bmm": "matmul",
    "cat": "concatenate",
    "concat": "concatenate",
    "cumulative_sum": "cumsum",
    "dim": "ndim",
    "float": "cast",
    "gather": "take",
    "int": "cast",
    "long": "cast",
    "masked_fill": "where",
    "mm": "matmul",
    "permute": "transpose",
    "pow": "power",
    "reduce_all": "all",
    "reduce_any": "any",
    "reduce_logsumexp": "logsumexp",
    "reduce_max": "max",
    "reduce_mean": "mean",
    "reduce_min": "min",
    "reduce_prod": "prod",
    "reduce_std": "std",
    "reduce_sum": "sum",
    "reduce_variance": "var",
    "sequence_mask": "arange",
    "size": "shape",
    "sub": "subtract",
    "mul": "multiply",
    "div": "divide",
    "to": "cast",
    "type": "cast",
    "unsqueeze": "expand_dims",
    "view": "reshape",
}


def backend_call(error):
    """What a layer called, as `torch.sin(x) (line 12 of layers.py)`, and what to call instead.

    Args:
        error: an exception with its traceback.

    Returns:
        (str, name in keras.ops or None); None if the error came from no call of a backend.
    """
    steps = list(traceback.walk_tb(error.__traceback__))
    own = [i for i, (frame, _) in enumerate(steps) if _package(frame) is None]
    if not own:
        return None
    (frame, line), below = steps[own[-1]], steps[own[-1] + 1 :]
    summary = traceback.extract_tb(error.__traceback__)[own[-1]]
    text = _source(summary)
    name, value = _called(text, frame)
    if isinstance(value, keras.Layer) and isinstance(error, AttributeError):
        return None
    in_backend = _package(below[0][0]) in _BACKENDS if below else _is_of_backend(value)
    if not in_backend:
        return None
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."
    return f"{text} (line {line} of {os.path.basename(summary.filename)})", _in_keras(name)


def _package(frame):
    """The top-level package of a frame if it belongs to a library, else None."""
    name = frame.f_globals.get("__name__", "").partition(".")[0]
    return name if name in _LIBRARIES else None


def _source(summary):
    """The expression that a frame was in, in one line."""
    first, last = summary.lineno, summary.end_lineno or summary.lineno
    lines = [linecache.getline(summary.filename, n).encode() for n in range(first, last + 1)]
    # The offsets count bytes.
    if summary.end_colno is not None:
        lines[-1] = lines[-1][: summary.end_colno]
        lines[0] = lines[0][summary.colno :]
    return " ".join(b" ".join(lines).decode(errors="ignore").split())


def _called(text, frame):
    """(last name of a called function, value of its first name), each None if it is unknown."""
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        return None, None
    node = node.func if isinstance(node, ast.Call) else node
    name = getattr(node, "attr", None)
    while isinstance(node, ast.Attribute):
        node = node.value
    known = isinstance(node, ast.Name)
    return name, frame.f_locals.get(node.id, frame.f_globals.get(node.id)) if known else None


def _is_of_backend(value):
    """Whether it is a module of a backend, or a tensor that is used like one of a backend."""
    if isinstance(value, types.ModuleType):
        return value.__name__.partition(".")[0] in _BACKENDS
    return isinstance(value, Symbol)


def _in_keras(name):
    name = _OTHER_NAMES.get(name, name)
    return name if name and callable(getattr(keras.ops, name, None)) else None
