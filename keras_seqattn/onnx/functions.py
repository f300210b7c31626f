"""Functions of `keras.ops` that have no tensor argument, or only weights, during a trace.

Without a wrapper, these functions would call the backend, which knows nothing of Symbols.
"""

import inspect

import keras

from keras_seqattn.onnx.symbol import Symbol


def replaced_functions(tracer):
    """dict of name in `keras.ops` -> wrapper(original), for `keras_internals.intercept`."""
    return {
        "shape": _shape(tracer),
        "zeros": _filled(tracer, 0),
        "ones": _filled(tracer, 1),
        "full": _filled(tracer, None),
        "transpose": _of_variable(tracer),
        "reshape": _of_variable(tracer),
        "convert_to_tensor": _of_variable(tracer),
        "broadcast_to": _of_constant(tracer),
        "slice": _of_constant(tracer),
    }


def _shape(tracer):
    def wrapper(original):
        def traced(x):
            if not isinstance(x, Symbol):
                return original(x)
            return tuple(tracer.size(x, axis) for axis in range(len(x.sizes)))

        return traced

    return wrapper


def _filled(tracer, fill):
    """For a function that makes a tensor of one number. With None, the number is an argument."""

    def wrapper(original):
        signature = inspect.signature(original)

        def traced(*args, **kwargs):
            given = signature.bind(*args, **kwargs).arguments
            if not _has_symbol(given["shape"]):
                return original(*args, **kwargs)
            dtype = given.get("dtype") or keras.config.floatx()
            content = given["fill_value"] if fill is None else fill
            return tracer.filled(given["shape"], content, keras.backend.standardize_dtype(dtype))

        return traced

    return wrapper


def _of_variable(tracer):
    """With only a weight, Keras would compute at once, and the file would hold a copy of it."""

    def wrapper(original):
        def traced(x, *args, **kwargs):
            if isinstance(x, keras.Variable):
                x = tracer.symbol(x)
            return original(x, *args, **kwargs)

        return traced

    return wrapper


def _of_constant(tracer):
    """For functions with a size but without a symbolic tensor among their arguments."""

    def wrapper(original):
        def traced(x, *args, **kwargs):
            sized = any(_has_symbol(given) for given in (*args, *kwargs.values()))
            if sized and not isinstance(x, Symbol):
                x = tracer.symbol(x)
            return original(x, *args, **kwargs)

        return traced

    return wrapper


def _has_symbol(shape):
    return isinstance(shape, (tuple, list)) and any(isinstance(n, Symbol) for n in shape)
