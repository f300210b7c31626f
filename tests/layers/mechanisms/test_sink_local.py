"""Attention sinks: their definition, positions inside the state, the state, the file."""

import numpy as np
import pytest

import keras_seqattn
from keras_seqattn import runtime
from keras_seqattn.layers import MultiHeadAttention, RotaryPositions
from keras_seqattn.layers.mechanisms import SinkLocal
from keras_seqattn.onnx import export
from keras_seqattn.ops import sink_local_attention
from tests.helpers import check_layer, to_numpy
from tests.mechanisms import (
    check_export,
    check_mechanism,
    check_states,
    heads,
    ragged_mask,
    softmax_attention,
)
from tests.models import streaming

SINKS = 3
# Four of the five channels.
POSITIONS = RotaryPositions(5, base=50.0, fraction=0.8)


def definition(left, positions):
    """The sets and the distances of the paper, written pair by pair."""

    def attend(q, k, v, mask):
        counts = mask.cumsum(1)
        places = np.arange(q.shape[1])
        sink = (mask & (counts <= SINKS))[:, None] & (counts[:, :, None] >= counts[:, None])
        sink &= places <= places[:, None]
        near = (places <= places[:, None]) & (places >= places[:, None] - left)
        allowed = (sink | near) & mask[:, None]
        if not positions:
            return softmax_attention(q, k, v, allowed[:, None])
        query_at = np.where(
            sink, np.minimum(counts - 1, SINKS + left)[:, :, None], counts[:, :, None] - 1
        )
        scores = rotated_scores(q, k, query_at - (counts[:, None] - 1))
        return weigh(scores / q.shape[-1] ** 0.5, v, allowed[:, None])

    return attend


def rotated_scores(q, k, distances):
    """`q k'`, each pair turned by its distance, int (b, t, s): float (b, h, t, s)."""
    scores = np.einsum("bthd,bshd->bhts", q[..., 4:], k[..., 4:])
    for pair, frequency in enumerate(50.0 ** (-np.arange(2) / 2)):
        first, second = ((x[..., pair], x[..., pair + 2]) for x in (q, k))
        q_wave, k_wave = first[0] + 1j * first[1], second[0] + 1j * second[1]
        turn = np.exp(1j * distances * frequency)
        scores += np.einsum("bth,bsh,bts->bhts", q_wave, k_wave.conj(), turn).real
    return scores


def weigh(scores, v, allowed):
    scores = np.where(allowed, scores, -1e300)
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * allowed
    total = weights.sum(-1, keepdims=True)
    return np.einsum("bhts,bshe->bthe", weights / np.where(total == 0, 1.0, total), v)


@pytest.mark.parametrize("positions", [None, POSITIONS], ids=["plain", "rotary"])
def test_definition(positions):
    mechanism = SinkLocal(SINKS, 9, positions)
    check_mechanism(mechanism, definition(9, positions), (2, 32, 71), causal=True)


@pytest.mark.parametrize("positions", [None, POSITIONS], ids=["plain", "rotary"])
def test_state(positions):
    # One piece is as long as there are rows: counts of both must not be added the wrong way round.
    check_states(SinkLocal(SINKS, 7, positions), 53, (2, 3, 35, 13))


def test_export(tmp_path):
    check_export(SinkLocal(SINKS, 60, POSITIONS), tmp_path, causal=True)


@pytest.mark.backend_free
def test_layer(tmp_path):
    layer = MultiHeadAttention(4, 5, 2, causal=True, attention=SinkLocal(SINKS, 4, POSITIONS))
    x = np.random.default_rng(1).standard_normal((3, 17, 11)).astype("float32")
    check_layer(layer, {"query": x, "attention_mask": ragged_mask(17)[:3]}, tmp_path)


@pytest.mark.backend_free
def test_bundles_stream(tmp_path):
    """Far more tokens than the window has, in onnxruntime as in Keras."""
    mechanism = SinkLocal(SINKS, 6, RotaryPositions(16, max_position=8))
    model = streaming.decoder(({"attention": mechanism},) * 2)
    settings = {"max_new_tokens": 50, "min_new_tokens": 50}
    wanted = keras_seqattn.generate(model, [[7, 11, 60, 9, 23], [42]], **settings)
    for target in ("ort", "portable"):
        assert export(model, tmp_path / target, target=target).ok
        bundle = runtime.load(tmp_path / target, threads=1)
        assert bundle.generate([[7, 11, 60, 9, 23], [42]], **settings) == wanted


def test_what_cannot_be():
    with pytest.raises(ValueError, match="num_sinks must be a whole number from 1"):
        SinkLocal(0, 4)
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    with pytest.raises(ValueError, match="cannot depend on the length"):
        SinkLocal(4, 4, RotaryPositions(4, scaling=scaling))
    with pytest.raises(ValueError, match="SinkLocal is causal"):
        SinkLocal(4, 4)(*heads(3))


def test_operation():
    mechanism, arrays = SinkLocal(SINKS, 5), heads(17)
    real = ragged_mask(17).astype(bool)
    counts = real.cumsum(1).astype("int32")
    out = sink_local_attention(*arrays, real, counts, num_sinks=SINKS, left=5)
    expected = mechanism(*arrays, mask=real, causal=True)
    np.testing.assert_array_equal(to_numpy(out), to_numpy(expected))
