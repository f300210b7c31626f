"""Divides pairs of texts into training, validation and test sets without leaks."""

import hashlib
import re
import typing

_WORD = re.compile(r"[^\W\d_]+")


class Split(typing.NamedTuple):
    """Lists of (source, target) texts."""

    train: list
    validation: list
    test: list


def split_pairs(pairs, validation=0.02, test=0.02):
    """Divide pairs by the hash of their source text.

    Texts that differ only in case, digits, punctuation or blanks have one hash, so they all
    fall on one side. A pair's side depends on its own text alone: more data move nothing.

    Args:
        pairs: iterable of (source, target) texts.
        validation: float, the share of the validation set.
        test: float, the share of the test set.

    Returns:
        Split of three lists, each in the order of `pairs`.
    """
    parts = Split([], [], [])
    for source, target in pairs:
        place = _place(source)
        if place < test:
            parts.test.append((source, target))
        elif place < test + validation:
            parts.validation.append((source, target))
        else:
            parts.train.append((source, target))
    return parts


def _place(text):
    """A number in [0, 1) that depends on the words of the text only."""
    words = " ".join(_WORD.findall(text.casefold()))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") / 2**64
