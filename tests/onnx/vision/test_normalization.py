"""Normalisations over a batch, a layer, groups or to unit length, against Keras."""

import keras
import pytest
from keras import layers, ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from tests.onnx.apply import Apply
from tests.onnx.vision.many import TARGETS, check_layers, randomised

# PyTorch's own kernel takes a single axis for the last one, and fails.
OTHER_AXES = keras.backend.backend() != "torch"


def _masked(x):
    return layers.BatchNormalization()(layers.Masking(0.0)(x))


CASES = {
    "batch": layers.BatchNormalization(epsilon=0.1),
    "batch axis": layers.BatchNormalization(axis=3),
    "batch middle axis": layers.BatchNormalization(axis=2),
    "batch plain": layers.BatchNormalization(center=False, scale=False),
    "batch twice": lambda x: (lambda n: n(n(x)))(layers.BatchNormalization()),
    "group": layers.GroupNormalization(3, epsilon=0.1),
    "group of one": layers.GroupNormalization(1),
    "group of each": layers.GroupNormalization(-1),
    "group of each plain": layers.GroupNormalization(6, center=False, scale=False),
    "group without beta": layers.GroupNormalization(2, center=False),
    "layer": layers.LayerNormalization(epsilon=0.1),
    "layer of two": layers.LayerNormalization(axis=(2, 3)),
    "layer apart": layers.LayerNormalization(axis=(1, 3)),
    "layer rms": layers.LayerNormalization(rms_scaling=True),
    "rms": layers.RMSNormalization(),
    "unit": layers.UnitNormalization(),
    "unit of two": layers.UnitNormalization(axis=(1, 2)),
    "spectral": layers.SpectralNormalization(layers.Conv2D(3, 2)),
    "moments": Apply(lambda x: ops.concatenate(ops.moments(x, axes=(1, 2)), axis=-1)),
    "moments kept": Apply(lambda x: ops.stack(ops.moments(x, axes=[-1], keepdims=True))),
    "unit 1": Apply(lambda x: ops.normalize(x, axis=2, order=1)),
    "unit 3": Apply(lambda x: ops.normalize(x, axis=-1, order=3)),
    "unit of zeros": Apply(lambda x: ops.normalize(x * 0.0, axis=-1)),
    "batch op": Apply(
        lambda x: ops.batch_normalization(
            x, ops.mean(x, axis=(0, 1, 2)), ops.var(x, axis=(0, 1, 2)), axis=-1
        )
    ),
}
if OTHER_AXES:
    CASES["layer other axis"] = layers.LayerNormalization(axis=1)
    CASES["layer other axes"] = layers.LayerNormalization(axis=(2, 1))
    CASES["rms other axis"] = Apply(lambda x: ops.rms_normalization(x, axis=1))


@pytest.mark.parametrize("target", TARGETS)
def test_pictures(target):
    # Keras takes the variance as the mean of squares minus the square of the mean on some backends.
    sizes = [(2, 5, 7, 6), (1, 5, 7, 6)]
    check_layers((5, 7, 6), CASES, sizes, target=target, tolerance=1e-4)


def test_dynamic_sizes():
    cases = {
        "batch": layers.BatchNormalization(),
        "group": layers.GroupNormalization(3),
        "group of each": layers.GroupNormalization(-1),
        "layer": layers.LayerNormalization(),
        "unit": layers.UnitNormalization(axis=(1, 2)),
        "moments": CASES["moments"],
    }
    sizes = [(2, 5, 7, 6), (1, 2, 1, 6), (3, 1, 2, 6)]
    check_layers((None, None, 6), cases, sizes, tolerance=1e-4)


def test_channels_first():
    cases = {
        "batch": layers.BatchNormalization(axis=1),
        "group": layers.GroupNormalization(2, axis=1),
    }
    graph = check_layers((6, None, None), cases, [(2, 6, 5, 7), (1, 6, 2, 1)], tolerance=1e-4)
    assert "Transpose" not in [node.op_type for node in graph.graph]


@pytest.mark.parametrize("shape", [(6,), (None, 6)])
def test_vectors_and_sequences(shape):
    cases = {"batch": layers.BatchNormalization(), "group": layers.GroupNormalization(2)}
    if len(shape) > 1:
        cases["masked"] = _masked
    rest = (5,) * (len(shape) - 1)
    check_layers(shape, cases, [(3, *rest, 6), (1, *(1 for _ in rest), 6)], tolerance=1e-4)


class Forced(layers.Layer):
    """A layer that normalises with the statistics of the batch, at inference, too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = layers.BatchNormalization(name="norm")

    def call(self, x):
        return self.norm(x, training=True)


def test_batch_statistics_at_inference_are_refused():
    x = keras.Input((6,), name="x")
    with pytest.raises(ExportError, match="own/norm: it normalises with the statistics"):
        build_graph(randomised(keras.Model(x, Forced(name="own")(x))))


def test_a_matrix_norm_is_refused():
    x = keras.Input((6, 5), name="x")
    layer = Apply(lambda x: ops.normalize(x, axis=(1, 2), order=1), name="own")
    with pytest.raises(ExportError, match="own: ops.normalize .*norm of a matrix"):
        build_graph(keras.Model(x, layer(x)))
