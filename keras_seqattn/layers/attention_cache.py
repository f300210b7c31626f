"""A cache that is a buffer: writing into its slots, and a mask of the slots that hold a key."""

from keras import ops

from keras_seqattn.ops.cache import cache_write
from keras_seqattn.ops.masks import band_mask, combine_masks, expand_mask


def write(new, cache, cache_position):
    """Write new keys and values into a buffer, beginning at a slot.

    Args:
        new: tuple of key float (b, t, g, d) and value float (b, t, g, e).
        cache: tuple of key float (b, g, n, d) and value float (b, g, n, e).
        cache_position: int () or (1,), the first slot.

    Returns:
        tuple like `cache`.
    """
    return tuple(cache_write(*pair, cache_position) for pair in zip(cache, new, strict=True))


def query_slots(query, cache, cache_position):
    """int (t,), the positions of the queries among the keys: they follow those of the cache.

    Args:
        query: float (b, t, h, d).
        cache: None, or as in `write`.
        cache_position: None, or as in `write`.
    """
    slots = ops.arange(ops.shape(query)[1], dtype="int32")
    if cache_position is not None:
        return ops.add(slots, ops.reshape(ops.cast(cache_position, "int32"), ()))
    return slots if cache is None else ops.add(slots, ops.shape(cache[0])[2])


def slot_mask(mask, slots, key, causal, window):
    """The mask over the slots of a buffer. Slots after the newest key are empty.

    Args:
        mask: None, or bool or int like `attention_mask` of `MultiHeadAttention`.
        slots: int (t,), the slots of the queries.
        key: float (b, g, n, d).
        causal: queries do not attend to later slots.
        window: None, or inclusive (left, right) distances.

    Returns:
        bool that broadcasts to (b, h, t, n).
    """
    written = band_mask(
        slots if causal else slots[-1:],
        ops.arange(ops.shape(key)[2], dtype="int32"),
        causal=True,
    )
    if window is not None:
        positions = ops.arange(ops.shape(key)[2], dtype="int32")
        written = combine_masks(written, band_mask(slots, positions, window=window))
    return combine_masks(written, None if mask is None else expand_mask(mask))
