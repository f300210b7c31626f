"""The safetensors format (github.com/huggingface/safetensors): checked reads, streamed writes."""

import json
import math
import os
import struct

import ml_dtypes  # noqa: F401  (teaches NumPy the name "bfloat16", which safetensors asks for)
import numpy as np
from safetensors import safe_open

from keras_seqattn.arguments import shown
from keras_seqattn.errors import CheckpointError
from keras_seqattn.json_objects import parse_object

_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}
# A model with a thousand layers has about 20,000 tensors and a header of a few MB. A file with more
# is damaged or hostile, and reading it would take long.
MAX_TENSORS = 50_000
_MAX_HEADER_BYTES = 25_000_000
_MAX_DIMENSIONS = 8


def read_header(path):
    """The first result of `read_names`, the shapes."""
    return read_names(path)[0]


def read_names(path):
    """Read and check the header of one safetensors file.

    Args:
        path: the file.

    Returns:
        dict of tensor name -> shape; and dict of other names -> tensor name, which programs that
        write tied weights put into the metadata.

    Raises:
        CheckpointError: the file is missing or truncated, or its header and its size disagree.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _header_length(path, file.read(8), size)
            header = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    entries = parse_object(header, f"{path}: the safetensors header", CheckpointError)
    metadata = entries.pop("__metadata__", {})
    _check_metadata(path, metadata)
    if len(entries) > MAX_TENSORS:
        raise CheckpointError(
            f"{path}: names {len(entries)} tensors; up to {MAX_TENSORS} are read."
        )
    _check_layout(path, entries, size - 8 - length)
    shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
    names = {name: kept for name, kept in metadata.items() if kept in shapes}
    return shapes, {name: kept for name, kept in names.items() if name not in shapes}


def read_tensor(path, name):
    """Read one tensor of a file that `read_header` accepted.

    Args:
        path: the file.
        name: the name of the tensor.

    Returns:
        float32 array.

    Raises:
        CheckpointError: the tensor cannot be read, or holds whole numbers.
    """
    try:
        with safe_open(path, framework="np") as file:
            value = file.get_tensor(name)
    except Exception as error:  # the library is written in Rust and may raise any error
        raise CheckpointError(
            f"{path}: tensor {shown(name)} cannot be read ({shown(error)})."
        ) from error
    if value.dtype.kind in "iub":
        raise CheckpointError(
            f"{path}: tensor {shown(name)} holds {value.dtype}, where weights must be floats. "
            "Quantised weights are not read; take the checkpoint that they were made of."
        )
    with np.errstate(over="ignore"):  # too large numbers become infinite and are refused
        return value.astype(np.float32, copy=False)


def write_file(path, shapes, read):
    """Write one float32 safetensors file, with one tensor in memory at a time.

    Args:
        path: the file to write.
        shapes: dict of tensor name -> shape, in the order of the file.
        read: function from a name to its float32 array.
    """
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)  # the data is aligned to 8 bytes
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in shapes:
            np.ascontiguousarray(read(name), dtype="<f4").tofile(file)


def _check_metadata(path, metadata):
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{path}: the header's __metadata__ does not map names to texts.")


def _header_length(path, prefix, size):
    if len(prefix) < 8:
        raise CheckpointError(
            f"{path}: {size} bytes are too few for a safetensors file; it is truncated."
        )
    (length,) = struct.unpack("<Q", prefix)
    if length > min(_MAX_HEADER_BYTES, size - 8):
        raise CheckpointError(
            f"{path}: the header claims {length} bytes and the file has {size}; it is truncated "
            f"or not safetensors."
        )
    return length


def _check_layout(path, entries, data_bytes):
    """Check that the tensors fill the data exactly: no gap, no overlap, nothing after the end."""
    spans = sorted(_span(path, name, entry) for name, entry in entries.items())
    position = 0
    for start, end, name in spans:
        if start != position:
            raise CheckpointError(
                f"{path}: the header puts tensor {shown(name)} at byte {start}, expected "
                f"{position}."
            )
        position = end
    if position != data_bytes:
        raise CheckpointError(
            f"{path}: the header describes {position} bytes of weights and the file holds "
            f"{data_bytes}; "
            "it is truncated or damaged, fetch it again."
        )


def _span(path, name, entry):
    if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{path}: the header entry of tensor {shown(name)} is malformed.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    is_sized = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
    if not is_sized or len(shape) > _MAX_DIMENSIONS or not all(map(_is_size, shape + offsets)):
        raise CheckpointError(
            f"{path}: the header entry of tensor {shown(name)} has sizes that are not whole "
            f"numbers, or not {_MAX_DIMENSIONS} at most."
        )
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} has type {shown(dtype)}, which is not implemented. "
            f"Convert it to one of {sorted(_BYTES)}."
        )
    start, end = offsets
    if end - start != math.prod(shape) * _BYTES[dtype]:
        raise CheckpointError(
            f"{path}: tensor {shown(name)} of shape {shown(shape)} and type {dtype} does not fill "
            f"the {end - start} bytes given to it."
        )
    return start, end, name


def _is_size(value):
    return type(value) is int and 0 <= value < 2**63
