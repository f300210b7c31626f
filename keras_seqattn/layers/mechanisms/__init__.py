"""Attention mechanisms: what `attention=` of MultiHeadAttention and of the blocks takes."""

from keras_seqattn.layers.mechanisms.dense import Dense
from keras_seqattn.layers.mechanisms.mechanism import Mechanism

__all__ = ["Dense", "Mechanism"]
