"""Keras layers over the operations: attention, positions, feed-forward and blocks."""

from keras_seqattn.layers.attention import MultiHeadAttention
from keras_seqattn.layers.blocks import DecoderBlock, EncoderBlock
from keras_seqattn.layers.embedding import TokenEmbedding
from keras_seqattn.layers.feed_forward import FeedForward
from keras_seqattn.layers.positions import (
    ALiBi,
    PositionEmbedding,
    RotaryPositions,
    SinusoidalPositions,
)

__all__ = [
    "ALiBi",
    "DecoderBlock",
    "EncoderBlock",
    "FeedForward",
    "MultiHeadAttention",
    "PositionEmbedding",
    "RotaryPositions",
    "SinusoidalPositions",
    "TokenEmbedding",
]
