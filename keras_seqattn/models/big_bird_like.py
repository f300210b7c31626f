"""The common part of families with BigBird's attention: its settings and its mechanism."""

from keras_seqattn.layers.mechanisms.block_sparse import BlockSparse
from keras_seqattn.models.values import SIZE, Text

SPARSE_DEFAULTS = {"attention_type": "block_sparse", "block_size": 64, "num_random_blocks": 3}
SPARSE_KEYS = {
    "attention_type": Text(("original_full", "block_sparse")),
    "block_size": SIZE,
    "num_random_blocks": SIZE,
}
# The sizes of the scores of one block and of the tables of blocks.
SPARSE_EXTENT = (
    "block_size * block_size",
    "num_random_blocks * block_size",
    "num_random_blocks * num_random_blocks",
)


def sparse_attentions(settings, num_layers):
    """The mechanism of each layer, or None for full attention.

    Args:
        settings: dict with the keys of `SPARSE_DEFAULTS`.
        num_layers: number of layers.

    Returns:
        list of `BlockSparse`, or None.
    """
    if settings["attention_type"] == "original_full":
        return None
    sizes = settings["block_size"], settings["num_random_blocks"]
    return [BlockSparse(*sizes, mode="transformers")] * num_layers


def source_multiple(settings):
    """For `Family.source_multiple`: the result of the attention depends on the number of blocks."""
    return settings["block_size"] if settings["attention_type"] == "block_sparse" else None
