"""Rounding of weights to 4 and 8 bits, and the byte layout of packed 4-bit values; NumPy only."""

import concurrent.futures

import numpy as np

# Fractions of the full range of a block that are tried as its range. If a few outliers are clipped,
# the steps are finer for the other values. Four candidates lose at most 1 % of
# the gain of a dense search.
_RANGES = (1.0, 0.93, 0.86, 0.79)
# Number of elements that are rounded at a time, so that temporary arrays stay in the second-level
# cache.
_PIECE = 1 << 16
# A block with a smaller range is all zeros, because its scale would not fit into float32.
_NOTHING = 1e-30


def int8_columns(weight):
    """Symmetric 8-bit rounding, one scale per column: w ~ q * scale.

    Args:
        weight: float (k, n).

    Returns:
        (q int8 (k, n) within -127..127, scales float32 (n,)).
    """
    weight = np.asarray(weight, np.float32)
    scales = np.abs(weight).max(axis=0, initial=0) / np.float32(127)
    quotient = np.divide(weight, scales, out=np.zeros_like(weight), where=scales > 0)
    np.rint(quotient, out=quotient)
    return quotient.astype(np.int8), np.where(scales > 0, scales, np.float32(1))


def blocks(rows, block_size, bits):
    """Rounding in blocks along the rows: w ~ (q - zero_point) * scale.

    For each block, a few ranges are tried, and the one with the smallest squared error is taken.
    For given integers u = q - zero_point, the best scale is <w, u> / <u, u>.

    Args:
        rows: float (n, k).
        block_size: number of values that share a scale. The last block is padded with zeros.
        bits: 4 or 8.

    Returns:
        (q uint8 (n, blocks, block_size), scales float32 and zero_points uint8 (n, blocks)).
    """
    n, k = rows.shape
    count = -(-k // block_size)
    q = np.empty((n, count, block_size), np.uint8)
    scales = np.empty((n, count), np.float32)
    zeros = np.empty((n, count), np.uint8)
    step = max(1, _PIECE // (count * block_size))

    def work(start):
        part = slice(start, start + step)
        piece = np.asarray(rows[part], np.float32)
        piece = np.pad(piece, ((0, 0), (0, count * block_size - k))).reshape(-1, block_size)
        rounded = _round(piece, 2**bits - 1)
        for target, values in zip((q, scales, zeros), rounded, strict=True):
            target[part] = values.reshape(target[part].shape)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(work, range(0, n, step)))
    return q, scales, zeros


def _round(w, top):
    """(q, scales, zero points) of blocks (number, size)."""
    low, high = np.minimum(w.min(axis=1), 0), np.maximum(w.max(axis=1), 0)
    spread = np.where(high - low > _NOTHING, high - low, 1).astype(np.float32)
    zero = np.clip(np.rint(-low * top / spread), 0, top).astype(np.float32)
    best, scale = np.zeros(len(w), np.float32), spread / np.float32(top)
    for part in _RANGES:
        u = _integers(w, spread * np.float32(part / top), zero, top)
        along = np.einsum("ij,ij->i", w, u)
        square = np.maximum(np.einsum("ij,ij->i", u, u), 1)
        # |w - s u|^2 at the best s is |w|^2 - <w, u>^2 / <u, u>.
        gain = along * along / square
        better = gain > best
        best = np.where(better, gain, best)
        scale = np.where(better, along / square, scale)
    q = _integers(w, scale, zero, top) + zero[:, None]
    return q.astype(np.uint8), scale, zero.astype(np.uint8)


def _integers(w, scale, zero, top):
    u = w / scale[:, None]
    np.rint(u, out=u)
    return np.clip(u, -zero[:, None], top - zero[:, None], out=u)


def pack_nibbles(q):
    """Pairs of 4-bit values along the last axis as one byte. The first is the low half.

    Args:
        q: uint8 (..., n) below 16. If n is odd, a zero is added.

    Returns:
        uint8 (..., ceil(n / 2)).
    """
    if q.shape[-1] % 2:
        q = np.concatenate([q, np.zeros_like(q[..., :1])], axis=-1)
    return q[..., 0::2] | q[..., 1::2] << 4
