"""Mutations of good input: what mistakes, damage and malice make of JSON values and of bytes.

Every function takes the `numpy.random.Generator` of the case first, and leaves its input as it is.
"""

import copy
import json

# Numbers at the edges of types, beyond them, and no numbers.
NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 255, 1000, 10**6, 10**9, 10**12, 10**18, 10**30),
    *(2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**31), -(2**63), -(2**63) - 1),
    *(0.0, -0.0, 0.5, 1.5, -1.5, 1e-300, 1e-8, 1e30, 1e308, -1e308),
    *(float("nan"), float("inf"), float("-inf")),
)
STRINGS = (
    *("", " ", "x", "0", "1", "-1", "3.5", "true", "null", "none", "auto", "default"),
    *("\0", "a\0b", "\n", "\ud800", "x\udfff", "\ufeff", "\u202e", "é", "日本語", "😀"),
    *("../up", "/etc/passwd", "a/b", "C:\\x", "." * 300, "x" * 10**5),
    *("{{ 1/0 }}", "{0}", "%s", "(?P<x", "<s>", "[MASK]"),
)
SCALARS = (None, True, False, *NUMBERS, *STRINGS)


def pick(random, options):
    """One of a sequence."""
    return options[int(random.integers(len(options)))]


def hostile(random):
    """A JSON value that hardly any place expects."""
    kind = random.random()
    if kind < 0.75:
        return pick(random, SCALARS)
    if kind < 0.85:
        return [pick(random, SCALARS) for _ in range(int(random.integers(4)))]
    if kind < 0.95:
        keys = [pick(random, STRINGS) for _ in range(int(random.integers(3)))]
        return {key: pick(random, SCALARS) for key in keys}
    return nested(random, int(pick(random, (2, 10, 300, 900))))


def nested(random, depth):
    """Lists in lists, or objects in objects."""
    value, is_list = pick(random, SCALARS), random.random() < 0.5
    for _ in range(depth):
        value = [value] if is_list else {"x": value}
    return value


def like(random, value):
    """A value of the same kind as `value`, or nearly so: it gets past a check of the type."""
    if isinstance(value, bool):
        return pick(random, (not value, int(value), str(value)))
    if isinstance(value, int):
        near = (value + 1, value - 1, -value, 2 * value, value // 2, 10 * value, float(value))
        return pick(random, (*near, str(value), [value], *NUMBERS))
    if isinstance(value, float):
        return pick(random, (-value, 10 * value, 1 / value if value else 1.0, [value], *NUMBERS))
    if isinstance(value, str):
        return pick(random, (value[:-1], value + "x", value.upper(), value * 2, *STRINGS))
    if isinstance(value, list):
        return pick(random, (value[:-1], value + value, value[::-1], [value], dict.fromkeys("ab")))
    if isinstance(value, dict):
        return pick(random, (list(value), list(value.items()), {}, {"x": value}))
    return hostile(random)


def mutate_json(random, value, keys=None):
    """A copy of a JSON value with one change at a random place.

    Args:
        random: numpy.random.Generator.
        value: a dict or list.
        keys: None, or names to choose from where a member is added to an object: those that a
            reader looks for.

    Returns:
        The copy; seldom a value of another kind.
    """
    if random.random() < 0.02:
        return hostile(random)
    try:
        value = copy.deepcopy(value)
    except RecursionError:  # an earlier change has nested it as deep as it can be
        return value
    places = list(_places(value))
    if not places or (keys and isinstance(value, dict) and random.random() < 0.25):
        return _with_member(random, value, keys or STRINGS)
    holder, key = pick(random, places)
    action = random.random()
    if action < 0.4:
        holder[key] = like(random, holder[key])
    elif action < 0.75:
        holder[key] = hostile(random)
    elif action < 0.87:
        del holder[key]
    elif isinstance(holder, dict):
        other = pick(random, (*holder, *(keys or STRINGS)))
        holder[other] = holder.pop(key) if action < 0.93 else copy.deepcopy(holder[key])
    elif action < 0.93:
        holder.insert(int(key), copy.deepcopy(holder[key]))
    else:
        holder[key], holder[0] = holder[0], holder[key]
    return value


def json_bytes(random, value, keys=None, text_share=0.1):
    """A JSON file with one change: in its value, or in its text.

    Args:
        random: numpy.random.Generator.
        value: a dict or list, the content of a good file.
        keys: as in `mutate_json`.
        text_share: part of the changes that are made in the text.
    """
    if random.random() < text_share:
        return _mutate_text(random, value)
    return _dump(mutate_json(random, value, keys))


def mutate_bytes(random, data):
    """Bytes with one damage: cut, flipped, overwritten, left out, repeated or inserted."""
    data = bytearray(data)
    if not data:
        return bytes(random.bytes(8))
    start = int(random.integers(len(data)))
    length = int(min(len(data) - start, pick(random, (1, 1, 2, 4, 8, 64))))
    action = int(random.integers(7))
    if action == 0:
        del data[start:]
    elif action == 1:
        data[start] ^= 1 << int(random.integers(8))
    elif action == 2:
        data[start : start + length] = random.bytes(length)
    elif action == 3:
        data[start : start + length] = pick(random, (b"\0", b"\xff", b"\x7f")) * length
    elif action == 4:
        del data[start : start + length]
    elif action == 5:
        data[start:start] = data[start : start + length]
    else:
        data[start:start] = random.bytes(length)
    return bytes(data)


def _places(value):
    """Every (container, key) below a JSON value."""
    if isinstance(value, dict):
        members = list(value.items())
    elif isinstance(value, list):
        # A long list is no more interesting than its first members.
        members = list(enumerate(value[:20]))
    else:
        return
    for key, member in members:
        yield value, key
        yield from _places(member)


def _with_member(random, value, keys):
    new = hostile(random)
    if isinstance(value, dict):
        value[pick(random, tuple(keys))] = new
    elif isinstance(value, list):
        value.append(new)
    else:
        return new
    return value


def _mutate_text(random, value):
    """What only the text of a JSON file can hold, or damage to its bytes."""
    data = _dump(value)
    action = int(random.integers(8))
    if action == 0:
        return b"\xef\xbb\xbf" + data
    if action == 1:
        return data.decode("utf-8").encode(pick(random, ("utf-16", "utf-32", "utf-16-le")))
    if action == 2 and isinstance(value, dict) and value:
        # The same key a second time.
        key = pick(random, tuple(value))
        return b"{" + f"{json.dumps(key)}: {json.dumps(hostile(random))}, ".encode() + data[1:]
    if action == 3:
        depth = pick(random, (10, 1000, 10**5))
        return pick(random, (b"[", b'{"a":')) * depth + data
    if action == 4:
        digits = [index for index, byte in enumerate(data) if byte in b"0123456789"]
        place = pick(random, digits) if digits else 0
        number = pick(random, (b"1e400", b"-1e400", b"1" * 5000, b"1e-400", b"0x10", b"01"))
        return data[:place] + number + data[place + 1 :]
    if action == 5:
        return data + pick(random, (b"{}", b"\0", b" ", b"x", data))
    return mutate_bytes(random, data)


def _dump(value):
    return json.dumps(value).encode("utf-8")
