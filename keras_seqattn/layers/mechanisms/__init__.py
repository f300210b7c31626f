"""Attention mechanisms: what `attention=` of MultiHeadAttention and of the blocks takes."""

from keras_seqattn.layers.mechanisms.dense import Dense
from keras_seqattn.layers.mechanisms.linear import Linear
from keras_seqattn.layers.mechanisms.linformer import Linformer
from keras_seqattn.layers.mechanisms.mechanism import Mechanism
from keras_seqattn.layers.mechanisms.performer import Performer

__all__ = ["Dense", "Linear", "Linformer", "Mechanism", "Performer"]
