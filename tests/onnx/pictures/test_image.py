"""Colours, borders, filters, patches and similarity of ops.image, against Keras."""

import keras
import numpy as np
import pytest
from keras import ops
from keras.ops import image

from tests.onnx.checked import check_cases
from tests.onnx.pictures.data import FIRST, LAST, pictures

PATCHES = {
    "apart": (3, None, 1, "valid"),
    "same": (3, 2, 1, "same"),
    "dense": (2, 1, 1, "valid"),
    "dilated": ((2, 3), (1, 1), 2, "same"),
    "apart_same": ((3, 2), (3, 2), 1, "same"),
    "single": (1, 1, 1, "valid"),
}
CUBES = {
    "apart": ((2, 3, 2), None, 1, "valid"),
    "same": ((2, 3, 2), (1, 2, 2), 1, "same"),
    "step": ((2, 2, 2), 2, 1, "same"),
}
BLURS = {"3": ((3, 3), (1.0, 0.7)), "53": ((5, 3), (1.0, 2.7)), "4": ((4, 4), (1.0, 2.7))}
BORDERS = {
    "pad": lambda x, **form: image.pad_images(x, 1, 2, 3, 4, **form),
    "pad_after": lambda x, **form: image.pad_images(
        x, top_padding=1, left_padding=2, target_height=40, target_width=50, **form
    ),
    "pad_before": lambda x, **form: image.pad_images(
        x, bottom_padding=1, right_padding=2, target_height=40, target_width=50, **form
    ),
    "crop_after": lambda x, **form: image.crop_images(
        x, top_cropping=1, left_cropping=2, target_height=4, target_width=5, **form
    ),
    "crop_before": lambda x, **form: image.crop_images(
        x, bottom_cropping=1, right_cropping=2, target_height=4, target_width=5, **form
    ),
}


def _cases(form, batched=True):
    cases = {name: lambda x, f=f: f(x, **form) for name, f in BORDERS.items()}
    cases["grey"] = lambda x: image.rgb_to_grayscale(x, **form)
    cases["hsv"] = lambda x: image.rgb_to_hsv(x, **form)
    cases["rgb"] = lambda x: image.hsv_to_rgb(x * 2 - 0.5, **form)
    for name, settings in BLURS.items():
        cases[f"blur_{name}"] = lambda x, s=settings: image.gaussian_blur(x, *s, **form)
    for name, settings in PATCHES.items():
        cases[f"patches_{name}"] = lambda x, s=settings: image.extract_patches(x, *s, **form)
    if batched:
        cases["sobel"] = lambda x: image.sobel_edges(x, **form)
    return cases


def test_pictures_of_dynamic_sizes():
    check_cases(_cases(LAST), (pictures(2, 17, 23, 3),), (pictures(1, 9, 8, 3),))
    check_cases(_cases(FIRST), (pictures(2, 3, 17, 23),), (pictures(1, 3, 9, 8),), fixed=(-3,))


def test_pictures_of_fixed_sizes():
    cases = _cases(LAST) | {"crop": lambda x: image.crop_images(x, 1, 2, 3, 4, **LAST)}
    check_cases(cases, (pictures(2, 17, 23, 3),), fixed=(-1, -2, -3), target="ort")


def test_single_pictures():
    check_cases(_cases(LAST, False), (pictures(17, 23, 3),), (pictures(9, 8, 3),))
    check_cases(_cases(FIRST, False), (pictures(3, 17, 23),), fixed=(-3,))


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_pictures_of_integers(dtype):
    cases = {name: lambda x, f=f: f(x, **LAST) for name, f in BORDERS.items()}
    cases["grey"] = lambda x: image.rgb_to_grayscale(x, **LAST)
    white = np.full((1, 17, 23, 3), 255, dtype)
    check_cases(cases, (pictures(2, 17, 23, 3, dtype=dtype),), (white,))


def test_grey_pictures_stay():
    check_cases({"grey": lambda x: image.rgb_to_grayscale(x, **LAST) + 0}, (pictures(2, 5, 7, 1),))


def test_colours_at_the_borders_of_their_cases():
    colours = [[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.2],
               [0.5, 0.2, 0.5], [-1, -2, -3], [1e-9, 0, 0], [0.2, 0.2, 0.2]]  # fmt: skip
    x = np.array(colours, "float32").reshape(1, 2, 5, 3)
    cases = {
        "hsv": lambda x: image.rgb_to_hsv(x, **LAST),
        "rgb": lambda x: image.hsv_to_rgb(x, **LAST),
    }
    check_cases(cases, (x,))


@pytest.mark.parametrize("form", [LAST, FIRST], ids=["last", "first"])
def test_similarity(form):
    shape, fixed = ((2, 17, 23, 3), (-1,)) if form is LAST else ((2, 3, 17, 23), (-3,))
    cases = {
        "usual": lambda x, y: image.ssim(x, y, **form),
        "other": lambda x, y: image.ssim(x, y, 2.0, 4, 0.7, 0.1, 0.2, **form),
    }
    check_cases(cases, (pictures(*shape), pictures(*shape, seed=1)), fixed=fixed)
    single = {"single": lambda x, y: image.ssim(x, y, **form)}
    check_cases(single, (pictures(*shape[1:]), pictures(*shape[1:], seed=1)), fixed=fixed)


def test_patches_of_volumes():
    def cases(form):
        return {n: lambda x, s=s: image.extract_patches_3d(x, *s, **form) for n, s in CUBES.items()}

    check_cases(cases(LAST), (pictures(2, 5, 7, 6, 3),), (pictures(1, 4, 3, 4, 3),))
    check_cases(cases(FIRST), (pictures(2, 3, 5, 7, 6),), fixed=(-4,))
    check_cases(cases(LAST), (pictures(5, 7, 6, 3),))


def test_sequences():
    cases = {
        "overlap": lambda x: ops.extract_sequences(x, 5, 3),
        "apart": lambda x: ops.extract_sequences(x, 4, 4),
        "gaps": lambda x: ops.extract_sequences(x, 2, 5),
    }
    check_cases(cases, (pictures(2, 17),), (pictures(1, 5),), fixed=())
    check_cases(cases, (pictures(17),))


def test_patches_that_do_not_overlap_are_one_transposition():
    x = keras.Input((12, 8, 3))
    patches = image.extract_patches(x, 4, **LAST)
    from keras_seqattn.onnx import build_graph

    kinds = [node.op_type for node in build_graph(keras.Model(x, patches), "portable").graph]
    assert kinds == ["Reshape", "Transpose", "Reshape"]
