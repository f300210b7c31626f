"""One ONNX graph while it is built: its inputs and sizes, constants and weights, nodes.

Sizes: every dynamic dimension is a `sizes.Size`, and shapes are inferred with integer arithmetic.
So a dynamic size can be recognised everywhere: `past + sequence` is the sum of two dimensions, and
a number of blocks is a dimension divided by a number. So a reshape needs no chain of Shape nodes.

Integers are int64 in the whole graph, whatever type Keras has. With one type, there are no casts.
`emit` adds two where a result may leave its type, so that it wraps as in Keras; see `bounds`.
"""

import hashlib

import keras
import numpy as np
import onnx_ir as ir

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import bounds
from keras_seqattn.onnx import sizes as dynamic
from keras_seqattn.onnx.bodies import Bodies
from keras_seqattn.onnx.sizes import is_dynamic
from keras_seqattn.onnx.symbol import BOUNDARY_DTYPES, DTYPES, Symbol, lazy_initializer
from keras_seqattn.onnx.wrapped_integers import WrappedIntegers


class GraphBuilder(Bodies, WrappedIntegers):
    """Builds one ONNX graph. The lowerings call `emit`, `constant` and `size`."""

    def __init__(self, target):
        self.target = target
        # What is called here adds nothing to the paths of layers.
        self._roots = []
        self.graph = ir.Graph((), (), nodes=(), name="keras_seqattn")
        # Where new nodes are added: the graph, or the body of a loop inside it.
        self._block = self.graph
        self._names = {}
        # The names of the outputs of nodes with several. No later node may have one of them.
        self._parts = set()
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
        """The Size of the named dimension. `a+b` is the sum of two dimensions."""
        if "+" in name:
            return sum(self.dimension(part) for part in name.split("+"))
        if name not in self._dimension_names:
            index = len(self._dimension_names)
            if index == dynamic.MOST_DIMENSIONS:
                raise ExportError(f"more than {index} dynamic dimensions in the inputs")
            self._dimension_names[name] = dynamic.dimension(index)
        return self._dimension_names[name]

    @property
    def dimension_names(self):
        """tuple of the names of dynamic dimensions."""
        return tuple(self._dimension_names)

    def label(self, name, label):
        """Give the size of a named dimension, or of a sum, another name in the file."""
        self._size_labels[self.dimension(name)] = label

    def add_input(self, name, dimensions, dtype, label=None, file_dtype=None, limits=None):
        """Declare a graph input.

        Args:
            name: the name in the file.
            dimensions: ints and names of dimensions.
            dtype: the type in Keras.
            label: dict that renames dimensions in the file.
            file_dtype: the type of its values in the file. None: int64 for integers, and the type
                of Keras for others.
            limits: None, or (least, greatest) of valid integers. None for one: that of the type.

        Returns:
            Symbol of its values, with the type that the graph computes with.
        """
        sizes = [self.dimension(d) if isinstance(d, str) else d for d in dimensions]
        labels = [(label or {}).get(d, d) for d in dimensions]
        given = DTYPES[dtype] if file_dtype is None else BOUNDARY_DTYPES[file_dtype]
        value = ir.Value(name=name, shape=ir.Shape(labels), type=ir.TensorType(given))
        self._names[name] = 1
        self.graph.inputs.append(value)
        symbol = Symbol(value, sizes, dtype, bounds=bounds.between(limits, dtype))
        for axis, size in enumerate(sizes):
            if is_dynamic(size) and size not in self._sizes:
                self._sizes[size] = (symbol, axis)
                self._size_labels[size] = labels[axis]
        if given != DTYPES[dtype]:
            to = {"to": int(DTYPES[dtype])}
            return self.emit("Cast", [symbol], to, sizes=sizes, dtype=dtype)
        return symbol

    def add_output(self, name, symbol, file_dtype=None):
        """Declare a graph output. For `file_dtype`, see `add_input`."""
        given = DTYPES[symbol.dtype] if file_dtype is None else BOUNDARY_DTYPES[file_dtype]
        sizes, dtype = symbol.sizes, symbol.dtype
        value = symbol.value
        if _is_wrapped(value, given):
            value = value.producer().inputs[0]
        elif given != DTYPES[dtype]:
            value = self.emit("Cast", [symbol], {"to": int(given)}, sizes=sizes, dtype=dtype).value
            value.type = ir.TensorType(given)
        elif value.producer() is None or value.is_graph_output():
            value = self.emit("Identity", [symbol], sizes=sizes, dtype=dtype).value
        value.name = name
        self.graph.outputs.append(value)

    def size(self, symbol, axis):
        """The size of an axis: an int if it is static, else a scalar Symbol."""
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

    def numbers(self, shape, what):
        """The sizes in a shape or a range, as ints.

        Args:
            shape: ints, scalar Symbols and None. None stays None. An integer that was not computed
                from sizes becomes a Size that equals no other one.
            what: str, the purpose of the numbers, for the message.

        Raises:
            ExportError: a number is no whole number.
        """
        for n in shape:
            if isinstance(n, Symbol) and n.number is None:
                if n.sizes or "int" not in n.dtype:
                    raise ExportError(
                        f"{self.where()}: {what} is a {n.dtype} of shape {n.shape}; give a whole "
                        "number, for example ops.cast(n, 'int32')"
                    )
                n.number = dynamic.unknown()
            if isinstance(n, Symbol):
                self.register_number(n, n.number)
        return [n.number if isinstance(n, Symbol) else n for n in shape]

    def scalar(self, number):
        """The Symbol of a registered dynamic size, or None."""
        known = self._sizes.get(number)
        if known is None or isinstance(known, Symbol):
            return known
        return self.size(*known)

    def _known_scalar(self, number):
        scalar = self.scalar(number)
        if scalar is None:
            raise ExportError(
                f"{self.where()}: {self._operations[-1]} needs a length that is known only at run "
                "time, and no tensor here has it; take it from ops.shape(x)"
            )
        return scalar

    def register_number(self, symbol, number):
        """Note that an integer scalar is a size, because it is computed from sizes."""
        symbol.number = number
        if is_dynamic(number):
            self._sizes.setdefault(number, symbol)

    # ---- constants and weights

    def constant(self, array, dtype=None):
        """The Symbol of an initializer for an array. Equal arrays share one initializer."""
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
            number = int(array) if array.dtype.kind == "i" and not array.shape else None
            dtype, known = _keras_dtype(array.dtype), bounds.of_array(array)
            self._initializers[key] = Symbol(value, array.shape, dtype, number, bounds=known)
        return self._initializers[key]

    def _check_no_stand_in(self, array):
        """Refuse a stand-in in a constant: in the file, it would be a size that no input has.

        Raises:
            ExportError: the array holds few numbers, and some are stand-ins or parts of them.
        """
        if dynamic.leaks(array, {*self._dimension_names.values(), *self._sizes}):
            raise ExportError(
                f"{self.where()}: {self._operations[-1]} would fix a length that is known only "
                "at run time; take it from ops.shape(x), or give the input a fixed length"
            )

    def variable(self, variable, dtype=None):
        """The initializer of a Keras variable, named by its path. It is read when it is written."""
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
        """A Symbol for a value that keras.ops accept: variable, array, backend tensor, number."""
        if isinstance(x, Symbol):
            return x
        if isinstance(x, keras.KerasTensor):
            raise ExportError(
                f"{self.where()}: a symbolic tensor from outside the model was used: {x}"
            )
        if isinstance(x, keras.Variable):
            return self.variable(x, x.dtype if dtype is None or "int" in dtype else dtype)
        if is_dynamic(x):
            return self._known_scalar(x)
        if isinstance(x, (list, tuple)) and any(isinstance(n, Symbol) or is_dynamic(n) for n in x):
            return self.vector(x)
        if isinstance(x, (bool, int, float, list, tuple, np.ndarray, np.generic)):
            return self.constant(np.asarray(x), dtype)
        return self.constant(keras.ops.convert_to_numpy(x), dtype)

    def tensor(self, x):
        """A Symbol as `symbol` gives it, in the dtype that Keras gives the value."""
        if isinstance(x, (Symbol, keras.Variable)):
            return self.symbol(x)
        if is_dynamic(x):
            return self._known_scalar(x)
        x = keras.ops.convert_to_tensor(x)
        dtype = keras.backend.standardize_dtype(x.dtype)
        return self.symbol(x, dtype if "float" in dtype else None).view(dtype)

    def vector(self, numbers):
        """A 1-D int64 Symbol from ints, Sizes and scalar Symbols."""
        numbers = [self._known_scalar(n) if is_dynamic(n) else _plain(n) for n in numbers]
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
        """Add a node. `sizes` and `dtype` describe one output; `outputs` [(sizes, dtype), ...]
        describes several.

        Returns a Symbol, or a list of them if `outputs` was given.
        """
        specs = [(sizes, dtype)] if outputs is None else outputs
        self._import(domain, op_type)
        name = self.unique_name("/".join([*self._scope, op_type]))
        while len(specs) == 1 and name in self._parts:
            name = self.unique_name("/".join([*self._scope, op_type]))
        names = [name] if len(specs) == 1 else [f"{name}_{i}" for i in range(len(specs))]
        if len(names) > 1:
            self._parts.update(names)
        values = [self._new_value(n, spec) for n, spec in zip(names, specs, strict=True)]
        operands = [None if x is None else x.value for x in inputs]
        while operands and operands[-1] is None:
            operands.pop()
        self._block.append(
            ir.node(
                op_type, operands, _attributes(attributes), domain=domain, outputs=values, name=name
            )
        )
        symbols = [
            None if s is None else self._bounded(Symbol(v, s, d), i, op_type, inputs, attributes)
            for i, (v, (s, d)) in enumerate(zip(values, specs, strict=True))
        ]
        return symbols[0] if outputs is None else symbols

    def _import(self, domain, op_type):
        """Declare that the file has operators of a domain.

        Raises:
            ExportError: the target has no operator of the domain of onnxruntime.
        """
        if domain == "com.microsoft" and not self.target.contrib:
            raise ExportError(
                f"{self.where()}: {op_type} is an operator of onnxruntime, and the target "
                f"{self.target.name} has none of these"
            )
        if domain not in self.target.opset_imports:
            self.graph.opset_imports.setdefault(domain, 1)

    def once(self, key, build):
        """The result of `build()`, called only once for a key. All layers share the Symbol."""
        if key not in self._memo:
            scope, self._scope = self._scope, []
            try:
                self._memo[key] = build()
            finally:
                self._scope = scope
        return self._memo[key]

    def _new_value(self, name, spec):
        sizes, dtype = spec
        if sizes is None:
            return ir.Value(name="")
        names = self._size_labels
        shape = ir.Shape([names.get(n) if is_dynamic(n) else int(n) for n in sizes])
        return ir.Value(name=name, shape=shape, type=ir.TensorType(DTYPES[dtype]))

    def unique_name(self, name):
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return name if count == 0 else self.unique_name(f"{name}_{count}")

    def where(self):
        """The path of the layer being traced, for messages."""
        return "/".join(self._scope) or "the model"

    def filled(self, shape, content, dtype):
        """A tensor with one repeated value. `shape` holds ints and scalar Symbols."""
        sizes = self.numbers(shape, "the size of a tensor")
        return self.emit(
            "Expand", [self.symbol(content, dtype), self.vector(shape)], sizes=sizes, dtype=dtype
        )


def _plain(n):
    """A number as a plain int, if a Symbol is known to be one."""
    known = isinstance(n, Symbol) and isinstance(n.number, int) and not is_dynamic(n.number)
    return n.number if known else n


def _is_wrapped(value, kind):
    """Whether a value is the result of `wrapped` for a type, so that its input will do."""
    node = value.producer()
    if node is None or node.op_type != "Cast":
        return False
    narrow = node.inputs[0]
    return narrow.dtype == kind and narrow.producer() is not None and not narrow.is_graph_output()


def _read_variable(variable):
    return keras.ops.convert_to_numpy(variable.value)


def _attributes(attributes):
    """The attributes that are not None. Lists of ints are typed, because finding it is slow."""
    given = {k: v for k, v in (attributes or {}).items() if v is not None}
    lists = {k: ir.AttrInt64s(k, v) for k, v in given.items() if _is_list_of_ints(v)}
    return given | lists


def _is_list_of_ints(x):
    return isinstance(x, (list, tuple)) and all(type(n) is int for n in x)


def _keras_dtype(dtype):
    return str(np.dtype(dtype)) if str(np.dtype(dtype)) in DTYPES else "float32"
