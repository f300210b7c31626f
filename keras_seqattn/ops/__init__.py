"""Tensor maths of sequence models: operations that a backend computes and ONNX has a node for."""

from keras_seqattn.ops.attention import Attention, attention
from keras_seqattn.ops.cache import CacheWrite, UncachedContext, cache_write, uncached_context
from keras_seqattn.ops.position_bias import (
    alibi_bias,
    alibi_slopes,
    distance_buckets,
    relative_position_bias,
)
from keras_seqattn.ops.positions import (
    NewTokens,
    PositionIds,
    SlotPositions,
    StreamPositions,
    new_tokens,
    position_ids,
    slot_positions,
    stream_positions,
)
from keras_seqattn.ops.rotary import RotaryEmbedding, rotary_embedding

__all__ = [
    "Attention",
    "CacheWrite",
    "NewTokens",
    "PositionIds",
    "RotaryEmbedding",
    "SlotPositions",
    "StreamPositions",
    "UncachedContext",
    "alibi_bias",
    "alibi_slopes",
    "attention",
    "cache_write",
    "distance_buckets",
    "new_tokens",
    "position_ids",
    "relative_position_bias",
    "rotary_embedding",
    "slot_positions",
    "stream_positions",
    "uncached_context",
]
