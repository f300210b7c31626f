"""Attention to a window around each query; the cost is length times window.

The queries are cut into blocks. The keys that a block may see are in one frame of neighbouring
blocks. So the scores are products of small matrices, and every block has the same band as its mask.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.blocks import (
    block_scores,
    check_self_attention,
    from_head_blocks,
    head_blocks,
    weigh_blocks,
)
from keras_seqattn.ops.broadcasting import add
from keras_seqattn.ops.masks import band_mask, real_tokens
from keras_seqattn.ops.nothing import of_tokens
from keras_seqattn.ops.softmax import NEVER, score_scale

_SMALLEST_BLOCK = 32


@keras.saving.register_keras_serializable(package="keras_seqattn")
class LocalAttention(keras.Operation):
    """`softmax(scale q k') v` over keys `j = i + dilation m` with `-left <= m <= right`.

    Time and memory are O(t (left + right)). In ONNX an If chooses by the length: a text that fits
    into one block is not padded to it, so a single token costs no more than its window.

    Args:
        left, right: number of keys before and after its own key that a query attends to.
        dilation: distance between two neighbours among these keys.
        scale: factor of the scores; None is `1 / sqrt(d)`.
        block_size: number of queries in a block. None takes about `sqrt((left + right) d g / h)`:
            with this size, copying the keys into frames costs as much as the scores outside the
            band.

    Raises:
        ValueError: a side of the window is negative, or the dilation or the block size is below 1.
    """

    @checked
    def __init__(self, left, right=0, dilation=1, scale=None, block_size=None, *, name=None):
        super().__init__(name=name)
        if min(left, right) < 0 or dilation < 1 or (block_size is not None and block_size < 1):
            raise ValueError(
                "left and right must be 0 or more, dilation and block_size 1 or more. Received: "
                f"left={left}, right={right}, dilation={dilation}, block_size={block_size}"
            )
        self.left = left
        self.right = right
        self.dilation = dilation
        self.scale = scale
        self.block_size = block_size

    @of_tokens("past_key", "past_value", "past_mask")
    def call(
        self,
        query,
        key,
        value,
        mask=None,
        past_key=None,
        past_value=None,
        past_mask=None,
        shared_key=None,
        shared_value=None,
        shared_mask=None,
        shared_query=None,
    ):
        self._check_call(query, key, past_key, shared_key)
        length, extends = ops.shape(query)[1], past_key is not None
        real = real_tokens(key, mask)
        key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (key, value))
        if extends:
            key, value = (
                ops.concatenate(pair, axis=2) for pair in ((past_key, key), (past_value, value))
            )
            real = ops.concatenate([_as_bool(past_mask), real], axis=1)
        present = key[:, :, length:], value[:, :, length:], real[:, length:]
        shared = None
        if shared_key is not None:
            shared_query = query if shared_query is None else shared_query
            shared = self._scaled(shared_query), shared_key, shared_value, _as_bool(shared_mask)
        query, real = (_residues(x, self.dilation, 1) for x in (self._scaled(query), real))
        key, value = (_residues(x, self.dilation, 2) for x in (key, value))
        out = self._attend(query, key, value, real, extends, shared)
        if mask is not None:
            out = ops.where(self._any_key(real, extends, shared), out, 0.0)
        out = _from_residues(out, self.dilation)[:, :length]
        return (out, *present[:2], ops.cast(present[2], past_mask.dtype)) if extends else out

    def _check_call(self, query, key, past_key, shared_key):
        check_self_attention("Local attention", query, key)
        if shared_key is not None and self.dilation > 1:
            raise ValueError(
                "Keys that all queries share need a window without dilation. Received: "
                f"dilation={self.dilation}"
            )
        if past_key is not None and self.right:
            raise ValueError(
                "After a past a query attends to no later keys, which are not there yet. Received: "
                f"right={self.right}"
            )

    def _scaled(self, query):
        return ops.multiply(query, score_scale(self.scale, query))

    def _attend(self, query, key, value, real, extends, shared):
        """Without dilation: float (b, t, h, d), (b, g, s, d), (b, g, s, e) and bool (b, s)."""
        bias = ops.expand_dims(ops.where(real, 0.0, NEVER), (1, 3))
        size = self.block_size or self._block_size(query, key)

        def one_block():
            length, total = ops.shape(query)[1], ops.shape(key)[2]
            places = ops.add(ops.arange(length, dtype="int32"), total - length)
            window = self.left, self.right
            band = band_mask(places, ops.arange(total, dtype="int32"), window=window)
            parts = (ops.expand_dims(x, 2) for x in (key, value, bias))
            return _attend_frames(query, 1, length, *parts, band, shared)

        def many_blocks():
            length, width = ops.shape(query)[1], self.left + self.right
            blocks, overlap = (length + size - 1) // size, -(-width // size)
            padding = [0 if extends else self.left, (blocks + overlap) * size - self.left - length]
            parts = (
                _frames(x, fill, padding, size, overlap)
                for x, fill in ((key, 0.0), (value, 0.0), (bias, NEVER))
            )
            band = band_mask(np.arange(size), np.arange((overlap + 1) * size), window=(0, width))
            return _attend_frames(query, blocks, size, *parts, band, shared)

        length = query.shape[1]
        if length is not None:
            return one_block() if length <= size else many_blocks()
        # A compiled TensorFlow function fails on gradients through a condition on its shapes.
        if isinstance(query, keras.KerasTensor):
            return ops.cond(ops.shape(query)[1] <= size, one_block, many_blocks)
        return many_blocks()

    def _block_size(self, query, key):
        queries = query.shape[2] // key.shape[1]
        best = math.sqrt(max(self.left + self.right, 1) * query.shape[3] / queries)
        return max(_SMALLEST_BLOCK, 2 ** round(math.log2(best)))

    def _any_key(self, real, extends, shared):
        """Whether each query may attend to any key, bool (b, t, 1, 1)."""
        before = 0 if extends else self.left
        counts = ops.pad(ops.cast(real, "int32"), [[0, 0], [before + 1, self.right]])
        counts = ops.cumsum(counts, axis=1)
        width = self.left + self.right + 1
        some = ops.greater(ops.subtract(counts[:, width:], counts[:, :-width]), 0)
        if shared is not None:
            mask = shared[3] if len(shared[3].shape) == 3 else ops.expand_dims(shared[3], 1)
            some = ops.logical_or(some, ops.any(mask, axis=-1))
        return ops.expand_dims(some, (2, 3))

    def compute_output_spec(
        self,
        query,
        key,
        value,
        mask=None,
        past_key=None,
        past_value=None,
        past_mask=None,
        *shared,
        **named_shared,
    ):
        out = keras.KerasTensor((*query.shape[:3], value.shape[3]), query.dtype)
        if past_key is None:
            return out
        past = (past_key, past_value, past_mask)
        return (out, *(keras.KerasTensor(x.shape, x.dtype) for x in past))


def local_attention(
    query,
    key,
    value,
    mask=None,
    past_key=None,
    past_value=None,
    past_mask=None,
    shared_key=None,
    shared_value=None,
    shared_mask=None,
    shared_query=None,
    *,
    left,
    right=0,
    dilation=1,
    scale=None,
    block_size=None,
):
    """Attention to a window (https://arxiv.org/abs/2004.05150), and to keys that all queries share.

    The result is zero for a query that may attend to nothing.

    Args:
        query: float (b, t, h, d).
        key: float (b, t, g, d), where g divides h; query head i uses key head `i // (h / g)`.
        value: float (b, t, g, e).
        mask: bool or int (b, t), nonzero = attend; None allows every key.
        past_key, past_value: float (b, g, left * dilation, d) and (b, g, left * dilation, e), the
            keys and values just before the new ones; they need `right=0`.
        past_mask: bool or int (b, left * dilation), nonzero = attend.
        shared_key: float (b, S, g, d), additional keys, in one softmax with the keys of the window;
            they need `dilation=1`.
        shared_value: float (b, S, g, e).
        shared_mask: bool or int (b, S) or (b, t, S), nonzero = attend.
        shared_query: float (b, t, h, d), the queries for the shared keys; None is `query`.
        left, right, dilation, scale, block_size: as in `LocalAttention`.

    Returns:
        float (b, t, h, e). With a past, a tuple of this and the last `left * dilation` keys, values
        and mask: they are the past of the next call.

    Raises:
        ValueError: queries and keys have different lengths, a past comes with `right`, shared keys
            come with a dilation, or as in `LocalAttention`.
    """
    operation = LocalAttention(left, right, dilation, scale, block_size)
    past = past_key, past_value, past_mask
    return operation(
        query, key, value, mask, *past, shared_key, shared_value, shared_mask, shared_query
    )


def _frames(x, fill, padding, size, overlap):
    """Cut a sequence into frames: each block together with the next `overlap` blocks.

    Args:
        x: float (b, g, s, d).
        fill: the number for the padding.
        padding: number of positions added before and after, which makes n + overlap blocks.
        size: number of positions in a block.
        overlap: number of blocks.

    Returns:
        float (b, g, n, (1 + overlap) * size, d).
    """
    x = ops.pad(x, [[0, 0], [0, 0], padding, [0, 0]], constant_values=fill)
    blocks = ops.shape(x)[2] // size
    x = ops.reshape(x, (-1, x.shape[1], blocks, size, x.shape[3]))
    shifts = [x[:, :, first : first + blocks - overlap] for first in range(overlap + 1)]
    return ops.concatenate(shifts, axis=3)


def _attend_frames(query, blocks, size, key, value, bias, band, shared):
    """Attention of each block of queries to its frame of keys.

    Args:
        query: float (b, t, h, d), scaled.
        blocks, size: as in `head_blocks`.
        key, value: float (b, g, blocks, s, d) and (b, g, blocks, s, e).
        bias: float (b, 1, blocks, s, 1), added to the scores of each key.
        band: bool (1, 1, size, s), the keys of the frame that a query may attend to.
        shared: None, or query, key, value and mask, as in `local_attention`.

    Returns:
        float (b, t, h, e).
    """
    groups, length = key.shape[1], ops.shape(query)[1]
    query = head_blocks(query, blocks, size, groups)
    bias = ops.expand_dims(ops.swapaxes(bias, 3, 4), 3)
    # The two masks are added first, because the scores are much larger: they are read only once.
    scores = block_scores(query, key, add(bias, ops.where(band, 0.0, NEVER)))
    if shared is not None:
        shared_scores, shared_value = _shared_frames(shared, blocks, size)
        scores = ops.concatenate([scores, shared_scores], axis=-1)
        value = ops.concatenate([value, shared_value], axis=3)
    return from_head_blocks(weigh_blocks(scores, value), length)


def _shared_frames(shared, blocks, size):
    """Scores (b, g, blocks, h / g, size, S) and values (b, g, blocks, S, e) of shared keys."""
    query, key, value, mask = shared
    key, value = (ops.expand_dims(ops.transpose(x, (0, 2, 1, 3)), 2) for x in (key, value))
    bias = ops.where(mask, 0.0, NEVER)
    if len(mask.shape) == 2:
        bias = ops.expand_dims(bias, (1, 2, 3, 4))
    else:
        bias = head_blocks(ops.expand_dims(bias, 2), blocks, size, 1)
    scores = block_scores(head_blocks(query, blocks, size, key.shape[1]), key, bias)
    sizes = ops.shape(value)
    return scores, ops.broadcast_to(value, (*sizes[:2], blocks, *sizes[3:]))


def _as_bool(mask):
    return ops.cast(mask, "bool")


def _residues(x, dilation, axis):
    """Positions 0, D, 2 D, ..., then 1, D + 1, ...: (b, ..., t, ...) to (b D, ..., t / D, ...)."""
    if dilation == 1:
        return x
    sizes = ops.shape(x)
    count = (sizes[axis] + dilation - 1) // dilation
    padding = [[0, 0] for _ in x.shape]
    padding[axis][1] = count * dilation - sizes[axis]
    x = ops.reshape(ops.pad(x, padding), (-1, *sizes[1:axis], count, dilation, *sizes[axis + 1 :]))
    x = ops.moveaxis(x, axis + 1, 1)
    return ops.reshape(x, (sizes[0] * dilation, *sizes[1:axis], count, *sizes[axis + 1 :]))


def _from_residues(x, dilation):
    """The inverse of `_residues` along axis 1, with its padding: float (b, t, h, e)."""
    if dilation == 1:
        return x
    rows, count, heads, width = ops.shape(x)
    batch = rows // dilation
    x = ops.swapaxes(ops.reshape(x, (batch, dilation, count, heads, width)), 1, 2)
    return ops.reshape(x, (batch, count * dilation, heads, width))
