"""`keras.ops.cond` as ONNX If."""

import keras
import numpy as np
import onnxruntime
import pytest
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph, export

# The files are the same from every backend.
pytestmark = pytest.mark.backend_free


class Choose(keras.Operation):
    """The square of a sequence of one vector, twice any other; and the sum of either."""

    def __init__(self, width=7):
        super().__init__()
        self.width = width

    def call(self, x):
        def short():
            y = ops.square(x)[:, :, : self.width]
            return y, ops.sum(y, axis=1)

        def long():
            y = ops.add(x, x)
            return y, ops.sum(y, axis=1)

        return ops.cond(ops.equal(ops.shape(x)[1], 1), short, long)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape), keras.KerasTensor((x.shape[0], x.shape[2]))


def _model(width):
    x = keras.Input((None, 7), name="x")
    y, total = Choose(width)(x)
    return keras.Model(x, {"y": y, "total": total}, name="own")


def test_both_branches(tmp_path):
    export(_model(7), tmp_path / "model.onnx", verify=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for length in (1, 5):
        x = np.random.default_rng(0).standard_normal((2, length, 7)).astype("float32")
        y, total = session.run(["y", "total"], {"x": x})
        expected = x**2 if length == 1 else 2 * x
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_allclose(total, expected.sum(1), rtol=1e-6)


def test_branches_of_different_shapes_are_refused():
    with pytest.raises(ExportError, match="ops.cond return different shapes"):
        build_graph(_model(3))
