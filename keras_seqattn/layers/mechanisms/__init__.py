"""Attention mechanisms, for the argument `attention=` of MultiHeadAttention and of the blocks."""

from keras_seqattn.layers.mechanisms.block_sparse import BlockSparse
from keras_seqattn.layers.mechanisms.full import Full
from keras_seqattn.layers.mechanisms.global_local import GlobalLocal
from keras_seqattn.layers.mechanisms.hierarchical import Hierarchical
from keras_seqattn.layers.mechanisms.linearized import Linearized
from keras_seqattn.layers.mechanisms.linformer import Linformer
from keras_seqattn.layers.mechanisms.local import Local
from keras_seqattn.layers.mechanisms.mechanism import Mechanism
from keras_seqattn.layers.mechanisms.performer import Performer
from keras_seqattn.layers.mechanisms.sink_local import SinkLocal
from keras_seqattn.layers.mechanisms.sparse import Fixed, Strided

__all__ = [
    "BlockSparse",
    "Full",
    "Fixed",
    "GlobalLocal",
    "Hierarchical",
    "Linearized",
    "Linformer",
    "Local",
    "Mechanism",
    "Performer",
    "SinkLocal",
    "Strided",
]
