"""Limits the time and memory of one rendering of a chat template from a stranger.

One unit is about one byte that is made or read. Every operation of a template pays before it is
done. So time and memory cannot exceed the budget, however the template is written.
"""

import contextlib
import contextvars
import re
from collections.abc import ItemsView, KeysView, ValuesView

from keras_seqattn.errors import InputError

# Real templates need some ten thousand units per message. This budget is at most a second or two.
_UNITS = 32 << 20
_UNITS_PER_BYTE = 64
OPERATION, ITEM, NODE = 100, 64, 20
_DEPTH = 100
# To hash nested tuples, Python uses recursion without a check of the depth.
_NESTING = 200
_INTEGER_BITS = 4096
_CONTAINERS = (dict, list, tuple, set, frozenset, KeysView, ItemsView, ValuesView)
# A width of four or more digits, or a width that is an argument.
_WIDE = re.compile(r"%[^%a-zA-Z]*?(?:\d{4,}|\*)|%\([^)]*\)[^%a-zA-Z]*?(?:\d{4,}|\*)")
_current = contextvars.ContextVar("budget")


class TooMuch(InputError):
    """A template asks for more time or memory than the budget has."""


class Budget:
    """The remaining units of one rendering.

    Args:
        size: int, bytes of the input of the template. Long conversations may take longer.
    """

    def __init__(self, size):
        self.left = _UNITS + _UNITS_PER_BYTE * size
        self._depth = 0

    @contextlib.contextmanager
    def spent_here(self):
        """Let the operations of the block be paid from this budget."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    @contextlib.contextmanager
    def deeper(self):
        """Go one call deeper."""
        self._depth += 1
        if self._depth > _DEPTH:
            raise TooMuch(f"its calls are nested more than {_DEPTH} deep")
        try:
            yield
        finally:
            self._depth -= 1


def budget():
    """The Budget of the current rendering."""
    return _current.get()


def spend(units):
    """Pay for the next operation.

    Raises:
        TooMuch: the budget has fewer units left.
    """
    current = _current.get()
    current.left -= units
    if current.left < 0:
        raise TooMuch("it takes too many steps or makes too much text")


def text_size(text):
    """int, the bytes of a text in memory, or a little more."""
    return len(text) if text.isascii() else 4 * len(text)


def shallow_size(value):
    """int, the units of a value without the content of its elements."""
    if isinstance(value, str):
        return text_size(value)
    if isinstance(value, _CONTAINERS):
        return ITEM * len(value)
    if isinstance(value, int) and value.bit_length() > _INTEGER_BITS:
        raise TooMuch("it makes an integer of more than 1,000 digits")
    return 0


def deep_size(value, limit=None):
    """int, the units of a value with all its content. An item that occurs twice counts twice.

    If each list of a chain holds the next one twice, their text is exponentially long, and so is
    the time to compare them.

    Args:
        value: anything.
        limit: int, the maximum number of units. None takes what the budget has left.

    Raises:
        TooMuch: the value has more units.
    """
    if isinstance(value, str):
        return text_size(value)
    limit = _current.get().left if limit is None else limit
    total, level = 0, [value]
    for _ in range(_NESTING):
        level, above = [], level
        for item in above:
            total += shallow_size(item)
            if total > limit:
                raise TooMuch("a list or mapping is too large, or holds itself")
            if isinstance(item, _CONTAINERS):
                level.extend(item)
            if isinstance(item, dict):
                level.extend(item.values())
        if not level:
            return total
    raise TooMuch(f"a list or mapping is nested more than {_NESTING} deep, or holds itself")


def search_cost(text, part, backwards=False):
    """int, the maximum number of units to search a text in another."""
    size = len(text)
    # From the front, long texts are searched in linear time.
    products = size * len(part) if backwards else min(size, 30_000) * min(len(part), 2_500)
    return size + products // 16


def product_bits(left, right):
    """Check the size of left * right, for two integers."""
    if left.bit_length() + right.bit_length() > _INTEGER_BITS:
        raise TooMuch("it makes an integer of more than 1,000 digits")


def power_bits(base, exponent):
    """Check the size of base ** exponent, for two integers."""
    if base.bit_length() * abs(exponent) > _INTEGER_BITS:
        raise TooMuch("it makes an integer of more than 1,000 digits")


def percent_cost(template, values):
    """int, the units of `template % values`.

    Raises:
        TooMuch: a field is wider than 999.
    """
    if _WIDE.search(template):
        raise TooMuch("it asks for a field wider than 999 characters")
    return len(template) + 1000 * template.count("%") + template.count("%") * deep_size(values)
