"""Block-sparse attention: a window of blocks, two global blocks and a few random ones."""

import functools

import keras
import numpy as np
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.blocks import (
    attend_blocks,
    check_self_attention,
    flatten,
    from_head_blocks,
    head_blocks,
    real_blocks,
)
from keras_seqattn.ops.broadcasting import add
from keras_seqattn.ops.nothing import of_tokens
from keras_seqattn.ops.softmax import NEVER, score_scale

MODES = ("random", "transformers")
# The largest prime whose square fits into int32.
_PRIME = 46337
_GLOBAL, _WINDOW = 2, 3


@keras.saving.register_keras_serializable(package="keras_seqattn")
class BlockSparseAttention(keras.Operation):
    """BigBird's attention (https://arxiv.org/abs/2007.14062): blocks attend to few blocks, O(n).

    The positions are cut into blocks, beginning at the first position. A query in block i attends
    to the keys of the global blocks (the first and the last block), of the blocks i - 1, i and
    i + 1, and of `num_random_blocks` other blocks. Queries in the global blocks attend to every
    key. No key counts twice, and padding never counts.

    mode="random": the global blocks of a row are its first and its last block with a real token, so
    additional blocks of padding on either side change nothing. Each key/value head draws its own
    random blocks. Let c be the number of blocks between the global blocks, these included, and let
    i count from the first of them. The random blocks are
    `(i + 2 + h(i) mod max(c - 3, 1)) mod c`, where h is a cubic polynomial in i modulo 46337 with
    coefficients drawn from `seed`. A draw that is a global block is dropped.

    mode="transformers": the same as the transformers package in inference. The global blocks are
    the first and the last block of the padded array. Every random block is the first block; its
    keys count once more for each of them (`log(1 + num_random_blocks)` is added to their scores).
    If there are at most `5 + 2 num_random_blocks` blocks, every query attends to every key.

    Args:
        block_size: number of positions in a block.
        num_random_blocks: number of random blocks for each block of queries.
        seed: seed of the random blocks.
        mode: "random" or "transformers".
        scale: factor of the scores; None is `1 / sqrt(d)`.

    Raises:
        ValueError: a size that is not positive, or an unknown mode.
    """

    @checked
    def __init__(
        self, block_size=64, num_random_blocks=3, seed=0, mode="random", scale=None, *, name=None
    ):
        super().__init__(name=name)
        if block_size < 1 or num_random_blocks < 0:
            raise ValueError(
                "block_size must be 1 or more and num_random_blocks 0 or more. Received: "
                f"block_size={block_size}, num_random_blocks={num_random_blocks}"
            )
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}. Received: mode={mode!r}")
        self.block_size = block_size
        self.num_random_blocks = num_random_blocks
        self.seed = seed
        self.mode = mode
        self.scale = scale

    @of_tokens()
    def call(self, query, key, value, mask=None):
        check_self_attention("Block-sparse attention", query, key)
        size, length, groups = self.block_size, ops.shape(query)[1], key.shape[2]
        blocks = (length + size - 1) // size
        real = real_blocks(query, mask, blocks, size)
        query = head_blocks(
            ops.multiply(query, score_scale(self.scale, query)), blocks, size, groups
        )
        key, value = (flatten(head_blocks(x, blocks, size, groups), 3) for x in (key, value))
        ends = self._global_blocks(real)
        out = self._sparse_rows(query, key, value, real, ends)
        full = _full_rows(query, key, value, real, ends)
        place = ops.reshape(ops.arange(blocks, dtype="int32"), (1, 1, -1, 1, 1, 1))
        for index, end in enumerate(ends):
            is_end = ops.equal(place, ops.expand_dims(end, (-1, -2)))
            out = ops.where(is_end, full[:, :, index : index + 1], out)
        return from_head_blocks(out, length)

    def _global_blocks(self, real):
        """The first and the last block, int (b|1, 1, 1, 1) each."""
        blocks = ops.shape(real)[1]
        if self.mode == "transformers":
            first, last = ops.zeros((1,), dtype="int32"), ops.arange(blocks, dtype="int32")[-1:]
        else:
            place = ops.expand_dims(ops.arange(blocks, dtype="int32"), 0)
            some = ops.any(real, axis=2)
            last = ops.max(ops.where(some, place, 0), axis=1, keepdims=True)
            first = ops.min(ops.where(some, place, last), axis=1)
        return tuple(ops.reshape(x, (-1, 1, 1, 1)) for x in (first, last))

    def _sparse_rows(self, query, key, value, real, ends):
        table, extra = self._table(ops.shape(real)[1], key.shape[1], ends)
        table, allowed = _checked(table, ops.shape(real)[1])
        key, value = (flatten(_gather(x, table), 3) for x in (key, value))
        real = _gather(ops.expand_dims(real, 1), table)  # (b, g|1, nb, slots, size)
        allowed = ops.logical_and(real, ops.expand_dims(allowed, -1))
        bias = flatten(ops.where(allowed, ops.expand_dims(extra, -1), NEVER), 3)
        return attend_blocks(query, key, value, ops.expand_dims(bias, (3, 4)))

    def _table(self, blocks, groups, ends):
        """The blocks that each block attends to, and a bias for the scores.

        Returns:
            int (b|1, g|1, nb, slots), in which a number may be no block or come twice; and float
            (slots,) or (1,), added to the scores of each slot.
        """
        first, last = ends
        place = ops.reshape(ops.arange(blocks, dtype="int32"), (1, 1, -1, 1))
        window = add(place, ops.convert_to_tensor(np.arange(-1, 2, dtype="int32")))
        slots = [first, last, window]
        if self.mode == "random":
            if self.num_random_blocks:
                slots.append(self._random_blocks(place, groups, *ends))
            return _side_by_side(slots), np.zeros((1,), "float32")
        # A short sequence attends to all its blocks, so it needs one slot for each.
        width = _GLOBAL + _WINDOW + 2 * self.num_random_blocks
        if self.num_random_blocks:
            slots.append(np.full((1, 1, 1, 2 * self.num_random_blocks), -1, "int32"))
        is_short = ops.less(ops.reshape(last, (1,)), width)
        repeats = np.zeros((width,), "float32")
        repeats[0] = np.log1p(np.float64(self.num_random_blocks))
        table = ops.where(is_short, np.arange(width, dtype="int32"), _side_by_side(slots))
        return table, ops.where(is_short, np.zeros_like(repeats), repeats)

    def _random_blocks(self, place, groups, first, last):
        """int (b, g, nb, r), by the formula above."""
        random = np.random.default_rng(self.seed)
        shape = (4, 1, groups, 1, self.num_random_blocks)
        drawn, place = 0, ops.subtract(place, first)
        for coefficient in random.integers(1, _PRIME, shape).astype("int32"):
            drawn = ops.multiply(drawn, ops.mod(place, _PRIME))
            drawn = ops.mod(add(drawn, ops.convert_to_tensor(coefficient)), _PRIME)
        behind = ops.subtract(last, first)
        drawn = ops.add(ops.mod(drawn, ops.maximum(ops.subtract(behind, 2), 1)), 2)
        return add(ops.mod(add(drawn, place), ops.add(behind, 1)), first)

    def compute_output_spec(self, query, key, value, mask=None):
        return keras.KerasTensor((*query.shape[:3], value.shape[3]), query.dtype)


def block_sparse_attention(
    query,
    key,
    value,
    mask=None,
    *,
    block_size=64,
    num_random_blocks=3,
    seed=0,
    mode="random",
    scale=None,
):
    """Attention between blocks that leaves out most blocks far away; see `BlockSparseAttention`.

    Args:
        query: float (b, t, h, d).
        key: float (b, t, g, d), where g divides h; query head i uses key head `i // (h / g)`.
        value: float (b, t, g, e).
        mask: bool or int (b, t), nonzero = real; with None every position is real.
        block_size, num_random_blocks, seed, mode, scale: as in `BlockSparseAttention`.

    Returns:
        float (b, t, h, e); zeros in rows that are only padding.
    """
    operation = BlockSparseAttention(block_size, num_random_blocks, seed, mode, scale)
    return operation(query, key, value, mask)


def _gather(x, table):
    """Blocks by number: (b, g|1, nb, ...) and int (b|1, g|1, nb', k) to (b, g, nb', k, ...)."""
    groups, blocks = x.shape[1], ops.shape(x)[2]
    rows = ops.arange(ops.shape(x)[0] * groups, dtype="int32")
    starts = ops.reshape(ops.multiply(rows, blocks), (-1, groups, 1, 1))
    # Every backend and ONNX can gather from one flat axis directly.
    return ops.take(ops.reshape(x, (-1, *x.shape[3:])), add(table, starts), axis=0)


def _side_by_side(tables):
    """Join tables along the last axis; their other axes broadcast."""
    zero = functools.reduce(ops.subtract, [ops.multiply(x[..., :1], 0) for x in tables])
    return ops.concatenate([ops.subtract(x, zero) for x in tables], axis=-1)


def _checked(table, blocks):
    """The table with valid numbers, and where it names an existing block for the first time."""
    equal = ops.equal(ops.expand_dims(table, -1), ops.expand_dims(table, -2))
    earlier = np.tri(table.shape[-1], k=-1, dtype=bool)
    again = ops.any(ops.logical_and(equal, earlier), axis=-1)
    exists = ops.logical_and(ops.greater_equal(table, 0), ops.less(table, blocks))
    table = ops.minimum(ops.maximum(table, 0), blocks - 1)
    return table, ops.logical_and(exists, ops.logical_not(again))


def _full_rows(query, key, value, real, ends):
    """The results of the queries in the two global blocks, float (b, g, 2, h / g, size, e)."""
    _, groups, _, heads, size, width = query.shape
    query = _gather(query, ops.concatenate(ends, axis=3))
    query = ops.reshape(query, (-1, groups, 1, len(ends) * heads, size, width))
    key, value = (ops.expand_dims(flatten(x, 2), 2) for x in (key, value))
    bias = ops.where(flatten(real, 1), 0.0, NEVER)
    out = attend_blocks(query, key, value, ops.expand_dims(bias, (1, 2, 3, 4)))
    return ops.reshape(out, (-1, groups, len(ends), heads, size, value.shape[4]))
