"""The sparse patterns of Child et al. 2019 (https://arxiv.org/abs/1904.10509), O(n sqrt(n))."""

import keras
import numpy as np
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.blocks import (
    attend_part,
    check_self_attention,
    flatten,
    from_head_blocks,
    head_blocks,
    merge,
    real_blocks,
)
from keras_seqattn.ops.nothing import of_tokens
from keras_seqattn.ops.softmax import NEVER, score_scale


class _Sparse(keras.Operation):
    """Attention to near keys and to some far keys, as in the merged heads of the paper.

    Every head sees both kinds of keys. So two layers connect every position with every other one.

    Args:
        block_size: number of positions in a block.
        causal: leave out later keys.
        scale: factor of the scores; None is `1 / sqrt(d)`.
    """

    def __init__(self, block_size, causal, scale, name):
        super().__init__(name=name)
        self.block_size = block_size
        self.causal = causal
        self.scale = scale

    @of_tokens()
    def call(self, query, key, value, mask=None):
        check_self_attention(type(self).__name__, query, key)
        size, length, groups = self.block_size, ops.shape(query)[1], key.shape[2]
        blocks = (length + size - 1) // size
        real = real_blocks(query, mask, blocks, size)
        query = head_blocks(
            ops.multiply(query, score_scale(self.scale, query)), blocks, size, groups
        )
        key, value = (flatten(head_blocks(x, blocks, size, groups), 3) for x in (key, value))
        parts = (part(query, key, value, real) for part in (self._near, self._far))
        return from_head_blocks(merge(*parts), length)

    def _other_blocks(self, blocks):
        """Whether a block of keys is before (or after) a block of queries, bool (nb, nb)."""
        place = ops.arange(blocks, dtype="int32")
        query, key = ops.expand_dims(place, 1), ops.expand_dims(place, 0)
        return ops.less(key, query) if self.causal else ops.not_equal(key, query)

    def compute_output_spec(self, query, key, value, mask=None):
        return keras.KerasTensor((*query.shape[:3], value.shape[3]), query.dtype)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class StridedAttention(_Sparse):
    """Attention to keys j with `0 <= i - j < stride` or `(i - j) mod stride = 0`, O(n sqrt(n)).

    Without `causal`, the first condition is `|i - j| < stride`. The cost is
    n (2 stride + n / stride) scores, without `causal` n (3 stride + n / stride). Take a stride near
    sqrt(n).

    Args:
        stride: distance between the far keys.
        causal: leave out later keys.
        scale: factor of the scores; None is `1 / sqrt(d)`.

    Raises:
        ValueError: the stride is below 1.
    """

    @checked
    def __init__(self, stride, causal=False, scale=None, *, name=None):
        if stride < 1:
            raise ValueError(f"The stride must be 1 or more. Received: stride={stride}")
        super().__init__(stride, causal, scale, name)

    def _near(self, query, key, value, real):
        size = self.block_size
        around = range(-1, 1 if self.causal else 2)
        key, value = (_neighbours(x, around) for x in (key, value))
        real = _neighbours(ops.expand_dims(real, 1), around)
        place = np.arange(size)[:, None]
        distance = np.arange(-size, size * around[-1] + size)[None] - place
        band = (distance > -size) & (distance < (1 if self.causal else size))
        allowed = ops.logical_and(ops.expand_dims(real, (3, 4)), band)
        return attend_part(query, key, value, ops.where(allowed, 0.0, NEVER))

    def _far(self, query, key, value, real):
        """Position p of a block attends to position p of other blocks: one sequence for each p."""
        query = ops.transpose(query, (0, 1, 4, 3, 2, 5))  # (b, g, size, h / g, nb, d)
        key, value = (ops.swapaxes(x, 2, 3) for x in (key, value))
        real = ops.expand_dims(ops.swapaxes(real, 1, 2), (1, 3, 4))  # (b, 1, size, 1, 1, nb)
        allowed = ops.logical_and(real, self._other_blocks(ops.shape(query)[4]))
        part = attend_part(query, key, value, ops.where(allowed, 0.0, NEVER))
        return tuple(ops.transpose(x, (0, 1, 4, 3, 2, 5)) for x in part)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class FixedAttention(_Sparse):
    """Attention to keys of the same block, or to the last `summary` keys of each earlier block.

    Without `causal`, to the last `summary` keys of every other block. Blocks begin at the first
    position, even if it is padding. The cost is n (block + summary n / block) scores.

    Args:
        block_size: number of positions in a block.
        summary: number of positions at the end of a block that other blocks attend to.
        causal: leave out later keys.
        scale: factor of the scores; None is `1 / sqrt(d)`.

    Raises:
        ValueError: `summary` is not between 1 and `block_size`.
    """

    @checked
    def __init__(self, block_size, summary, causal=False, scale=None, *, name=None):
        if not 1 <= summary <= block_size:
            raise ValueError(
                "The summary must have between 1 and block_size positions. Received: "
                f"block_size={block_size}, summary={summary}"
            )
        super().__init__(block_size, causal, scale, name)
        self.summary = summary

    def _near(self, query, key, value, real):
        allowed = ops.expand_dims(real, (1, 3, 4))
        if self.causal:
            allowed = ops.logical_and(allowed, np.tri(self.block_size, dtype=bool))
        return attend_part(query, key, value, ops.where(allowed, 0.0, NEVER))

    def _far(self, query, key, value, real):
        blocks = ops.shape(query)[2]
        start, shape = self.block_size - self.summary, query.shape
        # All queries of a block see the same keys of other blocks.
        whole = ops.expand_dims(flatten(query, 3), 2)  # (b, g, 1, nb, h / g * size, d)
        key, value = (ops.expand_dims(flatten(x[:, :, :, start:], 2), 2) for x in (key, value))
        real = ops.expand_dims(flatten(real[:, :, start:], 1), (1, 2, 3, 4))
        other = ops.repeat(self._other_blocks(blocks), self.summary, axis=1)
        allowed = ops.logical_and(real, ops.expand_dims(other, 1))
        part = attend_part(whole, key, value, ops.where(allowed, 0.0, NEVER))
        return tuple(ops.reshape(x, (-1, shape[1], blocks, *shape[3:5], x.shape[5])) for x in part)


def strided_attention(query, key, value, mask=None, *, stride, causal=False, scale=None):
    """Attention to the last keys and to every `stride`-th key; see `StridedAttention`.

    Args:
        query: float (b, t, h, d).
        key: float (b, t, g, d), where g divides h; query head i uses key head `i // (h / g)`.
        value: float (b, t, g, e).
        mask: bool or int (b, t), nonzero = real; with None all are real.
        stride, causal, scale: as in `StridedAttention`.

    Returns:
        float (b, t, h, e); zeros if a query may attend to nothing.
    """
    return StridedAttention(stride, causal, scale)(query, key, value, mask)


def fixed_attention(query, key, value, mask=None, *, block_size, summary, causal=False, scale=None):
    """Attention to the own block and to the ends of other blocks; see `FixedAttention`.

    Args:
        query: float (b, t, h, d).
        key: float (b, t, g, d), where g divides h; query head i uses key head `i // (h / g)`.
        value: float (b, t, g, e).
        mask: bool or int (b, t), nonzero = real; with None all are real.
        block_size, summary, causal, scale: as in `FixedAttention`.

    Returns:
        float (b, t, h, e); zeros if a query may attend to nothing.
    """
    return FixedAttention(block_size, summary, causal, scale)(query, key, value, mask)


def _neighbours(x, around):
    """Join each block with the blocks at given distances; zeros beyond the ends.

    (b, g, nb, size, ...) becomes (b, g, nb, k size, ...).
    """
    blocks, rest = ops.shape(x)[2], [[0, 0]] * (len(x.shape) - 3)
    padded = ops.pad(x, [[0, 0], [0, 0], [-around[0], around[-1]], *rest])
    parts = [padded[:, :, offset : offset + blocks] for offset in range(len(around))]
    return ops.concatenate(parts, axis=3)
