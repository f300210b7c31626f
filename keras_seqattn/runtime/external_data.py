"""Finds the files with the weights of an ONNX model, without the onnx package.

It also refuses nodes that would crash the process when onnxruntime runs them.

A protobuf message is a sequence of fields. Each field has a key (number << 3 | wire type) and a
value. The numbers below are those of the published onnx.proto.
"""

import itertools
import mmap
import os

from keras_seqattn.errors import BundleError

# Message -> the fields that lead to tensors: number -> message.
_GRAPH, _NODE, _ATTRIBUTE, _SPARSE, _TENSOR, _FUNCTION = range(6)
_MODEL_FIELDS = {7: _GRAPH, 25: _FUNCTION}
_FIELDS = {
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _FUNCTION: {7: _NODE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
}
_EXTERNAL_DATA = 13
_NODE_INPUT, _NODE_OPERATOR = 1, 4
# onnxruntime reads every input of these operators and does not check that it exists.
_ALL_INPUTS_NEEDED = frozenset({b"Sum", b"Max", b"Min", b"Mean", b"Einsum", b"LayerNormalization"})
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# A graph of ten thousand nodes has some hundred thousand fields. To read a million fields takes a
# few seconds.
_MOST_FIELDS = 1_000_000


def external_files(path):
    """dict of location -> number of bytes that the model needs there, for all external tensors.

    Args:
        path: the ONNX file.

    Raises:
        BundleError: the file is not an ONNX model, is cut off, or has a node that lacks an input.
    """
    try:
        if os.path.getsize(path) == 0:
            raise BundleError("the file is empty")
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _sizes(data)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    except _TooMany:
        raise BundleError(
            f"{path} has more than {_MOST_FIELDS} fields: it is not a model"
        ) from None
    except (ValueError, IndexError, KeyError):
        raise BundleError(f"{path} is not a complete ONNX file") from None


class _TooMany(Exception):
    pass


def _sizes(data):
    sizes = {}
    for entries in _external_tensors(data):
        offset, length = (int(entries.get(name, 0)) for name in ("offset", "length"))
        if offset < 0 or length < 0:
            raise ValueError("no place in a file")
        location = entries["location"]
        sizes[location] = max(sizes.get(location, 0), offset + length)
    return sizes


def _external_tensors(data):
    """Yield the external_data entries, dict of str, of every tensor that has such entries."""
    pending, counter = [(_MODEL_FIELDS, 0, len(data))], itertools.count()
    while pending:
        fields, start, end = pending.pop()
        if fields is _FIELDS[_NODE]:
            _check_node(data, start, end)
        for number, begin, stop in _submessages(data, start, end, counter):
            message = fields.get(number)
            if message == _TENSOR:
                entries = dict(_entries(data, begin, stop, counter))
                if entries:
                    yield entries
            elif message is not None:
                pending.append((_FIELDS[message], begin, stop))


def _check_node(data, start, end):
    """Raises:
    BundleError: an input has no name, but the operator needs it.
    """
    operator, is_complete = b"", True
    for number, begin, stop in _submessages(data, start, end, itertools.count()):
        if number == _NODE_OPERATOR:
            operator = bytes(data[begin:stop])
        elif number == _NODE_INPUT and begin == stop:
            is_complete = False
    if not is_complete and operator in _ALL_INPUTS_NEEDED:
        raise BundleError(f"a node {operator.decode()} lacks an input")


def _entries(data, start, end, counter):
    for number, begin, stop in _submessages(data, start, end, counter):
        if number == _EXTERNAL_DATA:
            fields = _submessages(data, begin, stop, counter)
            texts = {n: data[b:e].decode("utf-8") for n, b, e in fields}
            yield texts[_KEY], texts[_VALUE]


def _submessages(data, position, end, counter):
    """Yield (field number, start, end) of each length-delimited field. Skip the others."""
    while position < end:
        if next(counter) >= _MOST_FIELDS:
            raise _TooMany
        key, position = _varint(data, position)
        wire = key & 7
        if wire == _BYTES:
            size, position = _varint(data, position)
            yield key >> 3, position, position + size
            position += size
        elif wire == _VARINT:
            _, position = _varint(data, position)
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError("not protobuf")
    if position != end:
        raise ValueError("cut off")


def _varint(data, position):
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("not protobuf")
