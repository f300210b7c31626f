"""The GGUF container (github.com/ggml-org/ggml, docs/gguf.md), read with every length checked.

The reader of the gguf package trusts the lengths in the file, so a damaged file can make it loop
for ever. Here, a length that does not fit into the file is refused. The gguf package decodes the
quantised blocks.
"""

import dataclasses
import itertools
import math
import os
import struct

import numpy as np

from keras_seqattn.arguments import shown
from keras_seqattn.errors import CheckpointError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
# An entry has at least a name length, a type and a value, so a file cannot hold more entries than
# its size divided by this.
_MIN_ENTRY_BYTES = 12
# The longest texts are chat templates with about 10 kB.
_MAX_TEXT_BYTES = 16 << 20
# The largest vocabularies have about 300,000 tokens and twice as many merges.
_MAX_ITEMS = 1 << 20
_MAX_ENTRIES = 50_000


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """The place of a tensor: row-major `shape`, GGML `kind`, `offset` and `size` in bytes."""

    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int


@dataclasses.dataclass(frozen=True)
class GGUFFile:
    """The metadata and the tensor directory of a GGUF file; `read` decodes one tensor.

    Attributes:
        path: the file.
        metadata: key -> int, float, bool, str, or a list of these.
        tensors: tensor name -> `StoredTensor`.
    """

    path: object
    metadata: dict
    tensors: dict[str, StoredTensor]

    def read(self, name):
        """Decode one tensor.

        Args:
            name: the name of the tensor in the file.

        Returns:
            float32 array.

        Raises:
            CheckpointError: the quantisation is not implemented.
        """
        gguf = _library()
        tensor = self.tensors[name]
        data = np.fromfile(self.path, dtype=np.uint8, count=tensor.size, offset=tensor.offset)
        if data.size != tensor.size:
            raise CheckpointError(f"{self.path}: tensor {shown(name)} ends beyond the file.")
        rows = data.reshape(*tensor.shape[:-1], -1)
        kind = gguf.GGMLQuantizationType(tensor.kind)
        try:
            with np.errstate(all="ignore"):  # damaged blocks give NaN, which is refused
                values = gguf.quants.dequantize(rows, kind)
        except NotImplementedError as error:
            raise CheckpointError(
                f"{self.path}: tensor {shown(name)} is stored as {kind.name}, which is not "
                "implemented."
            ) from error
        return np.asarray(values, dtype=np.float32).reshape(tensor.shape)


def open_gguf_file(path):
    """Read the metadata and the tensor directory of a GGUF file.

    Args:
        path: the file.

    Returns:
        A `GGUFFile`.

    Raises:
        CheckpointError: the file is truncated or inconsistent, or the gguf package is not
            installed.
    """
    library = _library()
    try:
        with open(path, "rb") as file:
            metadata, tensors = _Parser(file, path).parse(library.GGML_QUANT_SIZES)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    return GGUFFile(path, metadata, tensors)


def _library():
    try:
        import gguf
    except ImportError as error:
        raise CheckpointError(
            'Reading .gguf files needs the gguf package: pip install "keras-seqattn[gguf]".'
        ) from error
    return gguf


class _Parser:
    def __init__(self, file, path):
        self._file = file
        self._path = path
        self._size = os.fstat(file.fileno()).st_size

    def parse(self, block_sizes):
        if self._bytes(4, "the magic number") != _MAGIC:
            self._fail("is not a GGUF file (wrong magic number)")
        version = self._scalar(4, "the version")
        if version not in _VERSIONS:
            self._fail(f"is GGUF version {version}; versions {_VERSIONS} are read, little-endian")
        tensor_count = self._count("tensors")
        entry_count = self._count("metadata entries")
        metadata = {}
        for _ in range(entry_count):
            key = self._string("a metadata key")
            if key in metadata:
                self._fail(f"gives {shown(key)} twice")
            metadata[key] = self._value(self._scalar(4, f"the type of {shown(key)}"), shown(key))
        tensors = [self._tensor(block_sizes) for _ in range(tensor_count)]
        return metadata, self._place(tensors, metadata.get("general.alignment", 32))

    def _fail(self, problem):
        raise CheckpointError(f"{self._path}: {problem}.")

    def _bytes(self, size, what):
        if size > self._size - self._file.tell():
            self._fail(f"ends inside {what}: it is truncated or damaged, fetch it again")
        return self._file.read(size)

    def _scalar(self, kind, what):
        code = "<" + _SCALARS[kind]
        return struct.unpack(code, self._bytes(struct.calcsize(code), what))[0]

    def _count(self, what):
        count = self._scalar(10, f"the number of {what}")
        if count > _MAX_ENTRIES:
            self._fail(f"claims {count} {what}; up to {_MAX_ENTRIES} are read")
        if count * _MIN_ENTRY_BYTES > self._size:
            self._fail(f"claims {count} {what}, more than its {self._size} bytes can hold")
        return count

    def _string(self, what):
        size = self._scalar(10, what)
        if size > _MAX_TEXT_BYTES:
            self._fail(
                f"claims a text of {size} bytes in {what}: at most {_MAX_TEXT_BYTES} are read"
            )
        data = self._bytes(size, what)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            self._fail(f"holds text that is not UTF-8 in {what}")

    def _value(self, kind, key):
        """A value of the metadata; `key` is for messages."""
        if kind in _SCALARS:
            return self._scalar(kind, key)
        if kind == _STRING:
            return self._string(key)
        if kind != _ARRAY:
            self._fail(f"gives {key} the unknown type {kind}")
        item = self._scalar(4, key)
        count = self._scalar(10, key)
        if count > _MAX_ITEMS:
            self._fail(f"claims {count} values in {key}; up to {_MAX_ITEMS} are read")
        if item in _SCALARS:
            dtype = np.dtype("<" + _SCALARS[item] if _SCALARS[item] != "?" else "?")
            return np.frombuffer(self._bytes(count * dtype.itemsize, key), dtype).tolist()
        if item != _STRING:
            self._fail(f"gives {key} an array of the unknown type {item}")
        if count * 8 > self._size:
            self._fail(
                f"claims {count} strings in {key}, more than its {self._size} bytes can hold"
            )
        return [self._string(key) for _ in range(count)]

    def _tensor(self, block_sizes):
        """One entry of the directory: name and `StoredTensor`, its offset relative to the data."""
        name = self._string("a tensor name")
        what = f"tensor {shown(name)}"
        dimensions = self._scalar(4, what)
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            self._fail(f"gives {what} {dimensions} dimensions")
        shape = tuple(reversed([self._scalar(10, what) for _ in range(dimensions)]))
        if min(shape) < 1:
            self._fail(f"gives {what} the shape {shape}, which holds nothing")
        kind = self._scalar(4, what)
        if kind not in block_sizes:
            self._fail(f"gives {what} the unknown type {kind}")
        block, block_bytes = block_sizes[kind]
        if shape[-1] % block:
            self._fail(
                f"gives {what} rows of {shape[-1]} values, not a multiple of the block {block}"
            )
        size = math.prod(shape) // block * block_bytes
        return name, StoredTensor(shape, kind, self._scalar(10, what), size)

    def _place(self, tensors, alignment):
        """Make the offsets absolute. Check that tensors lie in the file and do not overlap."""
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            self._fail(f"has the alignment {shown(alignment)}, which is not a power of two")
        start = -(-self._file.tell() // alignment) * alignment
        placed = {}
        for name, tensor in tensors:
            offset = start + tensor.offset
            if name in placed:
                self._fail(f"lists tensor {shown(name)} twice")
            if offset + tensor.size > self._size:
                self._fail(
                    f"puts tensor {shown(name)} beyond its end: it is truncated or damaged, fetch "
                    "it again"
                )
            placed[name] = dataclasses.replace(tensor, offset=offset)
        in_order = sorted(placed.items(), key=lambda item: item[1].offset)
        for (first, tensor), (second, after) in itertools.pairwise(in_order):
            if tensor.offset + tensor.size > after.offset:
                self._fail(f"lets tensors {shown(first)} and {shown(second)} overlap")
        return placed
