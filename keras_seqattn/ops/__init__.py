"""Tensor maths of sequence models: operations that a backend computes and ONNX has a node for."""

from keras_seqattn.ops.attention import Attention, attention
from keras_seqattn.ops.cache import CacheWrite, cache_write
from keras_seqattn.ops.position_bias import alibi_bias, alibi_slopes
from keras_seqattn.ops.positions import PositionIds, position_ids
from keras_seqattn.ops.rotary import RotaryEmbedding, rotary_embedding

__all__ = [
    "Attention",
    "CacheWrite",
    "PositionIds",
    "RotaryEmbedding",
    "alibi_bias",
    "alibi_slopes",
    "attention",
    "cache_write",
    "position_ids",
    "rotary_embedding",
]
