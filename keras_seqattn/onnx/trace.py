"""Traces a Keras model into an ONNX graph: calls it with tensors that carry ONNX values."""

import itertools

import keras
import numpy as np

from keras_seqattn.errors import ExportError, SeqAttnError
from keras_seqattn.onnx import keras_internals
from keras_seqattn.onnx.builder import GraphBuilder
from keras_seqattn.onnx.called_model import CalledModel
from keras_seqattn.onnx.functions import replaced_functions
from keras_seqattn.onnx.kept_masks import as_in_keras
from keras_seqattn.onnx.lower import registry
from keras_seqattn.onnx.lower.random import replaced_draws
from keras_seqattn.onnx.refusals import PLACE
from keras_seqattn.onnx.sizes import at_other_lengths, is_dynamic, joined
from keras_seqattn.onnx.states import TracedStates
from keras_seqattn.onnx.symbol import Symbol


class Tracer(GraphBuilder):
    """Sees every call of Keras while a model runs on Symbols, and lowers it.

    Attributes:
        progress: how many calls have begun.
        draws: how many random tensors are drawn in the graph.
        stopped_at: the innermost layer and operation of the call that failed, or None.
        unequal: sizes that differ where the tensors of that call would be aligned, as pairs.
        states: `TracedStates` of the model that is traced.
    """

    def __init__(self, target):
        super().__init__(target)
        self.progress, self.stopped_at, self.unequal = 0, None, []
        self.states, self.draws = None, 0
        # The layers and operations whose lowerings are running, outermost first.
        self._lowering = []

    # ---- the hook

    def symbolic_call(self, operation, args, kwargs):
        """Lower one call with its entry in the table. Without an entry, trace its `call`."""
        self.progress += 1
        lowering = registry.find(operation)
        is_layer = isinstance(operation, keras.Layer)
        scoped = is_layer and operation not in self._roots
        if scoped:
            self._scope.append(operation.name)
        self._operations.append(type(operation).__name__)
        try:
            if lowering is not None:
                return self._lower(lowering, operation, args, kwargs)
            if isinstance(operation, keras.Layer) or not keras_internals.is_keras_operation(
                operation
            ):
                return operation.call(*args, **kwargs)
            raise ExportError(
                f"{self.where()}: the operation {type(operation).__name__} has no ONNX lowering. "
                "Write the computation with other keras.ops, or register one with "
                "keras_seqattn.onnx.lowers(...); see CONTRIBUTING.md."
            )
        except Exception as error:  # the code of a layer may raise any error
            if self.stopped_at is None:
                self.stopped_at = f"{self.where()} ({type(operation).__name__})"
                self.unequal = _unequal(args, kwargs)
            if not isinstance(error, SeqAttnError) and not hasattr(error, "_seqattn_located"):
                error._seqattn_located = True
                error.add_note(f"{PLACE} {self.where()} ({type(operation).__name__})")
            raise
        finally:
            self._operations.pop()
            if scoped:
                self._scope.pop()

    def _lowered_call(self, lowering):
        """The wrapper of `call` of a layer that has a lowering, for subclasses that call it."""

        def wrapper(original):
            def traced(layer, *args, **kwargs):
                if any(_is_same(layer, x) for x in self._lowering) or not _has_symbol(args, kwargs):
                    return original(layer, *args, **kwargs)
                return self._lower(lowering, layer, args, kwargs)

            return traced

        return wrapper

    def _lower(self, lowering, operation, args, kwargs):
        # A lowering may use the definition that it replaces.
        self._lowering.append(operation)
        try:
            result = lowering(self, operation, *args, **kwargs)
        finally:
            self._lowering.pop()
        self._track_number(operation, args, result)
        if isinstance(operation, keras.Layer):
            return result
        return as_in_keras(operation, (args, kwargs), result)

    def _track_number(self, operation, args, result):
        """Follow arithmetic on sizes, so that `past + sequence` is known as a size."""
        rule = registry.SIZE_ARITHMETIC.get(type(operation).__name__)
        if (
            rule is None
            or not isinstance(result, Symbol)
            or result.sizes
            or "int" not in result.dtype
        ):
            return
        numbers = [a.number if isinstance(a, Symbol) else a for a in args]
        if all(isinstance(n, (int, np.integer)) for n in numbers):
            self.register_number(result, rule(operation, *numbers))

    def output_spec(self, operation, args, kwargs):
        """(sizes, dtype) of the result, which Keras infers from the sizes.

        Raises:
            ExportError: a size of the result depends on a size that is known only at run time, in a
                way that cannot be followed.
        """
        spec = _inferred(operation, args, kwargs, lambda n: n)
        given = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Symbol)]
        dynamic = {n for x in given for n in x.sizes if is_dynamic(n)}
        if not dynamic:
            return spec
        other = _inferred(operation, args, kwargs, at_other_lengths)
        return keras.tree.map_structure(
            lambda n, same: self._followed(operation, n, same, dynamic), spec, other
        )

    def output_dtype(self, operation, args, kwargs):
        """The dtype of the one result, which Keras infers, for sizes that cannot be followed."""
        return _inferred(operation, args, kwargs, lambda n: n)[1]

    def _followed(self, operation, size, same, dynamic):
        """The Size of an axis of a result, for which Keras gave an int.

        Args:
            operation: the operation of the result.
            size: the size of the result, or its dtype, which does not change.
            same: the size for inputs with other lengths.
            dynamic: the Sizes of the inputs.
        """
        if not isinstance(size, int) or is_dynamic(size):
            return size
        # Keras may convert a Size to an int, even if it does not change the Size.
        for known in dynamic:
            if int(known) == size and at_other_lengths(known) == same != size:
                return known
        if size != same:
            raise ExportError(
                f"{self.where()}: {type(operation).__name__} gives a length that depends on the "
                "length of the input in a way that cannot be followed; give the input a fixed one"
            )
        return size

    def run(self, model, inputs):
        """The outputs of the model for Symbols, in inference mode, while the hook is active."""
        self._roots = [model, model.inner] if isinstance(model, CalledModel) else [model]
        self.states = TracedStates(self, model)
        functions, draws = replaced_functions(self), replaced_draws(self)
        methods = [
            (keras.Variable, "__init__", self.states.made),
            (keras.Variable, "assign", self.states.assigned),
            *((cls, "call", self._lowered_call(how)) for cls, how in registry.layers_of_keras()),
        ]
        with keras_internals.intercept(self.symbolic_call, functions, draws, methods):
            outputs = model(inputs, training=False)
        self.states.check_weights()
        return outputs


def _is_same(layer, operation):
    """Whether a layer is the one of an operation. A lowering may call a changed copy of it."""
    return type(layer) is type(operation) and layer.name == operation.name


def _has_symbol(args, kwargs):
    return any(isinstance(x, Symbol) for x in keras.tree.flatten((args, kwargs)))


def _unequal(args, kwargs):
    """The pairs of different dynamic sizes in the shapes of tensors, aligned at their ends."""
    tensors = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Symbol)]
    axes = itertools.zip_longest(*(x.sizes[::-1] for x in tensors), fillvalue=1)
    found = []
    for sizes in axes:
        first, *others = [n for n in sizes if is_dynamic(n)] or [None]
        found += [(first, n) for n in others if n != first]
    return found


def _inferred(operation, args, kwargs, number):
    """The specs that Keras infers if each size is replaced by `number(size)`.

    If the shapes do not fit each other, sizes that may be equal are taken for equal, except on an
    axis along which tensors are joined. At run time, onnxruntime refuses what Keras refuses.
    """
    try:
        return _specs(operation, args, kwargs, lambda axis, n: number(n))
    except ValueError:
        tensors = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, Symbol)]
        same = joined(n for x in tensors for n in x.sizes if is_dynamic(n))
        if not same:
            raise
        along = getattr(operation, "axis", None) if isinstance(args[0], (list, tuple)) else None
        along = along % len(tensors[0].sizes) if isinstance(along, int) else None
        return _specs(
            operation,
            args,
            kwargs,
            lambda axis, n: number(n if axis == along else same.get(n, n)),
        )


def _specs(operation, args, kwargs, number):
    """The specs that Keras infers if each size is replaced by `number(axis, size)`."""

    def plain(x):
        if isinstance(x, Symbol):
            return keras.KerasTensor([number(a, n) for a, n in enumerate(x.sizes)], x.dtype)
        return x

    args, kwargs = keras.tree.map_structure(plain, (args, kwargs))
    spec = operation.compute_output_spec(*args, **kwargs)
    return keras.tree.map_structure(lambda s: (tuple(s.shape), s.dtype), spec)
