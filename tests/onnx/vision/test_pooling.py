"""Pooling of every form, with dynamic batch and sizes, against Keras."""

import keras
import pytest
from keras import layers

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from tests.onnx.vision.many import TARGETS, check_layers

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


def pools(rank, **form):
    for kind in ("Max", "Average"):
        pool = getattr(layers, f"{kind}Pooling{rank}D")
        for padding in ("valid", "same"):
            # Of equal and of other padding on both sides, and a stride beyond the window.
            for size, strides in ((2, None), (3, 2), (3, 1), (2, 3), (1, 2)):
                name = f"{kind} {padding} {size} {strides}"
                yield name, pool(size, strides=strides, padding=padding, **form)
        yield f"{kind} global", getattr(layers, f"Global{kind}Pooling{rank}D")(**form)
        kept = getattr(layers, f"Global{kind}Pooling{rank}D")(keepdims=True, **form)
        yield f"{kind} global keepdims", kept
        one = getattr(layers, f"Adaptive{kind}Pooling{rank}D")(1, **form)
        if not ON_TENSORFLOW:  # which wants fixed sizes
            yield f"{kind} adaptive", one


def test_one_dimension():
    sizes = [(2, 11, 3), (1, 4, 3), (3, 3, 3), (1, 6, 3)]
    check_layers((None, 3), dict(pools(1)), sizes)


@pytest.mark.parametrize("target", TARGETS)
def test_two_dimensions(target):
    sizes = [(2, 11, 7, 3), (1, 4, 5, 3), (2, 3, 4, 3)]
    check_layers((None, None, 3), dict(pools(2)), sizes, target=target)


def test_two_dimensions_with_the_channels_first():
    cases = dict(pools(2, data_format="channels_first"))
    graph = check_layers((3, None, None), cases, [(2, 3, 11, 7), (1, 3, 4, 5)])
    assert "Transpose" not in [node.op_type for node in graph.graph]


def test_three_dimensions():
    check_layers((None, None, None, 2), dict(pools(3)), [(2, 5, 7, 3, 2), (1, 3, 4, 6, 2)])


def test_windows_of_different_sizes_on_the_axes():
    cases = {
        f"{kind} {padding}": getattr(layers, f"{kind}Pooling2D")((3, 2), (2, 3), padding=padding)
        for kind in ("Max", "Average")
        for padding in ("valid", "same")
    }
    check_layers((None, None, 3), cases, [(2, 11, 7, 3), (1, 4, 5, 3), (1, 3, 2, 3)])


# TensorFlow itself ends the process for one place.
SIZES = ((5, 3), (4, 2), (7, 6), (11, 8)) + (() if ON_TENSORFLOW else (1,))


def test_adaptive_pooling():
    cases = {
        f"{kind} {size} {form}": getattr(layers, f"Adaptive{kind}Pooling2D")(size, data_format=form)
        for kind in ("Max", "Average")
        for size in SIZES
        for form in ("channels_last", "channels_first")
    }
    check_layers((10, 8, 9), cases, [(2, 10, 8, 9), (1, 10, 8, 9)])


def test_adaptive_pooling_of_a_dynamic_size_is_refused():
    x = keras.Input((None, 4), name="x")
    layer = layers.AdaptiveMaxPooling1D(3, name="own")
    with pytest.raises(ExportError, match="own: AdaptiveMaxPool .*needs a fixed size"):
        build_graph(keras.Model(x, layer(x)))


@pytest.mark.skipif(not ON_TENSORFLOW, reason="others pool no integers")
def test_integers():
    check_layers((None, 3), {"max": layers.MaxPooling1D(2)}, [(2, 7, 3)], dtype="int32")
