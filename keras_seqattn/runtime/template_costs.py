"""The cost of filters, tests, operators and methods in a chat template, paid before they run.

The units are those of `keras_seqattn.runtime.template_budget`. A cost is an upper bound of the work
and of the size of the result, in addition to the size of the arguments. Too large widths are
refused.
"""

import re
import string

from jinja2.runtime import LoopContext
from jinja2.utils import Cycler

from keras_seqattn.runtime.template_budget import (
    ITEM,
    TooMuch,
    deep_size,
    percent_cost,
    power_bits,
    product_bits,
    search_cost,
    shallow_size,
    text_size,
)


def contains_cost(value, container):
    if isinstance(container, str):
        return search_cost(container, value) if isinstance(value, str) else 0
    return deep_size(value) + (0 if isinstance(container, dict) else deep_size(container))


def binop_cost(operator, left, right):
    both_integers = isinstance(left, int) and isinstance(right, int)
    if operator == "%" and isinstance(left, str):
        return percent_cost(left, right)
    if operator == "*" and both_integers:
        product_bits(left, right)
    elif operator == "*":
        times = [value for value in (left, right) if isinstance(value, int)]
        return (shallow_size(left) + shallow_size(right)) * max([0, *times])
    elif operator == "**" and both_integers:
        power_bits(left, right)
    elif operator != "+":
        return deep_size(left) + deep_size(right)
    return shallow_size(left) + shallow_size(right)


def _to_json_cost(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    for given in (indent, *(separators or ())):
        if (given if isinstance(given, int) else len(given or "")) > 16:
            raise TooMuch("it asks tojson for an indent or a separator of more than 16 characters")
    return 0


def _format_cost(template, *args, **kwargs):
    fields = [spec for _, name, spec, _ in string.Formatter().parse(template) if name is not None]
    if any("{" in spec or re.search(r"\d{4,}", spec) for spec in fields):
        raise TooMuch("it asks for a field wider than 999 characters, or of a computed width")
    values = deep_size([*args, *kwargs.values()])
    return len(fields) * (1000 + values)


def _replace_cost(s, old, new="", count=-1):
    text, old, new = str(s), str(old), str(new)
    found = text.count(old) if count is None or count < 0 else min(text.count(old), count)
    return search_cost(text, old) + found * text_size(new)


def _join_cost(value, d="", attribute=None):
    return text_size(str(d)) * len(value) + deep_size(value)


def _indent_cost(s, width=4, first=False, blank=False):
    size = len(width) if isinstance(width, str) else int(width)
    return (len(str(s).splitlines()) + 1) * max(size, 0)


def _round_cost(value, precision=0, method="common"):
    if abs(int(precision)) > 100:
        raise TooMuch("it asks for a precision above 100")
    return 0


def _sum_cost(iterable, attribute=None, start=0):
    if not isinstance(start, (int, float)):
        raise TypeError("sum adds numbers only")
    return 0


def _width_cost(value, width=80, fill=" "):
    return text_size(str(value)) + 4 * max(int(width), 0)


def _tabs_cost(text, tabsize=8):
    return text.count("\t") * max(int(tabsize), 0)


def _batch_cost(value, linecount, fill_with=None):
    return ITEM * max(int(linecount), 0)


def _slice_cost(value, slices, fill_with=None):
    return ITEM * max(int(slices), 0)


def _strip_cost(value, chars=None):
    return len(str(value)) * (1 + len(chars or "") // 16)


def _split_cost(text, sep=None, maxsplit=-1):
    pieces = text.count(sep) if sep else len(text) // 2
    return search_cost(text, sep or " ") + ITEM * pieces


def _rsplit_cost(text, sep=None, maxsplit=-1):
    return search_cost(text, sep or " ", True) + _split_cost(text, sep)


def _find_cost(text, part, *_):
    return search_cost(text, part)


def _rfind_cost(text, part, *_):
    return search_cost(text, part, True)


def _sort_cost(values, *_, **__):
    # Comparisons per element.
    return 16 * deep_size(values)


FILTERS = (
    "abs attr batch capitalize center count d default dictsort e escape filesizeformat first float "
    "forceescape format groupby indent int items join last length list lower map max min reject "
    "rejectattr replace reverse round safe select selectattr slice sort string sum title tojson "
    "trim truncate unique upper urlencode wordcount"
).split()


# Filters that read the content of the elements of their values.
LOOKED_INTO = frozenset(FILTERS) - frozenset(
    "attr batch count d default first items last length list map reject rejectattr reverse safe "
    "select selectattr slice".split()
)


FILTER_COSTS = {
    "batch": _batch_cost,
    "center": _width_cost,
    "dictsort": _sort_cost,
    "format": lambda template, *args, **kwargs: percent_cost(str(template), args or kwargs),
    "groupby": _sort_cost,
    "indent": _indent_cost,
    "join": _join_cost,
    "replace": _replace_cost,
    "round": _round_cost,
    "slice": _slice_cost,
    "sort": _sort_cost,
    "sum": _sum_cost,
    "tojson": _to_json_cost,
    "trim": _strip_cost,
    "unique": _sort_cost,
}


COMPARING = frozenset(
    "in lower upper == eq equalto != ne > gt greaterthan >= ge < lt lessthan <= le".split()
)


# Types -> the methods that a template may call, and their cost in addition to their arguments.
_TEXT_METHODS = dict.fromkeys(
    "startswith endswith splitlines upper lower title capitalize casefold swapcase isdigit isalpha "
    "isalnum isspace isupper islower istitle isnumeric isdecimal isascii isidentifier isprintable "
    "removeprefix removesuffix".split()
) | {
    "strip": _strip_cost,
    "lstrip": _strip_cost,
    "rstrip": _strip_cost,
    "split": _split_cost,
    "rsplit": _rsplit_cost,
    "partition": _find_cost,
    "rpartition": _rfind_cost,
    "find": _find_cost,
    "index": _find_cost,
    "count": _find_cost,
    "rfind": _rfind_cost,
    "rindex": _rfind_cost,
    "replace": _replace_cost,
    "join": lambda separator, items: _join_cost(items, separator),
    "format": _format_cost,
    "center": _width_cost,
    "ljust": _width_cost,
    "rjust": _width_cost,
    "zfill": _width_cost,
    "expandtabs": _tabs_cost,
}


METHODS = (
    (str, _TEXT_METHODS),
    (dict, dict.fromkeys("get items keys values copy".split())),
    ((list, tuple), {"index": contains_cost, "count": contains_cost, "copy": None}),
    (LoopContext, dict.fromkeys(("cycle", "changed"))),
    (Cycler, dict.fromkeys(("next", "reset"))),
    (float, {"is_integer": None}),
)
