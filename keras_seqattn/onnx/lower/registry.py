"""The table from operations to their ONNX form, and the function that adds to it."""

import operator

import keras

from keras_seqattn.onnx import keras_internals
from keras_seqattn.onnx.sizes import computed

_BY_CLASS = {}
_BY_NAME = {}


def _size_rule(function):
    return lambda operation, *numbers: computed(function, *numbers)


def _clipped(operation, n):
    low, high = operation.x_min, operation.x_max
    if not all(isinstance(bound, int) for bound in (low, high)):
        return None
    return computed(min, computed(max, n, low), high)


# Operations on integer scalars whose result is a size if their arguments are sizes.
SIZE_ARITHMETIC = {
    "Add": _size_rule(operator.add),
    "Subtract": _size_rule(operator.sub),
    "Multiply": _size_rule(operator.mul),
    "FloorDivide": _size_rule(operator.floordiv),
    "Mod": _size_rule(operator.mod),
    "Maximum": _size_rule(max),
    "Minimum": _size_rule(min),
    "Power": _size_rule(operator.pow),
    "Square": lambda operation, n: computed(operator.mul, n, n),
    "Negative": _size_rule(operator.neg),
    "Absolute": _size_rule(abs),
    "Abs": _size_rule(abs),
    "Clip": _clipped,
    "Cast": lambda operation, n: n,
    "ConvertToTensor": lambda operation, n: n,
}


def lowers(*keys):
    """Register `function(tracer, operation, *args, **kwargs)` as the ONNX form of operations or
    layers.

    Args:
        keys: classes (subclasses of `keras.Operation` or `keras.Layer`). For operations of Keras,
            whose classes are not public, the names of the classes.

    The function gets the arguments of the operation's `call`, but with `trace.Symbol` for tensors.
    It returns the result of `call` with Symbols.

    Example:

        @keras_seqattn.onnx.lowers(MyOperation)
        def my_operation(tracer, operation, x):
            return tracer.emit("Relu", [x], sizes=x.sizes, dtype=x.dtype)
    """

    def register(function):
        for key in keys:
            (_BY_NAME if isinstance(key, str) else _BY_CLASS)[key] = function
        return function

    return register


def find(operation):
    """The lowering of an operation, or None. Subclasses that keep `call` inherit it."""
    cls = type(operation)
    for parent in cls.__mro__:
        if parent in _BY_CLASS:
            return _BY_CLASS[parent]
        if "call" in vars(parent):
            break
    if keras_internals.is_keras_operation(operation) and not isinstance(operation, keras.Layer):
        return _BY_NAME.get(cls.__name__)
    return None


def layers_of_keras():
    """list of (class, lowering) for the layers of Keras that have a `call` of their own."""
    return [
        (cls, lowering)
        for cls, lowering in _BY_CLASS.items()
        if cls.__module__.startswith("keras.src.") and "call" in vars(cls)
    ]
