"""Strided and fixed sparse attention as mechanisms."""

import keras

from keras_seqattn.layers.mechanisms.mechanism import Mechanism
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.sparse import FixedAttention, StridedAttention


class _Sparse(Mechanism):
    """The common part of both patterns. They have no state, because every key stays in use."""

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

    Query i attends to keys j with `0 <= i - j < stride` or `(i - j) mod stride = 0`: the last keys,
    and every `stride`-th key before them. Without `causal` this holds on both sides. It is made for
    data with a period, for example the rows of an image. Every head attends to both kinds of keys.

    Args:
        stride: near sqrt(n), or the period of the data.

    Raises:
        ValueError: the stride is below 1, or keys have another length than the queries.

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

    A query attends to the keys of its block, and to the last `summary` keys of every earlier block
    (without `causal`, of every other block). These keys learn to summarise their block. It is made
    for data without a period, for example text. Every head attends to both kinds of keys. Blocks
    begin at the first position, even if it is padding: so pad on the right.

    Args:
        block_size: number of positions in a block, near sqrt(n).
        summary: number of positions at the end of a block that other blocks see.

    Raises:
        ValueError: `summary` is not between 1 and `block_size`, or keys have another length than
            the queries.

    Example:
        DecoderBlock(9, 64, 1536, attention=Fixed(128, summary=8))
    """

    operation = FixedAttention

    @checked
    def __init__(self, block_size, summary, **kwargs):
        super().__init__({"block_size": block_size, "summary": summary}, kwargs)
