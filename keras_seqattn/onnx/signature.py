"""What the call of a model takes: its arguments, with a name for each tensor in them."""

import inspect

import keras

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.structures import joined, leaves, replaced


class Signature:
    """The arguments of the call of a model.

    Args:
        model: the keras.Model.
        args, kwargs: its arguments. Everything with a shape and a dtype in them is an input, and
            the rest stays as it is.

    Attributes:
        tensors: dict of name -> KerasTensor of the inputs, in order. A name is the own name of the
            entry, or the path to it: the name of the argument, keys and indices, with "/" between
            them. The argument is left out if it is a dict and the only one.
    """

    def __init__(self, model, args, kwargs):
        self._arguments = tuple(args), dict(kwargs)
        self._leaves = [leaf for _, leaf in leaves(self._arguments)]
        paths = [path for path, leaf in leaves(_by_name(model, args, kwargs)) if _is_tensor(leaf)]
        alone = len({path[0] for path in paths}) == 1 and all(len(path) > 1 for path in paths)
        alone = alone and all(isinstance(path[1], str) for path in paths)
        names = [joined(path[1:] if alone else path) for path in paths]
        own = [_own_name(leaf) for leaf in self._leaves if _is_tensor(leaf)]
        names = [given or name for given, name in zip(own, names, strict=True)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ExportError(f"{model.name}: two inputs have the name {twice!r}; rename one")
        tensors = filter(_is_tensor, self._leaves)
        self.tensors = {n: _tensor(n, leaf) for n, leaf in zip(names, tensors, strict=True)}

    def bound(self, values):
        """(args, kwargs) with the values of a dict by name in place of the inputs."""
        given = iter([values[name] for name in self.tensors])
        return replaced(
            self._arguments,
            iter([next(given) if _is_tensor(leaf) else leaf for leaf in self._leaves]),
        )

    def left_out(self, model):
        """list of the names of the parameters of `call` that have no argument here."""
        args, kwargs = self._arguments
        return [
            name
            for name in _parameters(model)[len(args) :]
            if name not in kwargs and name not in ("training", "mask")
        ]

    def with_integers(self, model, names):
        """The same signature with int32 for some inputs."""
        changed = {n: _tensor(n, x, "int32") for n, x in self.tensors.items() if n in names}
        return Signature(model, *self.bound(self.tensors | changed))


def given_signature(model, given):
    """The `Signature` for the argument `input_signature` of `export`.

    Raises:
        ExportError: it holds something without a shape and a dtype.
    """
    args = given if isinstance(given, list | tuple) else [given]
    flat = leaves(args)
    for _, leaf in flat:
        if not _is_tensor(leaf):
            raise ExportError(
                "input_signature must hold things with a shape and a dtype, such as "
                f"keras.InputSpec, not {shown(leaf)}"
            )
        if leaf.shape is None or leaf.dtype is None:
            raise ExportError(f"{shown(leaf)} in input_signature needs both a shape and a dtype")
    if not flat:
        raise ExportError("input_signature must hold at least one input")
    return Signature(model, args, {})


def built_signature(model):
    """The `Signature` that the build of a model shows, or None if the model was not built.

    Keras does not keep the types, so that all are float32. The first axis becomes dynamic.
    """
    config = model.get_build_config() or {}
    shapes = config.get("shapes_dict")
    if shapes is None:
        first = next(iter(_parameters(model)), "inputs")
        shapes = {first: config.get("input_shape")}
    shapes = {name.removesuffix("_shape"): shape for name, shape in shapes.items()}
    if any(shape is None for shape in shapes.values()):
        return None
    return Signature(model, (), {name: _specs(shape) for name, shape in shapes.items()})


def _specs(shape):
    if isinstance(shape, dict):
        return {key: _specs(part) for key, part in shape.items()}
    if all(n is None or isinstance(n, int) for n in shape):
        return keras.KerasTensor((None, *shape[1:]), "float32")
    return [_specs(part) for part in shape]


def _by_name(model, args, kwargs):
    names = [*_parameters(model), *(f"input_{i}" for i in range(len(args)))]
    return dict(zip(names, args, strict=False)) | kwargs


def _parameters(model):
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = inspect.signature(model.call).parameters.values()
    return [p.name for p in parameters if p.kind in kinds]


def _is_tensor(leaf):
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _own_name(leaf):
    """The name that a user gave. Keras numbers the tensors that have none."""
    name = getattr(leaf, "name", None)
    return None if not isinstance(name, str) or name.startswith("keras_tensor") else name


def _tensor(name, leaf, dtype=None):
    dtype = dtype or keras.backend.standardize_dtype(leaf.dtype)
    return keras.KerasTensor(tuple(leaf.shape), dtype, name=name)
