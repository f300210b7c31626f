"""The content of an exported model: inputs, outputs, operations, and the size of its parts."""

import collections
import dataclasses
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from keras_seqattn import arguments
from keras_seqattn.errors import BundleError
from keras_seqattn.memory import size_text
from keras_seqattn.ports import METADATA, Port
from keras_seqattn.ports.names import without_numbers
from keras_seqattn.runtime.bundle import graph_names
from keras_seqattn.runtime.graph_ports import graph_ports

_BITS = {"int4": 4, "uint4": 4, "float4e2m1": 4, "int2": 2, "uint2": 2}
_PROTOBUF_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A named tensor of the graph. A dimension is an int, or the name of a dynamic dimension.

    `role` is the purpose of an input or output, one of `keras_seqattn.ports.ROLES`.
    """

    name: str
    dtype: str
    shape: tuple
    size: int | None = None
    role: str | None = None

    def __str__(self):
        text = f"{self.name}  {self.dtype} ({', '.join(map(str, self.shape))})"
        return text if self.role in (None, "data") else f"{text}  {self.role}"


@dataclasses.dataclass(frozen=True)
class Graph:
    """One ONNX file. Sizes are bytes. `operators` counts nodes by type, also inside loops."""

    file: str
    opsets: dict
    inputs: tuple
    outputs: tuple
    operators: dict
    initializers: tuple


@dataclasses.dataclass(frozen=True)
class Summary:
    """The result of `inspect`: the graphs (one, or encoder and decoder), and bytes of the files.

    `str()` of it is the report that the command line prints.
    """

    path: Path
    metadata: dict
    graphs: tuple
    files: dict

    @property
    def operators(self):
        """The number of nodes of each type in all graphs."""
        counts = collections.Counter()
        for graph in self.graphs:
            counts.update(graph.operators)
        return dict(counts.most_common())

    def __str__(self):
        return "\n".join(_report(self))


def inspect(path):
    """Read the structure of a bundle folder or an .onnx file. Its weights are not loaded.

    Args:
        path: a bundle folder, or an ONNX file.

    Returns:
        Summary.

    Raises:
        BundleError: there is no such model, or it is not an ONNX file.
    """
    path = arguments.path(path)
    names = [path / name for name in graph_names(path)] if path.is_dir() else [path]
    models = {file: _read(file) for file in names}
    first = next(iter(models.values()))
    return Summary(
        path=path,
        metadata={entry.key: entry.value for entry in first.metadata_props},
        graphs=tuple(_graph(file.name, model) for file, model in models.items()),
        files=_files(path, first.graph),
    )


def _graph(name, model):
    bodies = [model.graph, *model.functions]
    nodes = [node for body in bodies for node in _nodes(body.node)]
    initializers = [_initializer(tensor) for tensor in model.graph.initializer]
    inputs, outputs = _sides(model)
    return Graph(
        file=name,
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        inputs=inputs,
        outputs=outputs,
        operators=dict(collections.Counter(_operator(node) for node in nodes).most_common()),
        initializers=tuple(sorted(initializers, key=lambda tensor: -tensor.size)),
    )


def _read(file):
    if not file.is_file():
        raise BundleError(f"{file} does not exist: give a bundle folder or an .onnx file")
    size = file.stat().st_size
    if size > _PROTOBUF_BYTES:
        raise BundleError(f"{file} has {size} bytes, and an ONNX file at most {_PROTOBUF_BYTES}")
    try:
        model = onnx.load(file, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise BundleError(f"{file} is not an ONNX file, or it is cut short") from error
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}") from None
    if not model.graph.output:
        raise BundleError(f"{file} is not an ONNX file: it has no graph outputs")
    return model


def _nodes(nodes):
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from _nodes(graph.node)


def _operator(node):
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _sides(model):
    """The inputs and the outputs, with their roles."""
    sides = [[_value(value) for value in side] for side in (model.graph.input, model.graph.output)]
    known = [[Port(tensor.name or "?") for tensor in side] for side in sides]
    ports = graph_ports(*known, {entry.key: entry.value for entry in model.metadata_props})
    return tuple(
        tuple(dataclasses.replace(t, role=port.role) for t, port in zip(side, own, strict=True))
        for side, own in zip(sides, (ports.inputs, ports.outputs), strict=True)
    )


def _value(value):
    tensor = value.type.tensor_type
    kinds = (dim.WhichOneof("value") for dim in tensor.shape.dim)
    shape = tuple(getattr(d, k) if k else "?" for d, k in zip(tensor.shape.dim, kinds, strict=True))
    return Tensor(value.name, _dtype(tensor.elem_type), shape)


def _initializer(tensor):
    name = _dtype(tensor.data_type)
    bits = _BITS.get(name)
    if bits is None:
        try:
            bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        except (KeyError, ValueError):
            raise BundleError(f"{tensor.name} is of a type that ONNX does not know") from None
    count = 1
    for dim in tensor.dims:
        count *= dim
    return Tensor(tensor.name, name, tuple(tensor.dims), (count * bits + 7) // 8)


def _dtype(elem_type):
    try:
        return onnx.TensorProto.DataType.Name(elem_type).lower()
    except ValueError:
        return f"type {elem_type}"


def _files(path, graph):
    if path.is_dir():
        found = [entry for entry in sorted(path.rglob("*")) if entry.is_file()]
        return {str(entry.relative_to(path)): entry.stat().st_size for entry in found}
    external = {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    found = [path, *(path.parent / name for name in sorted(external))]
    return {entry.name: entry.stat().st_size for entry in found if entry.is_file()}


def _report(summary):
    yield f"{summary.path}"
    # The ports are printed with each input and output, so their metadata are left out.
    known = {key: value for key, value in summary.metadata.items() if key != METADATA}
    yield from (f"  {key}: {value}" for key, value in known.items())
    for graph in summary.graphs:
        if len(summary.graphs) > 1:
            yield graph.file
        yield from _graph_report(graph)
    yield f"files ({size_text(sum(summary.files.values()))})"
    yield from (f"  {size_text(size):>9}  {name}" for name, size in summary.files.items())


def _graph_report(graph):
    yield "  opsets: " + ", ".join(f"{name} {version}" for name, version in graph.opsets.items())
    for title, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        yield f"{title} ({len(tensors)})"
        yield from (f"  {line}" for line in _collapsed(tensors))
    yield f"operators ({sum(graph.operators.values())})"
    yield from (f"  {count:6d}  {name}" for name, count in graph.operators.items())
    yield from _weights(graph.initializers)


def _weights(initializers, shown=12):
    total = sum(tensor.size for tensor in initializers)
    yield f"weights ({len(initializers)} tensors, {size_text(total)})"
    counts, sizes = collections.Counter(), collections.Counter()
    for tensor in initializers:
        # The names of the layers of a stack differ only in their numbers.
        alike = dataclasses.replace(tensor, name=without_numbers(tensor.name), size=None)
        counts[alike] += 1
        sizes[alike] += tensor.size
    for alike, size in sizes.most_common(shown):
        times = f" x {counts[alike]}" if counts[alike] > 1 else ""
        yield f"  {size_text(size):>9}  {size / max(total, 1):4.0%}  {alike}{times}"
    rest = total - sum(size for _, size in sizes.most_common(shown))
    if rest:
        yield f"  {size_text(rest):>9}  {rest / total:4.0%}  the others"


def _collapsed(tensors, shown=6):
    lines = [str(tensor) for tensor in tensors]
    if len(lines) <= shown + 2:
        return lines
    return [*lines[: shown - 1], f"... {len(lines) - shown} more", lines[-1]]
