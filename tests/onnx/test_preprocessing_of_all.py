"""Preprocessing layers that need the lowerings of numbers and of sorting, against Keras."""

import numpy as np
import pytest
from keras import layers

from tests.onnx.checked import check_cases
from tests.onnx.pictures.data import pictures

BINS = [10.0, 50.0, 100.0]


@pytest.mark.parametrize("mode", ["int", "one_hot", "multi_hot", "count"])
def test_discretization(mode):
    values = pictures(3, 7) * 255
    check_cases({mode: layers.Discretization(BINS, output_mode=mode)}, (values,), (values[:1],))


def test_category_encoding():
    ids = np.random.default_rng(0).integers(0, 5, (3, 4)).astype("int32")
    check_cases({"multi_hot": layers.CategoryEncoding(5, "multi_hot")}, (ids,), (ids[:1],))


def test_contrast_limited_equalization():
    layer = layers.ContrastLimitedAdaptiveHistogramEqualization(tile_grid_size=(2, 3))
    # Sums of 256 bins of values up to 255.
    check_cases({"a": layer}, (pictures(2, 8, 9, 3) * 255,), fixed=(-1, -2, -3), atol=1e-3)


def test_mel_spectrogram():
    settings = {"fft_length": 64, "sequence_stride": 20, "num_mel_bins": 9, "sampling_rate": 900}
    sound = np.random.default_rng(0).normal(size=(2, 900)).astype("float32")
    cases = {
        "decibel": layers.MelSpectrogram(**settings, max_freq=400),
        "power": layers.MelSpectrogram(**settings, sequence_length=50, power_to_db=False),
    }
    check_cases(cases, (sound,), rtol=1e-4, atol=1e-3)  # decibels magnify the error of a sum
