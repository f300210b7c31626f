"""T5's objective: sentinels replace spans, and the model writes the spans (Raffel et al. 2020)."""

import numpy as np

from keras_seqattn.arguments import integer, number
from keras_seqattn.errors import InputError
from keras_seqattn.training.checks import generator, token_id, token_ids

_LONGEST = 10**5


def span_corruption(tokens, rng, *, sentinel_id, eos_token_id, density=0.15, mean_span=3.0):
    """Replace random spans by sentinels. The targets are the spans, each after its sentinel.

    The text begins with kept tokens and ends with a span, as in the reference implementation. The
    first sentinel is `sentinel_id` (in T5, vocabulary size - 1), and each next one is smaller by 1.

    Args:
        tokens: int (n,), a text without an end token, n > 1.
        rng: numpy.random.Generator.
        sentinel_id: int, id of the first sentinel.
        eos_token_id: int, appended to both sides.
        density: float, the share of tokens in spans.
        mean_span: float, the mean length of a span.

    Returns:
        (input_ids, labels), int32 arrays of `corrupted_lengths(n, ...)` tokens.

    Raises:
        InputError: there are fewer than two tokens, or they include sentinels.
    """
    tokens = token_ids(tokens)
    generator(rng)
    token_id(sentinel_id, "sentinel_id")
    token_id(eos_token_id, "eos_token_id")
    noise, spans = _amounts(len(tokens), density, mean_span)
    if np.any((tokens <= sentinel_id) & (tokens > sentinel_id - spans)):
        raise InputError(f"the text already holds sentinels ({sentinel_id} and {spans - 1} below)")
    kept_parts = _partition(len(tokens) - noise, spans, rng)
    noise_parts = _partition(noise, spans, rng)
    inputs, labels, place = [], [], 0
    for i, (kept, removed) in enumerate(zip(kept_parts, noise_parts, strict=True)):
        inputs += [*tokens[place : place + kept], sentinel_id - i]
        place += kept
        labels += [sentinel_id - i, *tokens[place : place + removed]]
        place += removed
    return np.array([*inputs, eos_token_id], "int32"), np.array([*labels, eos_token_id], "int32")


def corrupted_lengths(length, density=0.15, mean_span=3.0):
    """(number of input tokens, number of label tokens) for a text of `length` tokens."""
    noise, spans = _amounts(length, density, mean_span)
    return length - noise + spans + 1, noise + spans + 1


def raw_length(input_length, density=0.15, mean_span=3.0):
    """The number of tokens of text that fill an input. For T5's 512 it is 568, with 114 labels.

    Args:
        input_length: int, at least 3.

    Returns:
        The largest n with `corrupted_lengths(n, ...)[0] <= input_length`.
    """
    integer(input_length, "input_length", least=3, most=_LONGEST)
    n = 2
    while corrupted_lengths(n + 1, density, mean_span)[0] <= input_length:
        n += 1
        if n > _LONGEST:
            raise InputError(f"density={density} is too high: any text fits {input_length} tokens")
    return n


def _amounts(length, density, mean_span):
    """The number of tokens in spans, and the number of spans, in a text."""
    number(density, "density", 0, 1)
    if not number(mean_span, "mean_span", 0):
        raise InputError("mean_span must be above 0")
    if integer(length, "length") < 2:
        raise InputError(f"span corruption needs at least 2 tokens, and there is {length}")
    noise = min(max(round(length * density), 1), length - 1)
    spans = min(max(round(noise / mean_span), 1), noise, length - noise)
    return noise, spans


def _partition(total, parts, rng):
    """Split `total` into `parts` numbers of at least 1; all ways are equally likely."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False) + 1)
    return np.diff([0, *cuts, total])
