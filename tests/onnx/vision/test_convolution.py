"""Convolutions of every form, with dynamic batch and sizes, against Keras."""

import keras
import pytest
from keras import layers, ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from tests.onnx.apply import Apply
from tests.onnx.vision.many import TARGETS, check_layers

BACKEND = keras.backend.backend()
# TensorFlow has neither on a CPU.
FIRST = {} if BACKEND == "tensorflow" else {"data_format": "channels_first"}


def of_rank_one():
    yield "valid", layers.Conv1D(5, 3)
    yield "same", layers.Conv1D(5, 4, padding="same", activation="relu")
    yield "causal", layers.Conv1D(5, 3, padding="causal", dilation_rate=2)
    yield "causal strided", layers.Conv1D(5, 3, padding="causal", strides=2)
    yield "strided", layers.Conv1D(5, 3, strides=2, padding="same", use_bias=False)
    yield "stride beyond the kernel", layers.Conv1D(5, 2, strides=3, padding="same")
    yield "one place", layers.Conv1D(5, 1, strides=2, padding="same")
    yield "dilated", layers.Conv1D(5, 3, dilation_rate=2, padding="same")
    yield "grouped", layers.Conv1D(4, 3, groups=2)
    yield "depthwise", layers.DepthwiseConv1D(3, depth_multiplier=3, padding="same")
    yield "separable", layers.SeparableConv1D(5, 3, depth_multiplier=2, strides=2)
    for padding in ("same", "valid"):
        for kernel, stride in ((3, 2), (2, 3), (4, 1), (1, 2)):
            name = f"transposed {padding} {kernel} {stride}"
            yield name, layers.Conv1DTranspose(5, kernel, strides=stride, padding=padding)


def test_one_dimension():
    sizes = [(2, 13, 6), (1, 8, 6), (3, 4, 6)]
    check_layers((None, 6), dict(of_rank_one()), sizes)


def of_rank_two(**form):
    yield "valid", layers.Conv2D(7, (3, 2), **form)
    yield "same", layers.Conv2D(7, (2, 3), padding="same", activation="silu", **form)
    yield "strided", layers.Conv2D(7, 3, strides=2, padding="same", **form)
    yield "dilated", layers.Conv2D(7, 3, dilation_rate=(2, 1), padding="same", **form)
    yield "transposed", layers.Conv2DTranspose(7, 3, strides=2, padding="same", **form)
    # More places than the stride, cut off before and after.
    yield (
        "output_padding",
        layers.Conv2DTranspose(
            3, (3, 4), strides=(2, 3), padding="same", output_padding=(1, 2), **form
        ),
    )
    yield "valid output_padding", layers.Conv2DTranspose(3, 2, strides=3, output_padding=2, **form)


def depthwise(**form):
    yield "depthwise", layers.DepthwiseConv2D(3, strides=2, padding="same", **form)
    yield "separable", layers.SeparableConv2D(5, (3, 2), padding="same", **form)


@pytest.mark.parametrize("target", TARGETS)
def test_two_dimensions(target):
    cases = {**dict(of_rank_two()), **dict(depthwise())}
    cases["grouped"] = layers.Conv2D(4, 3, groups=2)
    sizes = [(2, 11, 7, 4), (1, 4, 5, 4), (1, 3, 3, 4)]
    check_layers((None, None, 4), cases, sizes, target=target)


@pytest.mark.skipif(not FIRST, reason="TensorFlow convolves no channels first on a CPU")
def test_two_dimensions_with_the_channels_first():
    cases = {**dict(of_rank_two(**FIRST)), **dict(depthwise(**FIRST))}
    graph = check_layers((4, None, None), cases, [(2, 4, 11, 7), (1, 4, 4, 5)])
    assert "Transpose" not in [node.op_type for node in graph.graph]


def test_three_dimensions():
    cases = {
        "valid": layers.Conv3D(3, (2, 3, 1)),
        "same": layers.Conv3D(3, 3, strides=(2, 1, 2), padding="same"),
        "transposed": layers.Conv3DTranspose(3, (3, 2, 3), strides=2, padding="same"),
    }
    check_layers((None, None, None, 2), cases, [(2, 5, 7, 3, 2), (1, 2, 3, 2, 2)])


def test_fixed_sizes_need_no_arithmetic():
    cases = {
        "a": layers.Conv2D(3, 3, strides=2, padding="same"),
        "b": layers.Conv2D(3, 3, dilation_rate=2, padding="same"),
        "c": layers.Conv2D(3, 2, strides=3, padding="same"),
        "d": layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
        "e": layers.MaxPooling2D(2, strides=3, padding="same"),
        "f": layers.AveragePooling2D(3, strides=2, padding="same"),
    }
    graph = check_layers((10, 9, 2), cases, [(3, 10, 9, 2)])
    kinds = {node.op_type for node in graph.graph}
    assert not kinds & {"Shape", "Concat", "Where"}


def test_a_computed_kernel():
    def convolve(x, w):
        return ops.conv(x, ops.reshape(ops.mean(w, axis=(0, 1)), (1, 2, 3)), padding="same")

    layer = Apply(convolve, keras.KerasTensor((None, None, 3)))
    case = {"computed": lambda x: layer(layers.Dense(2)(x), x)}
    check_layers((None, 6), case, [(2, 5, 6), (1, 2, 6)])


PIXELS = {
    "unfold": lambda x: ops.unfold(x, (2, 3), dilation=(2, 1), padding=(1, 2), stride=(1, 2)),
    "depth_to_space": lambda x: ops.depth_to_space(x, 2, data_format="channels_first"),
    "depth_to_space last": lambda x: ops.depth_to_space(x[..., :8], 2),
    "space_to_depth": lambda x: ops.space_to_depth(x, 2, data_format="channels_first"),
    "space_to_depth last": lambda x: ops.space_to_depth(x[:, :6], 2),
}


def test_rearranged_pixels():
    # TensorFlow cannot infer the shape of windows with a dynamic batch.
    specs = {"unfold": keras.KerasTensor((None, 72, 20))}
    cases = {name: Apply(function, specs.get(name)) for name, function in PIXELS.items()}
    check_layers((12, 4, 8), cases, [(3, 12, 4, 8)])


def test_fold():
    folded = Apply(lambda x: ops.fold(x, (5, 4), (2, 3), padding=(1, 0), stride=(2, 1)))
    check_layers((12, 6), {"fold": folded}, [(2, 12, 6), (1, 12, 6)])


def test_channels_that_are_not_fixed_are_refused():
    x = keras.Input((None, None))
    convolved = Apply(
        lambda x: ops.conv(x, ops.ones((3, 2, 4))), keras.KerasTensor((None, None, 4)), name="own"
    )
    with pytest.raises(ExportError, match="own: .*fixed number of channels"):
        build_graph(keras.Model(x, convolved(x)))
