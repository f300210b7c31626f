"""Fourier transforms, long ones and short-time ones, against Keras."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from tests.onnx.checked import check_cases


def _noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _pair(*shape):
    return _noise(*shape), _noise(*shape, seed=1)


def _of_pair(function, *arguments):
    return lambda real, imag: function((real, imag), *arguments)


INVERSE = {
    "whole": _of_pair(ops.irfft),
    "cut": _of_pair(ops.irfft, 9),
    "filled": _of_pair(ops.irfft, 40),
}
REAL = {
    "whole": lambda x, *_: ops.rfft(x),
    "cut": lambda x, *_: ops.rfft(x, 9),
    "filled": lambda x, *_: ops.rfft(x, 40),
}


def test_transforms():
    cases = {"fft": _of_pair(ops.fft)}
    cases |= {f"i_{n}": f for n, f in INVERSE.items()} | {f"r_{n}": f for n, f in REAL.items()}
    check_cases(cases, _pair(2, 3, 21), _pair(1, 5, 21))
    both = {"fft2": _of_pair(ops.fft2), "ifft2": _of_pair(ops.ifft2)}
    check_cases(both, _pair(2, 6, 7), _pair(1, 6, 7), fixed=(-1, -2))
    check_cases({"one": lambda x: ops.rfft(x)}, (_noise(21),))


def test_transforms_of_dynamic_lengths():
    # The operator of onnxruntime is less exact than a matrix.
    check_cases(REAL, (_noise(2, 21),), (_noise(1, 8),), fixed=(), atol=3e-5)
    check_cases(INVERSE, _pair(2, 21), _pair(1, 6), fixed=(), atol=3e-5)


@pytest.mark.parametrize("n", [1025, 2048, 2060])
def test_long_transforms(n):
    cases = {"fft": _of_pair(ops.fft), "r": REAL["whole"], "i": _of_pair(ops.irfft, n)}
    # The sums of n numbers of size 1 are about 150.
    check_cases(cases, _pair(2, 3, n), atol=3e-4)


WINDOW = np.abs(_noise(20)) + 0.1
SHORT_TIME = {
    "usual": (20, 7, 20),
    "filled": (20, 8, 32),
    "hamming": (20, 5, 23, "hamming", False),
    "odd": (21, 5, 24),
    "none": (20, 5, 24, None),
    "own": (20, 20, 20, WINDOW),
}


def test_short_time_transforms():
    cases = {n: lambda x, s=s: ops.stft(x, *s) for n, s in SHORT_TIME.items()}
    check_cases(cases, (_noise(2, 101),), (_noise(1, 64),), fixed=(), atol=3e-5)
    check_cases(cases, (_noise(2, 3, 101),), atol=3e-5)
    check_cases({"one": lambda x: ops.stft(x, 20, 7, 20)}, (_noise(101),), fixed=())


def test_long_short_time_transforms():
    cases = {
        "node": lambda x: ops.stft(x, 1500, 512, 2048),
        "frames": lambda x: ops.stft(x, 1100, 300, 1100),
    }
    feeds = (_noise(2, 5000),), (_noise(1, 3001),)
    graph = check_cases(cases, *feeds, fixed=(), atol=3e-4)
    assert [node.op_type for node in graph.graph].count("STFT") == 1


def test_a_short_time_transform_is_one_convolution():
    x = keras.Input((101,))
    graph = build_graph(keras.Model(x, ops.stft(x, 20, 7, 20, center=False)), "portable").graph
    assert [node.op_type for node in graph].count("Conv") == 1
    assert "MatMul" not in [node.op_type for node in graph]


BACK = {
    "usual": {"sequence_length": 20, "sequence_stride": 5, "fft_length": 20},
    "shorter": {"sequence_length": 20, "sequence_stride": 5, "fft_length": 20, "length": 33},
    "longer": {"sequence_length": 20, "sequence_stride": 5, "fft_length": 20, "length": 70},
    "filled": {"sequence_length": 20, "sequence_stride": 5, "fft_length": 32},
    "whole": {
        "sequence_length": 20, "sequence_stride": 5, "fft_length": 20, "center": False,
        "window": "hamming",
    },
    "none": {"sequence_length": 20, "sequence_stride": 5, "fft_length": 20, "window": None},
    "odd": {
        "sequence_length": 21, "sequence_stride": 6, "fft_length": 23, "window": "hamming",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BACK)
def test_inverse_short_time_transforms(name):
    bins = BACK[name]["fft_length"] // 2 + 1
    case = {"a": _of_pair(lambda x: ops.istft(x, **BACK[name]))}
    # At the ends, sums are divided by small numbers.
    check_cases(case, _pair(2, 11, bins), _pair(2, 17, bins), atol=1e-4)
    check_cases(case, _pair(2, 3, 11, bins), fixed=(-1, -2), atol=1e-4)


def test_complex_tensors_are_refused():
    x = keras.Input((3, 2))
    with pytest.raises(ExportError, match="as two tensors"):
        build_graph(keras.Model(x, ops.view_as_real(ops.view_as_complex(x))))
