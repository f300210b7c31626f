"""Divides pairs of texts into training, validation and test sets without leaks."""

import collections
import hashlib
import re
import typing

import numpy as np

from keras_seqattn.arguments import number
from keras_seqattn.training.checks import iterable, pair_of_texts

_WORD = re.compile(r"[^\W\d_]+")


class Split(typing.NamedTuple):
    """Lists of (source, target) texts."""

    train: list
    validation: list
    test: list


def split_pairs(pairs, validation=0.02, test=0.02):
    """Divide pairs by the hash of their source text.

    Texts that differ only in case, digits, punctuation or blanks have the same hash, so they are
    all in the same set. The set of a pair depends only on its own text: more data do not change it.

    Args:
        pairs: iterable of (source, target) texts.
        validation: float, the share of the validation set.
        test: float, the share of the test set.

    Returns:
        Split of three lists, each in the order of `pairs`.
    """
    number(validation, "validation", 0, 1)
    number(test, "test", 0, 1)
    parts = Split([], [], [])
    for source, target in map(pair_of_texts, iterable(pairs, "pairs")):
        place = _place(source)
        if place < test:
            parts.test.append((source, target))
        elif place < test + validation:
            parts.validation.append((source, target))
        else:
            parts.train.append((source, target))
    return parts


def without_near_duplicates(pairs, train, overlap=0.7):
    """The pairs whose source is not similar to any source text of a training set.

    Technical texts often repeat each other with another name. A score on the remaining pairs shows
    how the model does on sentences that are really new.

    Args:
        pairs: list of held-out (source, target) texts.
        train: list of (source, target) texts.
        overlap: float. Two texts are near duplicates if the Jaccard similarity of their sets of
            words, |A and B| / |A or B|, is at least this.

    Returns:
        List of the remaining (source, target).
    """
    number(overlap, "overlap", 0, 1)
    pairs = list(map(pair_of_texts, iterable(pairs, "pairs")))
    seen = [_words(source) for source, _ in map(pair_of_texts, iterable(train, "train"))]
    sizes = np.array([len(words) for words in seen], "int32")
    places = collections.defaultdict(list)
    for i, words in enumerate(seen):
        for word in words:
            places[word].append(i)
    places = {word: np.array(rows) for word, rows in places.items()}

    def is_far(source):
        words = _words(source)
        shared = np.zeros(len(seen), "int32")
        for word in words & places.keys():
            shared[places[word]] += 1
        return not np.any(shared >= overlap * np.maximum(sizes + len(words) - shared, 1))

    return [pair for pair in pairs if is_far(pair[0])]


def _words(text):
    return set(_WORD.findall(text.casefold()))


def _place(text):
    """A number in [0, 1) that depends only on the words of the text."""
    words = " ".join(_WORD.findall(text.casefold()))
    return (
        int.from_bytes(hashlib.sha256(words.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        / 2**64
    )
