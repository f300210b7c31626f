"""ops.image.resize, scale_and_translate and the layers that resize, against Keras."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from tests.onnx.checked import check_cases
from tests.onnx.pictures.data import FIRST, LAST, pictures

WORDS = ["nearest", "bilinear", "bicubic"]
if keras.backend.backend() != "torch":  # which has no Lanczos kernels
    WORDS += ["lanczos3", "lanczos5"]
SIZES = {"small": (5, 7), "large": (31, 40), "mixed": (5, 40)}
# The places that are read are rounded to float32. The values differ by 1 from place to place.
PLACES = 3e-5


def _resizes(form, sizes=SIZES):
    cases = {}
    for word in WORDS:
        for name, size in sizes.items():
            for smooth in (False, True):
                cases[f"{word}_{name}_{smooth}"] = lambda x, w=word, s=size, a=smooth: (
                    ops.image.resize(x, s, w, antialias=a, **form)
                )
    for ratio in ("crop_to_aspect_ratio", "pad_to_aspect_ratio"):
        for name in sizes:
            cases[f"{ratio}_{name}"] = lambda x, r=ratio, s=sizes[name]: ops.image.resize(
                x, s, fill_value=2.0, **{r: True}, **form
            )
    return cases


def test_resize_of_dynamic_sizes():
    feeds = [(pictures(*s),) for s in ((2, 17, 23, 3), (1, 1, 9, 3))]
    check_cases(_resizes(LAST), *feeds, atol=PLACES)


def test_places_of_fixed_sizes_are_constants():
    sizes = {"large": (31, 40)}
    graph = check_cases(
        _resizes(LAST, sizes), (pictures(2, 17, 23, 3),), fixed=(-1, -2, -3), atol=PLACES
    )
    kinds = [node.op_type for node in graph.graph]
    assert kinds.count("Gather") == 2  # nearest, for each axis
    assert "Floor" not in kinds and "Range" not in kinds


def test_resize_of_other_layouts():
    mixed = {"mixed": (5, 40)}
    check_cases(_resizes(LAST, mixed), (pictures(17, 23, 3),), atol=PLACES)
    check_cases(_resizes(FIRST, mixed), (pictures(2, 3, 17, 23),), fixed=(-3,), atol=PLACES)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_resize_of_integers(dtype):
    cases = _resizes(LAST, {"mixed": (11, 40)})
    if keras.backend.backend() == "tensorflow":  # which has no border of integers
        cases = {name: case for name, case in cases.items() if "pad" not in name}
    # 0.5 is rounded down by one and up by the other, where float32 gives 0.49999997.
    check_cases(cases, (pictures(2, 17, 23, 3, dtype=dtype),), ties=1)


def test_onnxruntime_may_move_transpositions_through_a_resize():
    def between(form, word, size):
        def case(x):
            x = ops.transpose(x, (0, 3, 1, 2))
            x = ops.transpose(x, (0, 2, 3, 1)) if form is LAST else x
            x = ops.image.resize(x, size, word, antialias=word != "bilinear", **form)
            return ops.transpose(x, (0, 3, 1, 2) if form is LAST else (0, 2, 3, 1))

        return case

    cases = {
        f"{form['data_format']}_{word}_{name}": between(form, word, size)
        for form in (LAST, FIRST)
        for word in ("bilinear", "bicubic")
        for name, size in SIZES.items()
    }
    check_cases(cases, (pictures(2, 17, 23, 3),), atol=PLACES)


def test_up_sampling():
    flat = {
        "nearest": layers.UpSampling2D((2, 3)),
        "bilinear": layers.UpSampling2D(2, interpolation="bilinear"),
        "bicubic": layers.UpSampling2D((3, 2), interpolation="bicubic"),
    }
    fixed = (-1, -2, -3)  # Keras asks for the sizes if it interpolates
    graph = check_cases(flat, (pictures(2, 5, 7, 3),), fixed=fixed, atol=PLACES)
    assert [n.op_type for n in graph.graph].count("Resize") >= 2
    check_cases({"a": layers.UpSampling2D((2, 3))}, (pictures(2, 5, 7, 3, dtype="int32"),))
    first = layers.UpSampling2D((2, 3), **FIRST)
    check_cases({"a": first}, (pictures(2, 3, 5, 7),), (pictures(1, 3, 1, 2),), fixed=(-3,))
    check_cases({"a": layers.UpSampling1D(3)}, (pictures(2, 5, 3),), (pictures(1, 1, 3),))
    cubes = {"a": layers.UpSampling3D((1, 3, 2)), "b": layers.UpSampling3D(2, **FIRST)}
    check_cases(cubes, (pictures(2, 5, 3, 2, 7),), fixed=(-1, -4))


def test_resizing_layers():
    cases = {
        "resizing": layers.Resizing(5, 6),
        "nearest": layers.Resizing(5, 6, "nearest", crop_to_aspect_ratio=True),
        "crop": layers.CenterCrop(5, 6),
        "tall": layers.CenterCrop(8, 3),
    }
    shapes = (17, 23), (5, 6), (4, 9), (9, 4), (2, 2), (8, 7)
    check_cases(cases, *((pictures(2, *s, 3),) for s in shapes), atol=PLACES)
    check_cases({"crop": layers.CenterCrop(5, 6, **FIRST)}, (pictures(2, 3, 4, 9),), fixed=(-3,))


@pytest.mark.parametrize("method", ["bilinear", "cubic", "lanczos3", "lanczos5"])
def test_scale_and_translate(method):
    def case(scale, translation, antialias=True):
        return lambda x, s, t: ops.image.scale_and_translate(
            x, (2, 9, 30, 3), s if scale is None else scale,
            t if translation is None else translation, (1, 2), method, antialias,
        )  # fmt: skip

    numbers = np.array([0.6, 1.7], "float32"), np.array([0.3, -2.0], "float32")
    cases = {"known": case(*numbers), "sharp": case(*numbers, False), "given": case(None, None)}
    fixed = [(-1, -2, -3, -4), (-1,), (-1,)]
    check_cases(cases, (pictures(2, 17, 23, 3), *numbers), fixed=fixed, atol=PLACES)


def test_an_unknown_interpolation_is_refused():
    x = keras.Input((9, 9, 3))
    resized = ops.image.resize(x, (3, 3), "area", **LAST)
    with pytest.raises(ExportError, match="interpolation='area'"):
        build_graph(keras.Model(x, resized))
