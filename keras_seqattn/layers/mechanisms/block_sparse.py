"""Block-sparse attention as a mechanism."""

import keras

from keras_seqattn.layers.mechanisms.mechanism import Mechanism
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.block_sparse import BlockSparseAttention


@keras.saving.register_keras_serializable(package="keras_seqattn")
class BlockSparse(Mechanism):
    """BigBird's attention (https://arxiv.org/abs/2007.14062): blocks attend to few blocks, O(n).

    Each block attends to itself, its two neighbours, the first and the last block, and some random
    blocks. The first and the last block attend to every key. Only for self-attention in both
    directions.

    Args:
        block_size: number of positions in a block.
        num_random_blocks: number of random blocks for each block of queries.
        seed: seed of the random blocks, which are the same in training and inference. Give each
            layer of a model another seed, so that a layer can see what an earlier layer left out.
        mode: "random"; or "transformers", which computes the same as that package in inference. See
            `ops.BlockSparseAttention`.

    Raises:
        ValueError: as in `ops.BlockSparseAttention`; or it is called with `causal`, or with keys
            of another length than the queries.

    Example:
        EncoderBlock(12, 64, 3072, attention=BlockSparse(block_size=64, num_random_blocks=3))
    """

    @checked
    def __init__(self, block_size=64, num_random_blocks=3, seed=0, mode="random", **kwargs):
        super().__init__(**kwargs)
        self.settings = {
            "block_size": block_size,
            "num_random_blocks": num_random_blocks,
            "seed": seed,
            "mode": mode,
        }
        BlockSparseAttention(**self.settings)

    def call(
        self, query, key, value, mask=None, state=None, causal=False, scale=None, training=None
    ):
        if causal:
            raise ValueError(
                "BlockSparse attends to later positions (its last block is global), so it cannot "
                "be causal; use Local, Strided or Fixed."
            )
        self.refuse(state)
        return BlockSparseAttention(**self.settings, scale=scale)(query, key, value, mask)

    def get_config(self):
        return {**super().get_config(), **self.settings}
