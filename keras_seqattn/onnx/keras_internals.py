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
from keras.src.layers import layer as _layer_module
from keras.src.layers.preprocessing.image_preprocessing import (
    base_image_preprocessing_layer as _image_layers,
)
from keras.src.models.functional import Functional as _Functional
from keras.src.ops.operation import Operation as _Operation
from keras.src.utils import backend_utils as _backend_utils

from keras_seqattn.onnx.sizes import is_dynamic

# The parent of the layers that resize, crop or change pictures.
ImageLayer = _image_layers.BaseImagePreprocessingLayer

_OPS_NAMESPACES = (keras.ops, _src_ops)
# Of two traces at the same time, each would restore the replacements of the other.
_TRACING = threading.RLock()

# The modules of a backend whose functions `keras.ops` has under the same names, without a module.
_FLAT_MODULES = ("core", "linalg", "math", "nn", "numpy")

# With a weight on the left of an operator, the backend would compute at once. It knows no Symbols.
_VARIABLE_OPERATORS = {
    "__add__": keras.ops.add,
    "__sub__": keras.ops.subtract,
    "__mul__": keras.ops.multiply,
    "__truediv__": keras.ops.divide,
    "__matmul__": keras.ops.matmul,
}


@contextlib.contextmanager
def intercept(symbolic_call, functions, methods):
    """Send symbolic calls to `symbolic_call(operation, args, kwargs)` while the context is open.

    Args:
        symbolic_call: called in place of the shape inference of Keras. It returns the outputs.
        functions: dict of name -> wrapper(original) for functions of `keras.ops` to replace.
        methods: list of (class, name, wrapper(original)) for methods to replace.
    """

    def hook(self, *args, **kwargs):
        return symbolic_call(self, args, kwargs)

    with _TRACING, contextlib.ExitStack() as stack:
        for owner in (_Operation, _layer_module.Layer):
            _replace(stack, owner, "symbolic_call", hook)
        # A traced call must not leave nodes in the layers that it calls.
        _replace(stack, _layer_module, "Node", lambda **_: None)
        # Losses are for training, and Keras accepts only tensors of the backend.
        _replace(stack, _layer_module.Layer, "add_loss", lambda self, loss: None)
        # Keras converts the sizes in a shape to plain ints.
        standardized = _keeping_sizes(_backend.standardize_shape)
        _replace(stack, _backend, "standardize_shape", standardized)
        converted = _keeping_tensors(_backend.convert_to_tensor)
        _replace(stack, _backend, "convert_to_tensor", converted)
        for name, wrapper in functions.items():
            replacement = wrapper(getattr(keras.ops, name))
            for namespace in _OPS_NAMESPACES:
                if hasattr(namespace, name):
                    _replace(stack, namespace, name, replacement)
        for owner, name, wrapper in methods:
            _replace(stack, owner, name, wrapper(getattr(owner, name)))
        for name, function in _VARIABLE_OPERATORS.items():
            original = getattr(keras.Variable, name)
            _replace(stack, keras.Variable, name, _operator(original, function))
        _replace(stack, _backend_utils.DynamicBackend, "__getattr__", _of_keras_ops)
        # Layers that compute with TensorFlow on every backend convert their results with this.
        _replace(stack, _backend_utils, "convert_tf_tensor", lambda outputs, dtype=None: outputs)
        if keras.config.is_traceback_filtering_enabled():
            # Keras would add a long text to each error of a lowering.
            keras.config.disable_traceback_filtering()
            stack.callback(keras.config.enable_traceback_filtering)
        yield


class _Operations:
    """`keras.ops` with the modules of a backend, so that it can take the place of one."""

    def __init__(self):
        self.__name__ = "keras.ops"
        self.image, self.random = keras.ops.image, keras.random
        for name in _FLAT_MODULES:
            setattr(self, name, keras.ops)

    def __getattr__(self, name):
        return getattr(keras.ops, name)


_OPERATIONS = _Operations()


def _of_keras_ops(backend, name):
    """What a preprocessing layer finds as `self.backend.name` during a trace.

    These layers call the functions of a backend, so that they also work in pipelines of tf.data.
    """
    return getattr(_OPERATIONS, name)


def _keeping_sizes(original):
    def traced(shape):
        if not isinstance(shape, (tuple, list)) or not any(map(is_dynamic, shape)):
            return original(shape)
        plain = original([1 if is_dynamic(n) else n for n in shape])
        return tuple(n if is_dynamic(n) else p for n, p in zip(shape, plain, strict=True))

    return traced


def _keeping_tensors(original):
    """Some functions of Keras convert their arguments before they ask if one is symbolic."""

    def traced(x, dtype=None, *args, **kwargs):
        if not isinstance(x, keras.KerasTensor):
            return original(x, dtype, *args, **kwargs)
        return x if dtype is None else keras.ops.cast(x, dtype)

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


def metric_variables(model):
    """list of the variables of all metrics in a model. No output depends on them."""
    metrics = [m for layer in all_layers(model) for m in getattr(layer, "_metrics", ())]
    return [v for metric in (*metrics, *model.metrics) for v in metric.variables]


def all_layers(model):
    """list of the model and every layer in it, including layers inside layers."""
    return list(model._flatten_layers())


def is_functional(model):
    """Whether a model is a graph of symbolic tensors, so that its inputs have names."""
    return isinstance(model, _Functional)


def first_call(model):
    """(args, kwargs) of the first symbolic call of a model, or None if there was none."""
    node = next(iter(model._inbound_nodes), None)
    return None if node is None else (node.arguments.args, node.arguments.kwargs)


def input_name(tensor):
    """The name of an input of a functional model. Without a name of its own, its layer has one."""
    history = getattr(tensor, "_keras_history", None)
    return tensor.name if history is None else history.operation.name
