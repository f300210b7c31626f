"""Finds the lengths of inputs that a Keras model accepts, by trying them."""

# How far above a wanted length an accepted length is searched.
_REACH = 256


def lengths_taken(wanted, takes):
    """The lengths for a comparison: for each wanted one, the next length that the model accepts.

    A model may need a minimum length (a slice, a window) or a multiple (equal parts, blocks).

    Args:
        wanted: ascending ints.
        takes: function of a length -> whether the model runs on it.

    Returns:
        list of ascending ints; empty if the model accepts none.
    """
    found = []
    for first in wanted:
        # Multiples of n are n apart. If the first one was far away, each later one may be as far.
        reach = found[0] if found else _REACH
        length = next((n for n in range(first, first + reach) if n in found or takes(n)), None)
        if length is not None and length not in found:
            found.append(length)
        if not found:
            break
    return found
