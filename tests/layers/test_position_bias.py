from collections import Counter

import keras
import numpy as np
import pytest

from keras_seqattn.layers import MultiHeadAttention, RelativePositionBias
from keras_seqattn.onnx import build_graph, export
from keras_seqattn.ops.positions import SlotPositions
from tests.helpers import check_layer, randomise, to_numpy

HEADS, BUCKETS, REACH = 3, 8, 11


def layer(bidirectional=True, name="bias"):
    return RelativePositionBias(HEADS, BUCKETS, REACH, bidirectional, name=name)


def by_transformers(table, queries, keys, bidirectional):
    """The bias (1, h, t, s) of the reference, row by row of its own buckets."""
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = torch.arange(keys)[None] - torch.tensor(queries)[:, None]
    buckets = T5Attention._relative_position_bucket(distances, bidirectional, BUCKETS, REACH)
    return table[buckets.numpy()].transpose(2, 0, 1)[None]


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("past, length", [(0, 1), (0, 5), (0, 29), (2, 5), (23, 1)])
def test_as_in_transformers(bidirectional, past, length, tmp_path):
    own, queries = layer(bidirectional), np.arange(past, past + length, dtype="int32")
    inputs = {
        "query_positions": queries,
        "key_positions": np.arange(past + length, dtype="int32"),
    }
    out = check_layer(own, inputs, tmp_path)
    table = to_numpy(own.embeddings.value)
    expected = by_transformers(table, queries, past + length, bidirectional)
    np.testing.assert_array_equal(out, expected)


def attention_model():
    """Two layers of attention under one bias, over a mask."""
    x = keras.Input((None, 21), name="x")
    mask = keras.Input((None,), dtype="int32", name="attention_mask")
    bias = layer()(*SlotPositions()(x))
    y = x
    for index in range(2):
        attention = MultiHeadAttention(HEADS, 8, scale=1.0, name=f"attention_{index}")
        y = attention(y, attention_mask=mask, bias=bias)
    return randomise(keras.Model({"x": x, "attention_mask": mask}, y, name="own"), seed=4)


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_export(target, tmp_path):
    assert 0 < export(attention_model(), tmp_path / "m.onnx", target=target).worst <= 1e-4


@pytest.mark.backend_free
def test_nodes():
    """The table is looked up once by bucket, when a session loads, and once by distance."""
    nodes = build_graph(attention_model(), "ort").graph
    counts = Counter(node.op_type for node in nodes if node.name.startswith("bias/"))
    assert counts == {
        "Add": 1, "Unsqueeze": 3, "Sub": 1, "Clip": 1, "Transpose": 1, "Gather": 2
    }  # fmt: skip
