"""Attention to each near key, and to averages of far keys over larger and larger cells."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.blocks import check_self_attention
from keras_seqattn.ops.gather import take_tokens
from keras_seqattn.ops.nothing import of_tokens
from keras_seqattn.ops.precision import full_precision
from keras_seqattn.ops.softmax import NEVER, score_scale


@keras.saving.register_keras_serializable(package="keras_seqattn")
class HierarchicalAttention(keras.Operation):
    """`softmax(scale q k~') v`, where k~ is the mean key of the cell of a key.

    At level l, the sequence is cut into cells of `2 ** l` tokens, and into blocks of `block_size`
    cells. A query attends to a key at the lowest level where their blocks are the same block or
    neighbours. At level 0 it attends to the key itself, at higher levels to the cell of the key.
    Positions count from the first real token.

    Args:
        block_size: number of cells in a block, even.
        levels: number of levels above level 0. A query sees at least `block_size * 2 ** levels`
            tokens on either side. It does not attend to keys beyond the last level.
        causal: attend to the past only.
        scale: factor of the scores; None is `1 / sqrt(d)`.

    Raises:
        ValueError: a block size that is odd or below 2, or levels below 0.
    """

    @checked
    def __init__(self, block_size, levels, causal=False, scale=None, *, name=None):
        super().__init__(name=name)
        if block_size < 2 or block_size % 2 or levels < 0:
            raise ValueError(
                "block_size must be even and 2 or more, levels 0 or more. Received: "
                f"block_size={block_size}, levels={levels}"
            )
        self.block_size = block_size
        self.levels = levels
        self.causal = causal
        self.scale = scale

    @of_tokens("cells", "length")
    def call(self, query, key, value, mask=None, cells=None, length=None):
        check_self_attention("Hierarchical", query, key)
        if cells is not None and not self.causal:
            raise ValueError("Hierarchical attention has a state only if it is causal.")
        dtype = full_precision(query.dtype)
        scale = score_scale(self.scale, query)
        places = _Places(self.block_size, query, mask, length)
        queries = places.align(ops.multiply(ops.cast(query, dtype), scale))
        sums = _Sums(_split_groups(queries, places.blocks, self.block_size, key.shape[2]))
        cells_of_tokens = places.align(_as_cells(key, value, mask, dtype))
        level = _Level(cells_of_tokens, places.blocks, places.first)
        present = []
        for height in range(self.levels + 1):
            if height:
                level = _pool(level, self.block_size)
            past = None if cells is None else ops.cast(cells[:, height], dtype)
            blocks = _blocks(level, past, self.block_size)
            near = _average_keys(blocks, query.shape[3])
            for part, allowed in self._parts(near, level, height, places.numbers):
                sums.add(part, allowed)
            if cells is not None:
                last = ops.floor_divide(places.end, self.block_size << height)
                present.append(_last_two(blocks, level, last))
        out = ops.cast(places.restore(sums.result(query.shape[2])), query.dtype)
        if cells is None:
            return out
        return out, ops.cast(ops.stack(present, axis=1), cells.dtype), places.end

    def _parts(self, blocks, level, height, numbers):
        """The cells (b, nq, g, s, w) that the blocks of queries attend to, with their masks."""
        size = self.block_size
        if height == 0:
            left, own, right = blocks[:, :-2], blocks[:, 1:-1], blocks[:, 2:]
            if not self.causal:
                return [(ops.concatenate([left, own, right], axis=3), None)]
            earlier = np.arange(2 * size) <= np.arange(size, 2 * size)[:, None]
            return [(ops.concatenate([left, own], axis=3), earlier)]
        # One half of a neighbour is near enough for the level below.
        left_half = np.arange(size) < size // 2
        below = ops.equal(ops.mod(ops.floor_divide(numbers, 2 ** (height - 1)), 2), 1)
        is_right = ops.reshape(below, (-1, ops.shape(numbers)[-1], 1, 1, 1))
        left = ops.subtract(ops.floor_divide(numbers, 2**height), level.first)
        parts = [(_pick(blocks, level, left), ops.logical_or(is_right, left_half))]
        if not self.causal:
            allowed = ops.logical_not(ops.logical_and(is_right, left_half))
            parts.append((_pick(blocks, level, ops.add(left, 2)), allowed))
        return parts

    def compute_output_spec(self, query, key, value, mask=None, cells=None, length=None):
        out = keras.KerasTensor((*query.shape[:3], value.shape[3]), query.dtype)
        if cells is None:
            return out
        return out, *(keras.KerasTensor(old.shape, old.dtype) for old in (cells, length))


def hierarchical_attention(
    query,
    key,
    value,
    mask=None,
    cells=None,
    length=None,
    *,
    block_size,
    levels,
    causal=False,
    scale=None,
):
    """Attention to far keys by averages over their cells; `O(n block_size levels)`.

    Args:
        query: float (b, t, h, d).
        key: float (b, t, g, d), where g divides h.
        value: float (b, t, g, e).
        mask: bool or int (b, t), nonzero = real.
        cells: float32 (b, levels + 1, 2 block_size, g, d + e + 1), the state of the earlier tokens.
            It holds for each level the cells of the current block and of the block before it. Each
            cell has the sum of its keys, the sum of its values, and its number of tokens. Zeros
            mean no tokens.
        length: int32 (b,), with `cells`: the number of earlier positions.
        block_size, levels, causal, scale: as in `HierarchicalAttention`.

    Returns:
        float (b, t, h, e), zeros if a query may attend to nothing; with `cells`, a tuple of this,
        the new cells and the new length.
    """
    operation = HierarchicalAttention(block_size, levels, causal, scale)
    return operation(query, key, value, mask, cells, length)


class _Places:
    """The positions of tokens in blocks. The blocks of a row begin at its first real token.

    Args:
        size: number of tokens in a block.
        x: float (b, t, ...), the new tokens; only their number is used.
        mask: bool or int (b, t), or None.
        length: None, or int32 (b,), the number of earlier positions.

    Attributes:
        blocks: the number nq of blocks that hold the new tokens.
        numbers: int32 (nq,) or (b, nq), the indices of these blocks in the row.
        first: the first of these indices, 0 or int32 (b, 1).
        end: int32 (b,), the number of positions up to the last new token; only with `length`.
    """

    def __init__(self, size, x, mask, length):
        self.count = ops.shape(x)[1]
        # After earlier positions, the first new token may be anywhere in a block.
        spare = size - 1 if length is None else 2 * size - 2
        self.blocks = (self.count + spare) // size
        self.total = self.blocks * size
        self.numbers, self.first, self.move = ops.arange(self.blocks, dtype="int32"), 0, None
        leading = None
        if mask is not None:
            seen = ops.cumsum(ops.cast(ops.cast(mask, "bool"), "int32"), axis=1)
            leading = ops.sum(ops.cast(ops.equal(seen, 0), "int32"), axis=1, keepdims=True)
            self.move = leading
        if length is not None:
            start = ops.expand_dims(ops.cast(length, "int32"), 1)
            leading = 0 if leading is None else ops.where(ops.equal(start, 0), leading, 0)
            self.first = ops.floor_divide(start, size)
            self.numbers = ops.add(self.numbers, self.first)
            self.end = ops.squeeze(ops.subtract(ops.add(start, self.count), leading), 1)
            self.move = ops.subtract(leading, ops.mod(start, size))

    def align(self, x):
        """Put float (b, t, ...) into whole blocks (b, nq * size, ...), filled with zeros."""
        if self.move is None:
            behind = [0, self.total - self.count]
            return ops.pad(x, [[0, 0], behind, *[[0, 0]] * (len(x.shape) - 2)])
        index = ops.add(ops.arange(self.total, dtype="int32"), self.move)
        return _take_rows(x, self.count, index)

    def restore(self, x):
        """The inverse of `align`: float (b, t, ...), zeros for tokens that are in no block."""
        if self.move is None:
            return x[:, : self.count]
        index = ops.subtract(ops.arange(self.count, dtype="int32"), self.move)
        return _take_rows(x, self.total, index)


@dataclasses.dataclass(frozen=True)
class _Level:
    """The cells of one level of the hierarchy.

    The number of blocks is stored and not read from a shape. Otherwise two sizes that are equal at
    one length could be confused in a graph for all lengths.

    Attributes:
        cells: float (b, blocks * size, g, w).
        blocks: the number of blocks.
        first: the index of the first block in the sequence, 0 or int32 (b, 1).
    """

    cells: object
    blocks: object
    first: object


class _Sums:
    """`sum(exp(q k') v) / sum(exp(q k'))`, computed over one part of the keys after another.

    Args:
        query: float (b, nq, g, r, size, d), scaled.
    """

    def __init__(self, query):
        self.shape = query.shape
        self.query = _merge_rows(query)
        self.largest = self.total = None

    def add(self, cells, allowed):
        """Attend to cells.

        Args:
            cells: float (b, nq, g, s, w): mean key, sum of values, and number of tokens.
            allowed: None, or bool (size, s) or (b|1, nq, 1, 1, s).
        """
        dim = self.shape[-1]
        keys = ops.swapaxes(cells, -1, -2)
        scores = ops.matmul(self.query, keys[..., :dim, :])
        real = ops.greater(keys[..., -1:, :], 0.5)
        if isinstance(allowed, np.ndarray):
            allowed = np.tile(allowed, (self.shape[3], 1))
        if allowed is not None:
            real = ops.logical_and(real, allowed)
        scores = ops.where(real, scores, NEVER)
        largest = ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True))
        if self.total is not None:
            largest = ops.maximum(largest, self.largest)
        total = ops.matmul(ops.exp(ops.subtract(scores, largest)), cells[..., dim:])
        if self.total is not None:
            kept = ops.exp(ops.subtract(self.largest, largest))
            total = ops.add(total, ops.multiply(self.total, kept))
        self.largest, self.total = largest, total

    def result(self, heads):
        """float (b, nq * size, h, e), zeros for queries that may attend to nothing."""
        out = ops.divide(self.total[..., :-1], ops.maximum(self.total[..., -1:], 1e-30))
        out = ops.where(ops.greater(self.largest, 0.5 * NEVER), out, 0.0)
        blocks, (groups, rows, size), width = ops.shape(out)[1], self.shape[2:5], out.shape[-1]
        out = ops.reshape(out, (-1, blocks, groups, rows, size, width))
        out = ops.transpose(out, (0, 1, 4, 2, 3, 5))
        return ops.reshape(out, (-1, blocks * size, heads, width))


def _as_cells(key, value, mask, dtype):
    """Cells of one token each: float (b, t, g, d + e + 1), key, value and 1; zeros for padding."""
    key, value = ops.cast(key, dtype), ops.cast(value, dtype)
    cells = ops.concatenate([key, value, ops.ones_like(key[..., :1])], axis=-1)
    if mask is None:
        return cells
    mask = ops.cast(ops.cast(mask, "bool"), dtype)
    return ops.multiply(cells, ops.expand_dims(ops.expand_dims(mask, 2), 3))


def _split_groups(query, blocks, size, groups):
    """float (b, nq * size, h, d) to (b, nq, g, h / g, size, d)."""
    heads, dim = query.shape[2:]
    query = ops.reshape(query, (-1, blocks, size, groups, heads // groups, dim))
    return ops.transpose(query, (0, 1, 3, 4, 2, 5))


def _merge_rows(x):
    """float (b, nq, g, r, size, d) to (b, nq, g, r * size, d)."""
    groups, rows, size, dim = x.shape[2:]
    return ops.reshape(x, (-1, ops.shape(x)[1], groups, rows * size, dim))


def _pool(level, size):
    """The next level: cells of twice as many tokens, beginning at the start of a block."""
    half, (groups, width) = size // 2, level.cells.shape[2:]
    count, first = level.blocks * half, level.first
    cells = ops.sum(ops.reshape(level.cells, (-1, count, 2, groups, width)), axis=2)
    if not isinstance(first, int):
        # An odd block is the right half of a block of the next level.
        odd = ops.reshape(ops.equal(ops.mod(first, 2), 1), (-1, 1, 1, 1))
        cells = ops.where(odd, _pad(cells, half, 0), _pad(cells, 0, half))
        first, count = ops.floor_divide(first, 2), count + half
    blocks = (count + size - 1) // size
    return _Level(_pad(cells, 0, blocks * size - count), blocks, first)


def _blocks(level, past, size):
    """The blocks of a level and one block at either end: float (b, blocks + 2, g, size, w).

    Args:
        level: a `_Level`.
        past: None, or float (b, 2 * size, g, w), earlier cells of the first block and of the block
            before it.
        size: number of cells in a block.
    """
    groups, width = level.cells.shape[2:]
    cells = _pad(level.cells, size, size)
    if past is not None:
        cells = ops.add(cells, _pad(past, 0, level.blocks * size))
    cells = ops.reshape(cells, (-1, level.blocks + 2, size, groups, width))
    return ops.transpose(cells, (0, 1, 3, 2, 4))


def _average_keys(cells, dim):
    """Divide the first `dim` channels, the sums of keys, by the number of tokens."""
    number = ops.maximum(cells[..., -1:], 1.0)
    return ops.concatenate([ops.divide(cells[..., :dim], number), cells[..., dim:]], axis=-1)


def _pick(blocks, level, index):
    """The blocks with the indices int (u,), the same for every row, or (b, u)."""
    if len(index.shape) == 1:
        return ops.take(blocks, index, axis=1)
    return _take_rows(blocks, level.blocks + 2, index)


def _last_two(blocks, level, last):
    """Block number `last` of `_blocks` and the block before it, as the next `past`."""
    places = ops.subtract(ops.expand_dims(last, 1), level.first)
    places = ops.add(places, np.array([[0, 1]], "int32"))
    pair = _take_rows(blocks, level.blocks + 2, places)
    _, _, groups, size, width = pair.shape
    return ops.reshape(ops.transpose(pair, (0, 1, 3, 2, 4)), (-1, 2 * size, groups, width))


def _take_rows(x, length, index):
    """`out[b, u] = x[b, index[b, u]]`, zeros for an index that x does not have.

    Args:
        x: float (b, s, ...).
        length: s.
        index: int (b, u).

    Returns:
        float (b, u, ...).
    """
    inside = ops.logical_and(ops.greater_equal(index, 0), ops.less(index, length))
    inside = ops.reshape(inside, (*ops.shape(inside), *[1] * (len(x.shape) - 2)))
    return ops.where(inside, take_tokens(x, ops.maximum(index, 0)), 0.0)


def _pad(cells, before, behind):
    return ops.pad(cells, [[0, 0], [before, behind], [0, 0], [0, 0]])
