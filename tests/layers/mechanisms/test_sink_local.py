"""Attention sinks: their definition, positions inside the state, the state, the file."""

import numpy as np
import pytest

from keras_seqattn.layers import RotaryPositions
from keras_seqattn.layers.mechanisms import SinkLocal
from tests.mechanisms import check_export, check_mechanism, check_states, softmax_attention

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
    check_states(SinkLocal(SINKS, 7, positions), 53, (2, 38, 13))


def test_export(tmp_path):
    check_export(SinkLocal(SINKS, 60, POSITIONS), tmp_path, causal=True)
