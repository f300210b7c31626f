"""Masks reach the layers that they reach in Keras: operations that change nothing may end them."""

import keras
import numpy as np
from keras import layers, ops

from tests.onnx.layers.agree import check

UNCHANGED = {
    "reshape": lambda x: ops.reshape(x, (-1, 6, 5)),
    "reshape_back": lambda x: ops.reshape(ops.reshape(x, (-1, 30)), (-1, 6, 5)),
    "transpose": lambda x: ops.transpose(x, (0, 1, 2)),
    "stop_gradient": ops.stop_gradient,
    "copy": ops.copy,
    "slice": lambda x: x[:, :],
    "cast": lambda x: ops.cast(x, "float32"),
    "convert": lambda x: ops.convert_to_tensor(x, "float32"),
    "swapaxes": lambda x: ops.swapaxes(x, 1, 1),
    "moveaxis": lambda x: ops.moveaxis(x, 1, 1),
    "concatenate": lambda x: ops.concatenate([x], axis=1),
    "add": lambda x: x + 0.0,
    "Reshape": layers.Reshape((6, 5)),
    "Permute": layers.Permute((1, 2)),
    "Identity": layers.Identity(),
    "Dropout": layers.Dropout(0.1),
    "Lambda": layers.Lambda(lambda x: x * 1.0),
    "Dense": layers.Dense(5),
    "Add": lambda x: layers.Add()([x, x]),
    "ZeroPadding": layers.ZeroPadding1D(0),
    "nested": keras.Sequential([keras.Input((6, 5)), layers.Reshape((6, 5))]),
}


def test_masks_end_where_keras_drops_them():
    ids = keras.Input((6,), dtype="int32", name="ids")
    embedding, mean = layers.Embedding(11, 5, mask_zero=True), layers.GlobalAveragePooling1D()
    # Each has an embedding of its own, because a mask that is attached to a tensor stays there.
    outputs = [mean(change(embedding(ids))) for change in UNCHANGED.values()]
    feed = {"ids": np.array([[1, 2, 3, 0, 0, 0], [4, 5, 0, 6, 0, 0]])}
    check(keras.Model({"ids": ids}, outputs), feed)
