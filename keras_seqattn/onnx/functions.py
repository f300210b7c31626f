"""Functions of `keras.ops` that have no symbolic tensor argument, or only weights, during a trace.

Without a wrapper, these functions would call the backend, which knows nothing of Symbols.
"""

import inspect

import keras
from keras import ops

from keras_seqattn.onnx.symbol import Symbol

# The arguments of control flow that hold tensors. What the loops compute may depend on Symbols,
# even if their arguments do not.
_STATES = {
    "while_loop": ("loop_vars",),
    "fori_loop": ("init_val",),
    "scan": ("init", "xs"),
    "map": ("xs",),
    "vectorized_map": ("elements",),
    "associative_scan": ("elems",),
}


def replaced_functions(tracer):
    """dict of name in `keras.ops` -> wrapper(original), for `keras_internals.intercept`."""
    return {
        "shape": _shape(tracer),
        "zeros": _filled(tracer, 0),
        "ones": _filled(tracer, 1),
        "empty": _filled(tracer, 0),
        "full": _filled(tracer, None),
        "eye": _matrix(ops.equal),
        "identity": _matrix(ops.equal),
        "tri": _matrix(ops.less_equal),
        "transpose": _of_variable(tracer),
        "reshape": _of_variable(tracer),
        "convert_to_tensor": _of_list(tracer),
        "array": _of_list(tracer),
        "broadcast_to": _of_constant(tracer),
        "slice": _of_constant(tracer),
        "tile": _of_constant(tracer),
        "repeat": _of_constant(tracer),
        "pad": _of_constant(tracer),
        "roll": _of_constant(tracer),
        "cond": _cond,
        "custom_gradient": _without_gradient,
        "switch": _switch,
        **{name: _loop(tracer, states) for name, states in _STATES.items()},
    }


def _without_gradient(original):
    """A file has no gradients, so only the function itself is traced."""

    def traced(function):
        def called(*args, **kwargs):
            if not any(isinstance(x, Symbol) for x in keras.tree.flatten((args, kwargs))):
                return original(function)(*args, **kwargs)
            return function(*args, **kwargs)[0]

        return called

    return traced


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
            shape = given["shape"]
            if isinstance(shape, Symbol):
                shape = [shape] if not shape.sizes else list(shape)
            if not _has_symbol(shape):
                return original(*args, **kwargs)
            dtype = keras.backend.standardize_dtype(given.get("dtype") or keras.config.floatx())
            content = given["fill_value"] if fill is None else fill
            if isinstance(content, Symbol):
                content = ops.cast(content, dtype)
            return tracer.filled(shape, content, dtype)

        return traced

    return wrapper


def _matrix(compare):
    """For a function that makes a matrix of ones where `compare(column - row, k)`, else zeros."""

    def wrapper(original):
        signature = inspect.signature(original)

        def traced(*args, **kwargs):
            given = signature.bind(*args, **kwargs).arguments
            if not any(isinstance(n, Symbol) for n in given.values()):
                return original(*args, **kwargs)
            rows = given["n"] if "n" in given else given["N"]
            columns = rows if given.get("M") is None else given["M"]
            distance = ops.arange(columns) - ops.expand_dims(ops.arange(rows), 1)
            chosen = compare(distance, given.get("k", 0))
            return ops.cast(chosen, given.get("dtype") or keras.config.floatx())

        return traced

    return wrapper


def _of_variable(tracer):
    """With only a weight, Keras would compute at once, and the file would hold a copy of it."""

    def wrapper(original):
        of_constant = _of_constant(tracer)(original)

        def traced(x, *args, **kwargs):
            if isinstance(x, keras.Variable):
                x = tracer.symbol(x)
            return of_constant(x, *args, **kwargs)

        return traced

    return wrapper


def _of_list(tracer):
    """For functions that also make a tensor of a list, in which there may be Symbols."""

    def wrapper(original):
        def stacked(x):
            if isinstance(x, (list, tuple)):
                return ops.stack([stacked(part) for part in x])
            return tracer.tensor(x)

        def traced(x, *args, **kwargs):
            if isinstance(x, keras.Variable):
                x = tracer.symbol(x)
            elif _has_symbol(x):
                x = stacked(x)
            return original(x, *args, **kwargs)

        return traced

    return wrapper


def _of_constant(tracer):
    """For functions with a size but without a symbolic tensor among their arguments."""

    def wrapper(original):
        def traced(x, *args, **kwargs):
            sized = any(_has_symbol([given]) for given in (*args, *kwargs.values()))
            if sized and not isinstance(x, Symbol):
                x = tracer.tensor(x)
            return original(x, *args, **kwargs)

        return traced

    return wrapper


def _cond(original):
    """A condition that is known now needs no choice in the file."""

    def traced(pred, true_fn, false_fn):
        if isinstance(pred, Symbol):
            return original(pred, true_fn, false_fn)
        return true_fn() if bool(ops.convert_to_numpy(pred)) else false_fn()

    return traced


def _switch(original):
    """Keras looks for Symbols among the operands only, and there may be none."""

    def traced(index, branches, *operands):
        if not isinstance(index, Symbol):
            known = min(max(int(index), 0), len(branches) - 1)
            return branches[known](*operands)

        def chosen(branch):
            return lambda _: branch(*operands)

        return original(index, [chosen(branch) for branch in branches], index)

    return traced


def _loop(tracer, states):
    def wrapper(original):
        signature = inspect.signature(original)

        def symbols(x):
            return None if x is None else tracer.tensor(x)

        def traced(*args, **kwargs):
            given = signature.bind(*args, **kwargs)
            for name in states:
                if given.arguments.get(name) is not None:
                    value = given.arguments[name]
                    given.arguments[name] = keras.tree.map_structure(symbols, value)
            return original(*given.args, **given.kwargs)

        return traced

    return wrapper


def _has_symbol(x):
    """Whether a Symbol is in a nested list or tuple."""
    if not isinstance(x, (tuple, list)):
        return False
    return any(isinstance(part, Symbol) or _has_symbol(part) for part in x)
