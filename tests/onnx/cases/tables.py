"""Every public name of keras.ops, and its cases."""

import functools
import inspect

import keras

from tests.onnx.cases import array_ops, nn_ops, numpy_ops
from tests.onnx.cases.layer_table import LAYERS
from tests.onnx.cases.numpy_ops import On
from tests.onnx.cases.running import Case


def public_ops():
    """list of the public names of keras.ops. A name in a namespace has it in front, if it is not
    also a name of keras.ops itself."""
    names = {n for n in dir(keras.ops) if _is_public(keras.ops, n)}
    for space in ("image", "linalg", "nn", "numpy"):
        module = getattr(keras.ops, space)
        names |= {f"{space}.{n}" for n in dir(module) if _is_public(module, n) and n not in names}
    return sorted(names)


def _is_public(module, name):
    return not name.startswith("_") and not inspect.ismodule(getattr(module, name))


def op_cases():
    """dict of public name -> list of `Case`."""
    made = {}
    for table in (*numpy_ops.TABLES, *nn_ops.TABLES, *array_ops.TABLES):
        for name, functions in table.items():
            cases = made.setdefault(name, [])
            for function in functions:
                if isinstance(function, On):
                    function, inputs = function.function, function.inputs
                else:
                    inputs = list(inspect.signature(function).parameters)
                cases.append(Case(f"{name}:{len(cases)}", function, tuple(inputs)))
    return made


def public_layers():
    """list of the names of the classes in keras.layers. Of several names of a class, one."""
    names, seen = [], set()
    for name in sorted(dir(keras.layers), key=lambda n: (len(n), n), reverse=True):
        cls = getattr(keras.layers, name)
        if inspect.isclass(cls) and issubclass(cls, keras.layers.Layer) and cls not in seen:
            seen.add(cls)
            names.append(cls.__name__ if hasattr(keras.layers, cls.__name__) else name)
    return sorted(names)


def layer_cases():
    """dict of class name -> list of `Case`."""
    return {
        name: [_layer_case(name, n, *parts) for n, parts in enumerate(rows)]
        for name, rows in LAYERS.items()
    }


def _layer_case(name, number, inputs, settings, call):
    settings = {k: v() if k in _MADE and callable(v) else v for k, v in settings.items()}
    layer = getattr(keras.layers, name)(**settings, name=f"{name.lower()}_{number}")
    if call is None:
        call = _call
    inputs = tuple(inputs.split())
    return Case(f"{name}:{number}", functools.partial(call, layer), inputs, layer=layer)


# Settings that are layers, which each case makes anew.
_MADE = ("layer", "cell", "cells", "layers")


def _call(layer, *tensors):
    return layer(tensors[0] if len(tensors) == 1 else list(tensors))
