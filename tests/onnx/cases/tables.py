"""Every public name of keras.ops, and its cases."""

import inspect

import keras

from tests.onnx.cases import array_ops, nn_ops, numpy_ops
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
