"""Trace a Keras model into an ONNX graph by calling it with tensors that carry ONNX values.

Sizes: every dynamic dimension gets a large prime number as its stand-in, and shapes are inferred
with plain integers. A size that is dynamic is thereby recognised wherever it turns up, even through
arithmetic: the size `past + sequence` is the sum of the two stand-ins, and a number of blocks is
one of them divided. So reshapes can be written without a chain of Shape nodes.

Integers are int64 throughout the file, whatever integer width Keras used: one width, no casts.
"""

import contextlib
import hashlib
import inspect

import keras
import numpy as np
import onnx_ir as ir

from keras_seqattn.errors import ExportError, SeqAttnError
from keras_seqattn.onnx import keras_internals
from keras_seqattn.onnx.lower import registry
from keras_seqattn.onnx.symbol import DTYPES, Symbol, is_dynamic, lazy_initializer

# Descending, so that the length of a later input can be cut off that of an earlier one and leaves a
# size. No two are near each other, no two pairs have nearly the same sum or difference, and all are
# above 2**49, so that no difference of two is a third, and that one divided by the length of a
# block still counts as dynamic.
_STAND_INS = (1125899906318387, 1089957705285643, 1058132160151597, 1023614270308381)
_STAND_INS += (983183048310797, 937126174130183, 898861045907477, 875993962643473)
_STAND_INS += (834895079800883, 796419690070117, 768884208042023, 696548949753871)
_STAND_INS += (651519297323017, 598777673547787)
# As sizes and numbers made of them reach a constant: few at a time, parts of a stand-in down to
# this, and that far from one by slices and padding. Other numbers hardly ever meet all three.
_FEW = 16
_LEAST_LEAK = 1 << 33
_NEAR = 1 << 10


class Tracer:
    """Builds one ONNX graph; the lowerings call `emit`, `constant` and `value`."""

    def __init__(self, target):
        self.target = target
        self._root = None
        self.graph = ir.Graph((), (), nodes=(), name="keras_seqattn")
        # Where nodes go: the graph, or the body of a loop inside it.
        self._block = self.graph
        self._names = {}
        self._scope = []
        # The classes of the calls that are being lowered, outermost first.
        self._operations = ["the model"]
        self._initializers = {}
        self._sizes = {}
        self._dimension_names = {}
        self._size_labels = {}
        self._memo = {}

    # ---- inputs and sizes

    def dimension(self, name):
        """The stand-in of the named dimension; `a+b` is the sum of two."""
        if "+" in name:
            return sum(self.dimension(part) for part in name.split("+"))
        if name not in self._dimension_names:
            if len(self._dimension_names) == len(_STAND_INS):
                raise ExportError(f"more than {len(_STAND_INS)} dynamic dimensions in the inputs")
            self._dimension_names[name] = _STAND_INS[len(self._dimension_names)]
        return self._dimension_names[name]

    def label(self, name, label):
        """Give the size of a named dimension, or of a sum of two, another name in the file."""
        self._size_labels[self.dimension(name)] = label

    def add_input(self, name, dimensions, dtype, label=None):
        """Declare a graph input of ints and dimension names; `label` renames some in the file."""
        sizes = [self.dimension(d) if isinstance(d, str) else d for d in dimensions]
        labels = [(label or {}).get(d, d) for d in dimensions]
        value = ir.Value(name=name, shape=ir.Shape(labels), type=ir.TensorType(DTYPES[dtype]))
        self._names[name] = 1
        self.graph.inputs.append(value)
        symbol = Symbol(value, sizes, dtype)
        for axis, size in enumerate(sizes):
            if is_dynamic(size) and size not in self._sizes:
                self._sizes[size] = (symbol, axis)
                self._size_labels[size] = labels[axis]
        return symbol

    def size(self, symbol, axis):
        """The size of an axis: an int where it is static, else a scalar Symbol."""
        number = symbol.sizes[axis]
        if not is_dynamic(number):
            return number
        known = self._sizes.get(number)
        if isinstance(known, Symbol):
            return known
        source, axis = known or (symbol, axis)
        shape = self.emit(
            "Shape",
            [source],
            {"start": axis % len(source.sizes), "end": axis % len(source.sizes) + 1},
            sizes=(1,),
            dtype="int64",
        )
        scalar = self.emit(
            "Squeeze", [shape, self.constant(np.array([0]))], sizes=(), dtype="int64"
        )
        scalar.number = number
        self._sizes[number] = scalar
        return scalar

    def scalar(self, number):
        """The Symbol of a registered dynamic size, or None."""
        known = self._sizes.get(number)
        if known is None or isinstance(known, Symbol):
            return known
        return self.size(*known)

    def register_number(self, symbol, number):
        """Note that an integer scalar is a size, computed from sizes."""
        symbol.number = number
        if is_dynamic(number):
            self._sizes.setdefault(number, symbol)

    # ---- constants and weights

    def constant(self, array, dtype=None):
        """An initializer for an array; equal arrays share one. Returns a Symbol."""
        array = np.asarray(array)
        if array.dtype.kind in "iu":
            array = array.astype(np.int64)
        if dtype is not None:
            array = array.astype(DTYPES[dtype].numpy())
        elif array.dtype == np.float64:
            array = array.astype(np.float32)
        array = np.asarray(array, order="C")
        self._check_no_stand_in(array)
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        key = (digest, array.shape, str(array.dtype))
        if key not in self._initializers:
            name = self.unique_name("constant")
            value = ir.Value(
                name=name,
                shape=ir.Shape(array.shape),
                const_value=ir.Tensor(array, name=name),
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            )
            self.graph.register_initializer(value)
            self._initializers[key] = Symbol(value, array.shape, _keras_dtype(array.dtype))
        return self._initializers[key]

    def _check_no_stand_in(self, array):
        """A stand-in in the file would be a size that no input has.

        Raises:
            ExportError: a few numbers, as sizes come, are stand-ins or parts of them.
        """
        if array.size > _FEW or array.dtype.kind not in "if":
            return
        dynamic = {*self._dimension_names.values(), *self._sizes}
        for number in array.ravel().tolist():
            if _LEAST_LEAK <= abs(number) < 2**62 and any(_is_part(number, s) for s in dynamic):
                raise ExportError(
                    f"{self.where()}: {self._operations[-1]} would fix a length that is known only "
                    "at run time; take it from ops.shape(x), or give the input a fixed length"
                )

    def variable(self, variable, dtype=None):
        """The initializer of a Keras variable, named by its path, read when it is written."""
        dtype = dtype or variable.dtype
        key = (id(variable), dtype)
        if key not in self._initializers:
            name = self.unique_name(variable.path)
            value = lazy_initializer(
                name, tuple(variable.shape), DTYPES[dtype], lambda: _read_variable(variable)
            )
            self.graph.register_initializer(value)
            self._initializers[key] = Symbol(value, variable.shape, dtype)
        return self._initializers[key]

    def symbol(self, x, dtype=None):
        """A Symbol for whatever keras.ops accept: variable, array, backend tensor, number."""
        if isinstance(x, Symbol):
            return x
        if isinstance(x, keras.KerasTensor):
            raise ExportError(
                f"{self.where()}: a symbolic tensor from outside the model was used: {x}"
            )
        if isinstance(x, keras.Variable):
            return self.variable(x, x.dtype if dtype is None or "int" in dtype else dtype)
        if isinstance(x, (list, tuple)) and any(isinstance(n, Symbol) for n in x):
            return self.vector(x)
        if isinstance(x, (bool, int, float, list, tuple, np.ndarray, np.generic)):
            return self.constant(np.asarray(x), dtype)
        return self.constant(keras.ops.convert_to_numpy(x), dtype)

    def vector(self, numbers):
        """A 1-D int64 Symbol from ints and scalar Symbols."""
        if all(isinstance(n, (int, np.integer)) for n in numbers):
            return self.constant(np.array(numbers, np.int64))
        parts = []
        for n in numbers:
            if isinstance(n, Symbol):
                if n.value.producer() is not None and n.value.producer().op_type == "Squeeze":
                    n = Symbol(n.value.producer().inputs[0], (1,), "int64")
                else:
                    n = self.emit(
                        "Reshape", [n, self.constant(np.array([1]))], sizes=(1,), dtype="int64"
                    )
            else:
                n = self.constant(np.array([n]))
            parts.append(n)
        return self.emit("Concat", parts, {"axis": 0}, sizes=(len(parts),), dtype="int64")

    # ---- nodes

    def emit(
        self, op_type, inputs, attributes=None, *, domain="", sizes=None, dtype=None, outputs=None
    ):
        """Add a node. One output described by `sizes` and `dtype`, or several by `outputs` [(sizes,
        dtype), ...].

        Returns a Symbol, or a list of them if `outputs` was given.
        """
        specs = [(sizes, dtype)] if outputs is None else outputs
        name = self.unique_name("/".join([*self._scope, op_type]))
        values = []
        for i, spec in enumerate(specs):
            suffix = "" if len(specs) == 1 else f"_{i}"
            values.append(self._new_value(f"{name}{suffix}", spec))
        operands = [None if x is None else x.value for x in inputs]
        while operands and operands[-1] is None:
            operands.pop()
        self._block.append(
            ir.node(
                op_type, operands, _attributes(attributes), domain=domain, outputs=values, name=name
            )
        )
        symbols = [
            Symbol(v, s, d) if s is not None else None
            for v, (s, d) in zip(values, specs, strict=True)
        ]
        return symbols[0] if outputs is None else symbols

    def once(self, key, build):
        """`build()` once for a key, the same Symbol afterwards: what all layers share."""
        if key not in self._memo:
            scope, self._scope = self._scope, []
            try:
                self._memo[key] = build()
            finally:
                self._scope = scope
        return self._memo[key]

    @contextlib.contextmanager
    def body(self, name):
        """A graph inside a node, which gets the nodes that are emitted in the block.

        It may read all that was made before it; what is made in it is not known outside. Weights
        and constants still go into the main graph.
        """
        block, memo, sizes = self._block, self._memo, self._sizes
        graph = ir.Graph((), (), nodes=(), name=self.unique_name("/".join([*self._scope, name])))
        self._block, self._memo, self._sizes = graph, dict(memo), dict(sizes)
        try:
            yield graph
        finally:
            memo.update({k: x for k, x in self._memo.items() if _is_initializer(x)})
            self._block, self._memo, self._sizes = block, memo, sizes

    def body_input(self, graph, name, sizes, dtype):
        """Declare an input of a body."""
        name = self.unique_name(f"{graph.name}/{name}")
        value = self._new_value(name, (sizes, dtype))
        graph.inputs.append(value)
        return Symbol(value, sizes, dtype)

    def _new_value(self, name, spec):
        sizes, dtype = spec
        if sizes is None:
            return ir.Value(name="")
        names = self._size_labels
        shape = ir.Shape([names.get(int(n)) if is_dynamic(n) else int(n) for n in sizes])
        return ir.Value(name=name, shape=shape, type=ir.TensorType(DTYPES[dtype]))

    def unique_name(self, name):
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return name if count == 0 else self.unique_name(f"{name}_{count}")

    def where(self):
        """The path of the layer being traced, for messages."""
        return "/".join(self._scope) or "the model"

    # ---- the hook

    def symbolic_call(self, operation, args, kwargs):
        """Lower one call by its table entry; enter the `call` of what has none."""
        lowering = registry.find(operation)
        is_layer = isinstance(operation, keras.Layer)
        scoped = is_layer and operation is not self._root
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
        except Exception as error:  # a layer's own code may raise anything
            if not isinstance(error, SeqAttnError) and not hasattr(error, "_seqattn_located"):
                error._seqattn_located = True
                error.add_note(f"while tracing {self.where()} ({type(operation).__name__})")
            raise
        finally:
            self._operations.pop()
            if scoped:
                self._scope.pop()

    def _lower(self, lowering, operation, args, kwargs):
        result = lowering(self, operation, *args, **kwargs)
        self._track_number(operation, args, result)
        return result

    def _track_number(self, operation, args, result):
        """Follow arithmetic on sizes, so that `past + sequence` is known to be a size."""
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
            number = int(rule(*numbers))
            self._check_divided(operation, numbers, number)
            self.register_number(result, number)

    def _check_divided(self, operation, numbers, result):
        """A stand-in is large, but not endless: its parts must still count as dynamic."""
        divides = type(operation).__name__ == "FloorDivide" and not is_dynamic(numbers[1])
        if divides and is_dynamic(numbers[0]) and not is_dynamic(result):
            raise ExportError(
                f"{self.where()}: a dynamic size is divided by more than {2**25} in all, which "
                "cannot be traced; use smaller blocks or fewer levels"
            )

    def output_spec(self, operation, args, kwargs):
        """(sizes, dtype) of the result, as Keras infers them from the stand-in sizes."""
        plain = keras.tree.map_structure(_plain, (args, kwargs))
        spec = operation.compute_output_spec(*plain[0], **plain[1])
        return keras.tree.map_structure(lambda s: (tuple(s.shape), s.dtype), spec)

    def run(self, model, inputs):
        """The model's outputs for Symbols, in inference mode, with the hook in place."""
        self._root = model
        with keras_internals.intercept(self.symbolic_call, self._functions()):
            return model(inputs, training=False)

    def _functions(self):
        def shape(original):
            def traced(x):
                if not isinstance(x, Symbol):
                    return original(x)
                return tuple(self.size(x, axis) for axis in range(len(x.sizes)))

            return traced

        def filled(fill):
            def wrapper(original):
                signature = inspect.signature(original)

                def traced(*args, **kwargs):
                    given = signature.bind(*args, **kwargs).arguments
                    if not _has_symbol(given["shape"]):
                        return original(*args, **kwargs)
                    dtype = given.get("dtype") or keras.config.floatx()
                    content = given["fill_value"] if fill is None else fill
                    dtype = keras.backend.standardize_dtype(dtype)
                    return self.filled(given["shape"], content, dtype)

                return traced

            return wrapper

        def of_variable(original):
            # On a weight alone Keras computes at once, which would put a copy of it in the file.
            def traced(x, *args, **kwargs):
                if isinstance(x, keras.Variable):
                    x = self.symbol(x)
                return original(x, *args, **kwargs)

            return traced

        def broadcast_to(original):
            def traced(x, shape):
                if _has_symbol(shape) and not isinstance(x, Symbol):
                    x = self.symbol(x)
                return original(x, shape)

            return traced

        return {
            "shape": shape,
            "zeros": filled(0),
            "ones": filled(1),
            "full": filled(None),
            "transpose": of_variable,
            "reshape": of_variable,
            "convert_to_tensor": of_variable,
            "broadcast_to": broadcast_to,
        }

    def filled(self, shape, content, dtype):
        """A tensor of one repeated value; `shape` holds ints and scalar Symbols."""
        sizes = tuple(n.number if isinstance(n, Symbol) else n for n in shape)
        if any(n is None for n in sizes):
            raise ExportError(
                f"{self.where()}: a tensor whose size depends on values, not on shapes"
            )
        return self.emit(
            "Expand", [self.symbol(content, dtype), self.vector(shape)], sizes=sizes, dtype=dtype
        )


def _is_part(number, stand_in):
    """Whether a number is near a stand-in, a small multiple or a whole part of it."""
    number = abs(number)
    if number > stand_in / 2:
        return abs(number - round(number / stand_in) * stand_in) <= _NEAR
    parts = round(stand_in / number)
    return abs(number * parts - stand_in) <= _NEAR + 8 * parts


def _is_initializer(x):
    return isinstance(x, Symbol) and x.value.const_value is not None


def _read_variable(variable):
    return keras.ops.convert_to_numpy(variable.value)


def _attributes(attributes):
    return {k: v for k, v in (attributes or {}).items() if v is not None}


def _plain(x):
    """The KerasTensor that Keras's own shape inference sees for one argument."""
    if isinstance(x, Symbol):
        return keras.KerasTensor(x.sizes, x.dtype)
    return x


def _has_symbol(shape):
    return isinstance(shape, (tuple, list)) and any(isinstance(n, Symbol) for n in shape)


def _keras_dtype(dtype):
    return str(np.dtype(dtype)) if str(np.dtype(dtype)) in DTYPES else "float32"
