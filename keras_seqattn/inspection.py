"""What an exported model holds: inputs, outputs, operations, and where the bytes are."""

import collections
import dataclasses
import re
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from keras_seqattn.errors import BundleError

_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A named tensor of the graph; a dimension is an int, or the name of a dynamic one."""

    name: str
    dtype: str
    shape: tuple
    size: int | None = None

    def __str__(self):
        return f"{self.name}  {self.dtype} ({', '.join(map(str, self.shape))})"


@dataclasses.dataclass(frozen=True)
class Summary:
    """What `inspect` found; sizes are bytes, `operators` counts nodes by type.

    `str()` of it is the report that the command line prints.
    """

    path: Path
    metadata: dict
    opsets: dict
    inputs: tuple
    outputs: tuple
    operators: dict
    initializers: tuple
    files: dict

    def __str__(self):
        return "\n".join(_report(self))


def inspect(path):
    """Read the structure of a bundle folder or an .onnx file; its weights stay on the disk.

    Args:
        path: a bundle folder, or an ONNX file.

    Returns:
        Summary.

    Raises:
        BundleError: there is no such model, or it is not an ONNX file.
    """
    path = Path(path)
    file = path / "model.onnx" if path.is_dir() else path
    model = _read(file)
    graphs = [model.graph, *model.functions]
    nodes = [node for graph in graphs for node in _nodes(graph.node)]
    initializers = [_initializer(tensor) for tensor in model.graph.initializer]
    return Summary(
        path=path,
        metadata={entry.key: entry.value for entry in model.metadata_props},
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        inputs=tuple(_value(value) for value in model.graph.input),
        outputs=tuple(_value(value) for value in model.graph.output),
        operators=dict(collections.Counter(_operator(node) for node in nodes).most_common()),
        initializers=tuple(sorted(initializers, key=lambda tensor: -tensor.size)),
        files=_files(path, file, model.graph),
    )


def _read(file):
    if not file.is_file():
        raise BundleError(f"{file} does not exist: give a bundle folder or an .onnx file")
    try:
        model = onnx.load(file, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise BundleError(f"{file} is not an ONNX file, or it is cut short") from error
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


def _value(value):
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return Tensor(value.name, _dtype(tensor.elem_type), shape)


def _initializer(tensor):
    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    bits = _BITS.get(name)
    if bits is None:
        bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    count = 1
    for dim in tensor.dims:
        count *= dim
    return Tensor(tensor.name, name.lower(), tuple(tensor.dims), (count * bits + 7) // 8)


def _dtype(elem_type):
    return onnx.TensorProto.DataType.Name(elem_type).lower()


def _files(path, file, graph):
    if path.is_dir():
        found = [entry for entry in sorted(path.rglob("*")) if entry.is_file()]
        return {str(entry.relative_to(path)): entry.stat().st_size for entry in found}
    external = {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    found = [file, *(file.parent / name for name in sorted(external))]
    return {entry.name: entry.stat().st_size for entry in found if entry.is_file()}


def _report(summary):
    yield f"{summary.path}"
    yield from (f"  {key}: {value}" for key, value in summary.metadata.items())
    yield "  opsets: " + ", ".join(f"{name} {version}" for name, version in summary.opsets.items())
    for title, tensors in (("inputs", summary.inputs), ("outputs", summary.outputs)):
        yield f"{title} ({len(tensors)})"
        yield from (f"  {line}" for line in _collapsed(tensors))
    yield f"operators ({sum(summary.operators.values())})"
    yield from (f"  {count:6d}  {name}" for name, count in summary.operators.items())
    yield from _weights(summary.initializers)
    yield f"files ({_size(sum(summary.files.values()))})"
    yield from (f"  {_size(size):>9}  {name}" for name, size in summary.files.items())


def _weights(initializers, shown=12):
    total = sum(tensor.size for tensor in initializers)
    yield f"weights ({len(initializers)} tensors, {_size(total)})"
    counts, sizes = collections.Counter(), collections.Counter()
    for tensor in initializers:
        # The layers of a stack differ in their numbers only.
        alike = dataclasses.replace(tensor, name=re.sub(r"\d+", "*", tensor.name), size=None)
        counts[alike] += 1
        sizes[alike] += tensor.size
    for alike, size in sizes.most_common(shown):
        times = f" x {counts[alike]}" if counts[alike] > 1 else ""
        yield f"  {_size(size):>9}  {size / max(total, 1):4.0%}  {alike}{times}"
    rest = total - sum(size for _, size in sizes.most_common(shown))
    if rest:
        yield f"  {_size(rest):>9}  {rest / total:4.0%}  the others"


def _collapsed(tensors, shown=6):
    lines = [str(tensor) for tensor in tensors]
    if len(lines) <= shown + 2:
        return lines
    return [*lines[: shown - 1], f"... {len(lines) - shown} more", lines[-1]]


def _size(count):
    if count < 1000:
        return f"{count} B"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.2f} GB"
