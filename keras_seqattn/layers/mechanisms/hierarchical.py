"""Hierarchical attention as a mechanism."""

import keras

from keras_seqattn.layers.mechanisms.mechanism import Mechanism
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.hierarchical import HierarchicalAttention


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Hierarchical(Mechanism):
    """Attention to each near token, and to averages of far tokens over larger and larger cells.

    This is the hierarchy of H-Transformer-1D (https://arxiv.org/abs/2107.11906), in both directions
    or causal. There is one difference: queries are not averaged, because an average over later
    queries would let the future influence the past. This costs `O(n log n)` instead of `O(n)`.

    One graph serves every length, so the number of levels is an argument. With a given number the
    cost is `O(n)`: each level adds `block_size` keys to a query, or twice as many in both
    directions. Decoding keeps `2 block_size (levels + 1)` cells.

    Landmarks (Nystroem) were not chosen, because their segments span the whole sequence. They have
    no causal form, and they change with the length.

    Args:
        block_size: number of cells in a block, even.
        levels: as in `ops.HierarchicalAttention`: a query sees at least `block_size * 2 ** levels`
            tokens on either side.

    Raises:
        ValueError: as in `ops.HierarchicalAttention`; or it is called with keys of another length
            than the queries, or with a state but not `causal`.

    Example:
        DecoderBlock(12, 64, 3072, attention=Hierarchical(block_size=32, levels=8))
    """

    @checked
    def __init__(self, block_size=32, levels=8, **kwargs):
        super().__init__(**kwargs)
        self.settings = {"block_size": block_size, "levels": levels}
        HierarchicalAttention(**self.settings)

    def state_shapes(self, num_heads, num_key_value_heads, head_dim, value_dim):
        rows = self.settings["levels"] + 1, 2 * self.settings["block_size"]
        width = head_dim + value_dim + 1
        return {
            "cells": ((*rows, num_key_value_heads, width), "float32"),
            "length": ((), "int32"),
        }

    def call(
        self, query, key, value, mask=None, state=None, causal=False, scale=None, training=None
    ):
        operation = HierarchicalAttention(**self.settings, causal=causal, scale=scale)
        if state is None:
            return operation(query, key, value, mask)
        out, *present = operation(query, key, value, mask, *state)
        return out, tuple(present)

    def get_config(self):
        return {**super().get_config(), **self.settings}
