"""The only module that uses private modules of Keras: the hook with which the exporter sees calls.

Keras sends each symbolic `keras.ops` call and each symbolic layer call through
`Operation.symbolic_call` or `Layer.symbolic_call`. `intercept` replaces both during a trace. It
also replaces the few functions of `keras.ops` that have sizes but no tensor as arguments, because
they would call the backend. The replacements hold only for the thread that traces. Other threads
get the functions of Keras; if they want to trace too, they wait.
"""

import contextlib
import functools
import threading

import keras
from keras.src import backend as _backend
from keras.src import ops as _src_ops
from keras.src import random as _src_random
from keras.src.layers import layer as _layer_module
from keras.src.ops.operation import Operation as _Operation

from keras_seqattn.onnx.sizes import is_dynamic

_OPS_NAMESPACES = (keras.ops, _src_ops)
# Of two traces at the same time, each would restore the replacements of the other.
_TRACING = threading.RLock()

# With a weight on the left of an operator, the backend would compute at once. It knows no Symbols.
_VARIABLE_OPERATORS = {
    "__add__": keras.ops.add,
    "__sub__": keras.ops.subtract,
    "__mul__": keras.ops.multiply,
    "__truediv__": keras.ops.divide,
    "__matmul__": keras.ops.matmul,
}


@contextlib.contextmanager
def intercept(symbolic_call, functions, draws):
    """Send symbolic calls to `symbolic_call(operation, args, kwargs)` while the context is open.

    Args:
        symbolic_call: called in place of the shape inference of Keras. It returns the outputs.
        functions: dict of name -> wrapper(original) for functions of `keras.ops` to replace.
        draws: the same for functions of `keras.random`.
    """

    def hook(self, *args, **kwargs):
        return symbolic_call(self, args, kwargs)

    with _TRACING, contextlib.ExitStack() as stack:
        for owner in (_Operation, _layer_module.Layer):
            _replace(stack, owner, "symbolic_call", hook)
        # A traced call must not leave nodes in the layers that it calls.
        _replace(stack, _layer_module, "Node", lambda **_: None)
        # Keras converts the sizes in a shape to plain ints.
        standardized = _keeping_sizes(_backend.standardize_shape)
        _replace(stack, _backend, "standardize_shape", standardized)
        for name, wrapper in functions.items():
            replacement = wrapper(getattr(keras.ops, name))
            for namespace in _OPS_NAMESPACES:
                if hasattr(namespace, name):
                    _replace(stack, namespace, name, replacement)
        for name, wrapper in draws.items():
            # Those of keras.random call those of the backend, but some convert tensors before.
            for namespace in (_backend.random, keras.random, _src_random):
                if hasattr(namespace, name):
                    _replace(stack, namespace, name, wrapper(getattr(namespace, name)))
        for name, function in _VARIABLE_OPERATORS.items():
            original = getattr(keras.Variable, name)
            _replace(stack, keras.Variable, name, _operator(original, function))
        if keras.config.is_traceback_filtering_enabled():
            # Keras would add a long text to each error of a lowering.
            keras.config.disable_traceback_filtering()
            stack.callback(keras.config.enable_traceback_filtering)
        yield


def _keeping_sizes(original):
    def traced(shape):
        if not isinstance(shape, (tuple, list)) or not any(map(is_dynamic, shape)):
            return original(shape)
        plain = original([1 if is_dynamic(n) else n for n in shape])
        return tuple(n if is_dynamic(n) else p for n, p in zip(shape, plain, strict=True))

    return traced


def _operator(original, function):
    def traced(variable, other):
        if isinstance(other, keras.KerasTensor):
            return function(variable, other)
        return original(variable, other)

    return traced


def _replace(stack, owner, name, value):
    inherited = name not in vars(owner)
    original = getattr(owner, name)
    setattr(owner, name, _in_this_thread(value, original))
    if inherited:
        stack.callback(delattr, owner, name)
    else:
        stack.callback(setattr, owner, name, original)


def _in_this_thread(value, original):
    """`value` for the calls of this thread, and `original` for those of other threads."""
    thread = threading.get_ident()

    @functools.wraps(original)
    def replacement(*args, **kwargs):
        chosen = value if threading.get_ident() == thread else original
        return chosen(*args, **kwargs)

    return replacement


def is_keras_operation(operation):
    """Whether the class of `operation` belongs to Keras, so that its name identifies it."""
    return type(operation).__module__.startswith("keras.src.")


def all_layers(model):
    """list of the model and every layer in it, including layers inside layers."""
    return list(model._flatten_layers())
