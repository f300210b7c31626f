import json
import math
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from keras_seqattn.errors import CheckpointError
from keras_seqattn.weights.safetensors import read_header, read_tensor, write_file

pytestmark = pytest.mark.backend_free


def _write(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def _entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_every_float_type_is_read_as_float32(tmp_path, dtype):
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(dtype)
    safetensors.numpy.save_file({"a": values}, tmp_path / "x.safetensors")
    assert read_header(tmp_path / "x.safetensors") == {"a": (3, 5)}
    read = read_tensor(tmp_path / "x.safetensors", "a")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values.astype(np.float32))


def test_written_files_are_what_the_safetensors_library_reads(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "b": rng.normal(size=(3, 5)),
        "a": rng.normal(size=(7,)),
        "scalar": rng.normal(size=()),
    }
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    shapes = {name: value.shape for name, value in tensors.items()}
    write_file(tmp_path / "x.safetensors", shapes, tensors.__getitem__)
    read = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    assert set(read) == set(tensors)
    for name, value in tensors.items():
        np.testing.assert_array_equal(read[name], value)


LYING_HEADERS = {
    "past the end": {"a": _entry([4], 0, 16), "b": _entry([4], 16, 32)},
    "too short for the data": {"a": _entry([2], 0, 8)},
    "a gap": {"a": _entry([2], 8, 16)},
    "an overlap": {"a": _entry([3], 0, 12), "b": _entry([2], 8, 16)},
    "shape against size": {"a": _entry([5], 0, 16)},
    "a negative size": {"a": _entry([-4], 0, 16)},
    "a fractional size": {"a": _entry([4.0], 0, 16)},
    "offsets reversed": {"a": _entry([4], 16, 0)},
    "three offsets": {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16]}},
    "an unknown type": {"a": _entry([4], 0, 16, "F4")},
    "no type": {"a": {"shape": [4], "data_offsets": [0, 16]}},
    "an entry that is no object": {"a": 7},
    "a shape that is no list": {"a": {"dtype": "F32", "shape": 4, "data_offsets": [0, 16]}},
    "a huge shape": {"a": _entry([2**62, 4], 0, 16)},
    "a header that is no object": [],
    "a header that is no JSON": b"{'a': ",
    "a header nested too deeply": b"[" * 100_000,
    "a type that is a list": {"a": _entry([4], 0, 16, ["F32"])},
    "a type that is null": {"a": _entry([4], 0, 16, None)},
    "a shape that is a text": {"a": _entry("4", 0, 16)},
    "a shape that is an object": {"a": _entry({"4": 4}, 0, 16)},
    "a flag as a size": {"a": _entry([True, 4], 0, 16)},
    "a null size": {"a": _entry([None], 0, 16)},
    "no number": {"a": _entry([math.nan], 0, 16)},
    "offsets of floats": {"a": _entry([4], 0.0, 16.0)},
    "offsets beyond the format": {"a": _entry([4], 2**63, 2**63 + 16)},
    "sizes of 4,000 digits": {"a": _entry([10**4000], 0, 16)},
    "100 dimensions": {"a": _entry([1] * 99 + [4], 0, 16)},
    "offsets that are an object": {"a": {"dtype": "F32", "shape": [4], "data_offsets": {"0": 16}}},
    "metadata that is a list": {"__metadata__": [], "a": _entry([4], 0, 16)},
    "metadata of numbers": {"__metadata__": {"x": 1}, "a": _entry([4], 0, 16)},
    "a name twice": b'{"a": {}, "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}',
    "a name that no file can hold": {"\ud800": _entry([4], 0, 16)},
    "a long name": {"x" * 10**5: _entry([5], 0, 16)},
    "50,001 tensors": {str(number): _entry([0], 0, 0) for number in range(50_001)},
}


@pytest.mark.parametrize("header", LYING_HEADERS.values(), ids=LYING_HEADERS.keys())
def test_a_header_that_lies_is_refused(tmp_path, header):
    path = _write(tmp_path / "x.safetensors", header, b"\0" * 16)
    with pytest.raises(CheckpointError, match="x.safetensors") as caught:
        read_header(path)
    assert len(str(caught.value)) < 500


def test_a_header_length_beyond_the_file_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    with pytest.raises(CheckpointError, match="claims 9223372036854775808 bytes"):
        read_header(tmp_path / "x.safetensors")


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = tmp_path / "whole.safetensors"
    safetensors.numpy.save_file({"a": np.ones((3, 5), np.float32)}, whole)
    content = whole.read_bytes()
    for size in range(len(content)):
        (tmp_path / "cut.safetensors").write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="cut.safetensors"):
            read_header(tmp_path / "cut.safetensors")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="gone.safetensors: cannot be read"):
        read_header(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint8, np.bool_])
def test_whole_numbers_are_no_weights(tmp_path, dtype):
    safetensors.numpy.save_file({"a": np.ones(3, dtype)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="'a' holds .*, where weights must be floats"):
        read_tensor(tmp_path / "x.safetensors", "a")


@pytest.mark.filterwarnings("error")
def test_what_float32_cannot_hold_becomes_infinite_without_a_warning(tmp_path):
    safetensors.numpy.save_file({"a": np.array([1e300, 1.0])}, tmp_path / "x.safetensors")
    assert read_tensor(tmp_path / "x.safetensors", "a").tolist() == [np.inf, 1.0]
