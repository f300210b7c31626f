"""map_coordinates, affine and perspective transforms, against Keras."""

import keras
import numpy as np
import pytest
from keras.ops import image

from tests.onnx.checked import check_cases
from tests.onnx.pictures.data import FIRST, LAST, pictures

BACKEND = keras.backend.backend()
MODES = ["constant", "nearest", "wrap", "mirror", "reflect"]
TRANSFORMS = np.array(
    [[0.9137, 0.2171, -1.0311, -0.3119, 1.1073, 2.0331, 0, 0], [1, 0, 0.5, 0, 1, -0.5, 0, 0]],
    "float32",
)


def _coordinates(mode):
    random = np.random.default_rng(1)
    places = random.uniform(-9, 16, (2, 4, 11)).astype("float32")
    places[:, 0, :5] = np.round(places[:, 0, :5]) + 0.5  # ties
    places[:, 1] = np.round(places[:, 1])
    if BACKEND == "tensorflow" and mode == "mirror":
        # Keras on TensorFlow reads outside of the tensor there.
        places = np.abs(places) % np.array([4, 6], "float32")[:, None, None]
    return places


@pytest.mark.parametrize("mode", MODES)
def test_map_coordinates(mode):
    cases = {
        f"order_{order}": lambda x, c, o=order: image.map_coordinates(x, c, o, mode, 1.5)
        for order in (0, 1)
    }
    x, c = pictures(5, 7), _coordinates(mode)
    # TensorFlow needs the sizes of the tensor.
    fixed = [(-1, -2) if BACKEND == "tensorflow" else (), (-3,)]
    check_cases(cases, (x, c), fixed=fixed)
    integers = pictures(5, 7, dtype="int32")
    check_cases(cases, (integers, c), fixed=[(-1, -2), (-3,)])


def test_map_coordinates_of_volumes():
    c = np.random.default_rng(2).uniform(-2, 8, (3, 9)).astype("float32")
    cases = {
        "near": lambda x, c: image.map_coordinates(x, c, 1, "nearest"),
        "fill": lambda x, c: image.map_coordinates(x, c, 1, "constant", 2),
    }
    check_cases(cases, (pictures(4, 5, 6), c), fixed=[(-1, -2, -3), (-1, -2)])


@pytest.mark.parametrize("mode", MODES)
def test_affine_transforms(mode):
    if BACKEND == "tensorflow" and mode == "mirror":
        pytest.skip("Keras refuses it on TensorFlow")
    far = TRANSFORMS * np.array([[1, 1, 9, 1, 1, -20, 1, 1]], "float32")
    for word in ("nearest", "bilinear"):
        # One case a model: Keras on PyTorch changes the transforms in place.
        cases = {word: lambda x, t, w=word: image.affine_transform(x, t, w, mode, 1.5, **LAST)}
        feeds = (pictures(2, 9, 8, 3), TRANSFORMS), (pictures(2, 17, 23, 3), far)
        # The places are rounded to float32: 1e-6 of a picture of 20 places, whose values differ
        # by 1 from place to place.
        check_cases(cases, *feeds, atol=3e-5)


def test_affine_transforms_of_other_forms():
    first = {"first": lambda x, t: image.affine_transform(x, t, "bilinear", **FIRST)}
    check_cases(first, (pictures(2, 3, 9, 8), TRANSFORMS), fixed=[(-3,), (-1,)])
    single = {"single": lambda x, t: image.affine_transform(x, t, "bilinear", **LAST)}
    check_cases(single, (pictures(9, 8, 3), TRANSFORMS[0]))
    integers = {"integers": lambda x, t: image.affine_transform(x, t, "bilinear", **LAST)}
    check_cases(integers, (pictures(2, 9, 8, 3, dtype="uint8"), TRANSFORMS), ties=1)


@pytest.mark.parametrize("word", ["nearest", "bilinear"])
def test_perspective_transforms(word):
    start = np.array([[[0, 0], [7, 0], [0, 8], [7, 8]]], "float32").repeat(2, 0)
    end = start + np.random.default_rng(3).uniform(-2, 2, start.shape).astype("float32")

    def case(form, start=start, end=end):
        return {"a": lambda x: image.perspective_transform(x, start, end, word, 2.0, **form)}

    check_cases(case(LAST), (pictures(2, 9, 8, 3),), fixed=(-1, -4), atol=3e-5)
    check_cases(case(FIRST), (pictures(2, 3, 9, 8),), fixed=(-3, -4), atol=3e-5)
    check_cases(case(LAST, start[0], end[0]), (pictures(9, 8, 3),), atol=3e-5)
