"""Which lengths of inputs a Keras model takes, found by asking it."""

# How far above a length the first one is looked for that the model takes.
_REACH = 256


def lengths_taken(wanted, takes):
    """The lengths to compare at: for each wanted one the first from there on that the model takes.

    A model may need a least length (a slice, a window) or a multiple of one (equal parts, blocks).

    Args:
        wanted: ascending ints.
        takes: function of a length -> whether the model runs on it.

    Returns:
        list of ascending ints, empty if the model takes none.
    """
    found = []
    for first in wanted:
        # A multiple of n comes again after n, so that what was far at first is as far later.
        reach = found[0] if found else _REACH
        length = next((n for n in range(first, first + reach) if n in found or takes(n)), None)
        if length is not None and length not in found:
            found.append(length)
        if not found:
            break
    return found
