"""The safetensors format (github.com/huggingface/safetensors): checked reads, streamed writes."""

import json
import math
import os
import struct

import ml_dtypes  # noqa: F401  (teaches NumPy the name "bfloat16", which safetensors asks for)
import numpy as np
from safetensors import SafetensorError, safe_open

from keras_seqattn.errors import CheckpointError

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
# The format's own limit; a larger figure is a corrupt or hostile file.
_MAX_HEADER_BYTES = 100_000_000


def read_header(path):
    """Read and check the header of one safetensors file.

    Args:
        path: the file.

    Returns:
        dict of tensor name -> shape.

    Raises:
        CheckpointError: the file is missing or truncated, or its header and its size disagree.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _header_length(path, file.read(8), size)
            entries = json.loads(file.read(length).decode("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path}: the safetensors header is not valid JSON; the file is damaged."
        ) from error
    if not isinstance(entries, dict):
        raise CheckpointError(
            f"{path}: the safetensors header is not an object; the file is damaged."
        )
    entries.pop("__metadata__", None)
    _check_layout(path, entries, size - 8 - length)
    return {name: tuple(entry["shape"]) for name, entry in entries.items()}


def read_tensor(path, name):
    """Read one tensor of a file that `read_header` accepted.

    Args:
        path: the file.
        name: the tensor's name.

    Returns:
        float32 array.

    Raises:
        CheckpointError: the tensor cannot be read.
    """
    try:
        with safe_open(path, framework="np") as file:
            return file.get_tensor(name).astype(np.float32, copy=False)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: tensor {name!r} cannot be read ({error}).") from error


def write_file(path, shapes, read):
    """Write one float32 safetensors file, holding a single tensor in memory at a time.

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
    text += b" " * (-len(text) % 8)  # the data starts 8-aligned
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in shapes:
            np.ascontiguousarray(read(name), dtype="<f4").tofile(file)


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
    """The tensors must tile the data exactly: no gap, no overlap, nothing past the end."""
    spans = sorted(_span(path, name, entry) for name, entry in entries.items())
    position = 0
    for start, end, name in spans:
        if start != position:
            raise CheckpointError(
                f"{path}: the header puts tensor {name!r} at byte {start}, expected {position}."
            )
        position = end
    if position != data_bytes:
        raise CheckpointError(
            f"{path}: the header describes {position} bytes of weights and the file holds "
            f"{data_bytes}; "
            "it is truncated or damaged, fetch it again."
        )


def _span(path, name, entry):
    try:
        dtype, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        sizes = [*shape, start, end]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: the header entry of tensor {name!r} is malformed."
        ) from error
    if not all(type(size) is int and size >= 0 for size in sizes):
        raise CheckpointError(
            f"{path}: the header entry of tensor {name!r} has sizes that are not whole numbers."
        )
    if dtype not in _BYTES:
        raise CheckpointError(
            f"{path}: tensor {name!r} has type {dtype!r}, which is not implemented. Convert it to "
            f"one of {sorted(_BYTES)}."
        )
    if end - start != math.prod(shape) * _BYTES[dtype]:
        raise CheckpointError(
            f"{path}: tensor {name!r} of shape {shape} and type {dtype} does not fill the "
            f"{end - start} bytes given to it."
        )
    return start, end, name
