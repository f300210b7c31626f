"""Preprocessing layers, which call their backend through `self.backend`, against Keras."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.onnx.checked import check_cases
from tests.onnx.pictures.data import pictures

PICTURES = pictures(2, 8, 9, 3) * 255
RANGE = {"factor": 0.3, "value_range": (0, 255)}


def _normalization(**settings):
    layer = layers.Normalization(**settings)
    if "mean" not in settings:
        layer.adapt(PICTURES)
    return layer


def test_layers_that_compute():
    cases = {
        "rescaling": layers.Rescaling(1 / 127.0, offset=-1.0),
        "rescaling_channels": layers.Rescaling([0.1, 0.2, 0.3], offset=[1.0, 2.0, 3.0]),
        "normal": _normalization(),
        "normal_inverse": _normalization(invert=True),
        "normal_given": _normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0]),
        "normal_all": _normalization(axis=None, mean=3.0, variance=2.0),
        "contrast": layers.AutoContrast(),
        "pipeline": layers.Pipeline([layers.Rescaling(0.1), layers.RandomFlip()]),
    }
    # Values are up to 255.
    check_cases(cases, (PICTURES,), (pictures(1, 3, 2, 3),), rtol=1e-5, atol=1e-4)


AUGMENTATIONS = {
    "AugMix": {}, "CutMix": {}, "MixUp": {}, "RandAugment": {}, "RandomBrightness": {"factor": 0.3},
    "RandomColorDegeneration": RANGE, "RandomColorJitter": {}, "RandomContrast": {"factor": 0.3},
    "RandomCrop": {"height": 4, "width": 5}, "RandomElasticTransform": {}, "RandomErasing": {},
    "RandomFlip": {}, "RandomGaussianBlur": {}, "RandomGrayscale": {}, "RandomHue": {"factor": 0.3},
    "RandomInvert": {}, "RandomPerspective": {}, "RandomPosterization": {"factor": 4},
    "RandomRotation": {"factor": 0.3}, "RandomSaturation": {"factor": 0.3},
    "RandomSharpness": {"factor": 0.3}, "RandomShear": {}, "RandomTranslation":
    {"height_factor": 0.2, "width_factor": 0.2}, "RandomZoom": {"height_factor": 0.2},
    "Solarization": {"addition_factor": 0.5},
}  # fmt: skip


def test_augmentations_are_nothing_at_inference():
    cases = {name: getattr(layers, name)(**given) for name, given in AUGMENTATIONS.items()}
    # Keras asks for the sizes of what is cropped.
    graph = check_cases(cases, (PICTURES,), fixed=(-1, -2, -3), rtol=0, atol=0)
    assert {node.op_type for node in graph.graph} == {"Identity"}


def test_category_encoding():
    cases = {
        "one_hot": layers.CategoryEncoding(5, "one_hot"),
        "count": layers.CategoryEncoding(5, "count"),
    }
    ids = np.random.default_rng(0).integers(0, 5, (3, 4)).astype("int32")
    check_cases(cases, (ids,), (ids[:1],))
    check_cases({"one": layers.CategoryEncoding(5, "one_hot")}, (ids[:, :1],))


@pytest.mark.parametrize("mode", ["log", "magnitude", "psd", "real", "stft"])
def test_spectrogram(mode):
    layer = layers.STFTSpectrogram(mode, frame_length=32, frame_step=10, fft_length=32)
    sound = np.random.default_rng(0).normal(size=(2, 100, 1)).astype("float32")
    # The logarithm of a small number magnifies the error of the sum.
    check_cases({mode: layer}, (sound,), (sound[:1, :40],), atol=1e-3 if mode == "log" else 3e-5)


def test_spectrogram_of_several_channels():
    settings = {"frame_length": 30, "frame_step": 10, "fft_length": 32, "mode": "magnitude"}
    sound = np.random.default_rng(0).normal(size=(2, 100, 3)).astype("float32")
    last = layers.STFTSpectrogram(**settings, expand_dims=True, padding="same")
    check_cases({"last": last}, (sound,), atol=3e-5)
    first = layers.STFTSpectrogram(**settings, data_format="channels_first")
    check_cases({"first": first}, (sound.transpose(0, 2, 1),), fixed=(-2,), atol=3e-5)


def test_a_trace_leaves_the_layers_as_they_are():
    layer = layers.RandomHue(0.3)
    check_cases({"hue": layer}, (PICTURES,), rtol=0, atol=0)
    assert "get_random_transformation" not in vars(layer)
    assert layer.backend.numpy is not keras.ops
