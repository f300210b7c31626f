"""Strided and fixed sparse attention as mechanisms."""

import keras

from keras_seqattn.layers.mechanisms.mechanism import Mechanism
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.sparse import FixedAttention, StridedAttention


class _Sparse(Mechanism):
    """What both patterns share: self-attention, without a state, since every key stays in use."""

    operation = None

    def __init__(self, settings, kwargs):
        super().__init__(**kwargs)
        self.settings = settings
        self.operation(**settings)

    def call(
        self, query, key, value, mask=None, state=None, causal=False, scale=None, training=None
    ):
        self.refuse(state)
        return self.operation(**self.settings, causal=causal, scale=scale)(query, key, value, mask)

    def get_config(self):
        return {**super().get_config(), **self.settings}


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Strided(_Sparse):
    """Sparse Transformer's strided pattern (https://arxiv.org/abs/1904.10509), O(n sqrt(n)).

    Keys j with `0 <= i - j < stride`, or `(i - j) mod stride = 0`: the last ones, and every
    `stride`-th before; without `causal` on both sides. For data with a period, as the rows of an
    image. Every head attends to both kinds.

    Args:
        stride: near sqrt(n), or the period of the data.

    Raises:
        ValueError: a stride below 1; or keys of another length than the queries.

    Example:
        DecoderBlock(9, 64, 1536, attention=Strided(128))
    """

    operation = StridedAttention

    @checked
    def __init__(self, stride, **kwargs):
        super().__init__({"stride": stride}, kwargs)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Fixed(_Sparse):
    """Sparse Transformer's fixed pattern (https://arxiv.org/abs/1904.10509), O(n sqrt(n)).

    Keys of the same block, and the last `summary` ones of every earlier block (without `causal` of
    every other block), which thereby learn to sum it up. For data without a period, as text. Every
    head attends to both kinds. Blocks are counted from the first position, padding included: pad
    on the right.

    Args:
        block_size: positions in a block, near sqrt(n).
        summary: how many of them later blocks see.

    Raises:
        ValueError: `summary` is not between 1 and `block_size`; or keys of another length than the
            queries.

    Example:
        DecoderBlock(9, 64, 1536, attention=Fixed(128, summary=8))
    """

    operation = FixedAttention

    @checked
    def __init__(self, block_size, summary, **kwargs):
        super().__init__({"block_size": block_size, "summary": summary}, kwargs)
