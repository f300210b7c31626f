"""JSON from strangers: what the standard allows, each name once, and no deep nesting."""

import json
import math

_MAX_DEPTH = 64


def parse_json(data):
    """The value of a JSON text.

    Refused beside what is no JSON: NaN and Infinity, which Python reads but the standard does not
    have, numbers beyond float64, a name twice in one object (readers differ in which one wins),
    halves of surrogate pairs (no file can hold them), and nesting deeper than 64.

    Args:
        data: bytes, UTF-8.

    Returns:
        dict, list, str, int, float, bool or None.

    Raises:
        ValueError: says what is wrong.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_float=_float,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        raise ValueError(f"nested deeper than {_MAX_DEPTH}") from None
    _check_strings_and_depth(value)
    return value


def _object(pairs):
    members = dict(pairs)
    if len(members) < len(pairs):
        seen = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the name {twice[:80]!r} stands twice in one object")
    return members


def _float(text):
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _refuse_constant(name):
    raise ValueError(f"{name} is not JSON")


def _check_strings_and_depth(value):
    level, depth = [value], 0
    while level:
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested deeper than {_MAX_DEPTH}")
        below = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, list):
                below += item
            elif isinstance(item, dict):
                below += item.keys()
                below += item.values()
        level, depth = below, depth + 1


def _check_text(text):
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair stands in a string") from None
