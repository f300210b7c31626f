"""What a call at the next length will take, judged by the lengths before."""

# From a length to its double a cost grows by no more than a square, and a little.
_STEEPEST = 4.4


def expected(cells, length):
    """The cost of a length by its growth from a quarter to half of it.

    Args:
        cells: dict length -> cell with seconds and bytes, or with what was expected of them.
        length: int.

    Returns:
        dict of seconds and bytes; None where half or a quarter of the length is not known.
    """
    half, quarter = (_cost(cells.get(length // n)) for n in (2, 4))
    if half is None or quarter is None:
        return None
    return {key: half[key] * _growth(half[key], quarter[key]) for key in ("seconds", "bytes")}


def reason_to_skip(cells, length, longest_call, most_bytes):
    """Why a call should not be made, or None.

    Args:
        cells, length: as for `expected`.
        longest_call: float, in seconds.
        most_bytes: int.

    Returns:
        str or None.
    """
    half = cells.get(length // 2)
    if half is not None and _cost(half) is None:
        return "fails at half of it"
    cost = expected(cells, length)
    if cost is not None and cost["bytes"] > most_bytes:
        return f"about {cost['bytes'] / 2**30:.0f} GiB"
    if cost is not None and cost["seconds"] > longest_call:
        return f"about {cost['seconds']:.0f} s"
    return None


def _cost(cell):
    """The seconds and bytes of a cell, measured or expected; None if it failed or is absent."""
    cell = (cell or {}).get("expected", cell)
    return cell if cell and "seconds" in cell else None


def _growth(half, quarter):
    return min(max(half / max(quarter, 1e-9), 1.0), _STEEPEST)
