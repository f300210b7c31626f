"""Reading and writing checkpoints, and the engine that maps names and axes to variables."""

from keras_seqattn.weights.rows import (
    WeightRow,
    attention_rows,
    dense_rows,
    fused_rows,
    layer_norm_rows,
)
from keras_seqattn.weights.table import Table

__all__ = ["Table", "WeightRow", "attention_rows", "dense_rows", "fused_rows", "layer_norm_rows"]
