"""BART's ways to damage a text; the decoder must write the undamaged text (Lewis et al. 2020)."""

import numpy as np

from keras_seqattn.arguments import number
from keras_seqattn.errors import InputError
from keras_seqattn.training.checks import generator, token_id, token_ids

# NumPy cannot draw longer spans.
_LONGEST = 1e9


def text_infilling(tokens, rng, *, mask_token_id, ratio=0.3, mean_span=3.0):
    """Replace spans of Poisson length by one mask token each; a span of length 0 inserts a mask.

    Args:
        tokens: int (n,).
        rng: numpy.random.Generator.
        mask_token_id: int.
        ratio: float, the share of tokens that are replaced; their number is round(n ratio).
        mean_span: float, the mean of the Poisson distribution.

    Returns:
        int32 array. No two masks come from adjacent spans.

    Raises:
        InputError: the ratio is not in [0, 1], or the mean is not above 0.
    """
    if not 0 <= number(ratio, "ratio") <= 1 or not 0 < number(mean_span, "mean_span") <= _LONGEST:
        raise InputError(f"ratio {ratio} must be in [0, 1] and mean_span {mean_span} above 0")
    tokens = token_ids(tokens)
    generator(rng)
    token_id(mask_token_id, "mask_token_id")
    removed = round(len(tokens) * ratio)
    kept = len(tokens) - removed
    spans = _span_lengths(removed, kept + 1, mean_span, rng)
    # Each span goes before a different kept token, or after the last one. So spans never touch.
    gaps = np.sort(rng.choice(kept + 1, len(spans), replace=False))
    result, place, before = [], 0, 0
    for gap, span in zip(gaps, spans, strict=True):
        end = place + gap - before
        result += [*tokens[place:end], mask_token_id]
        place, before = end + span, gap
    return np.array([*result, *tokens[place:]], "int32")


def token_masking(tokens, rng, *, mask_token_id, ratio=0.15):
    """Replace round(n ratio) random tokens by the mask token; int32 (n,)."""
    tokens = token_ids(tokens).copy()
    token_id(mask_token_id, "mask_token_id")
    tokens[_choose(len(tokens), ratio, rng)] = mask_token_id
    return tokens


def token_deletion(tokens, rng, *, ratio=0.15):
    """Leave out round(n ratio) random tokens; int32 array."""
    tokens = token_ids(tokens)
    return np.delete(tokens, _choose(len(tokens), ratio, rng))


def sentence_permutation(tokens, rng, *, sentence_end_ids):
    """Put the sentences into random order.

    Args:
        tokens: int (n,).
        rng: numpy.random.Generator.
        sentence_end_ids: list of int, the tokens that end a sentence, such as the full stop.

    Returns:
        int32 (n,).
    """
    tokens = token_ids(tokens)
    generator(rng)
    sentence_end_ids = token_ids(sentence_end_ids, "sentence_end_ids")
    ends = np.flatnonzero(np.isin(tokens, sentence_end_ids)) + 1
    sentences = [part for part in np.split(tokens, ends) if len(part)]
    order = rng.permutation(len(sentences))
    return np.concatenate([sentences[i] for i in order]) if sentences else tokens


def document_rotation(tokens, rng):
    """Start the text at a random token, and append the part before it; int32 (n,)."""
    tokens = token_ids(tokens)
    generator(rng)
    return np.roll(tokens, -rng.integers(len(tokens))) if len(tokens) else tokens


def _span_lengths(total, most, mean, rng):
    """At most `most` Poisson lengths with the sum `total`; the last one is cut."""
    lengths, left = [], total
    while left > 0:
        # The last span must take all tokens that are left.
        length = min(rng.poisson(mean), left) if len(lengths) < most - 1 else left
        lengths.append(int(length))
        left -= length
    return lengths


def _choose(length, ratio, rng):
    generator(rng)
    if not 0 <= number(ratio, "ratio") <= 1:
        raise InputError(f"ratio must be in [0, 1], not {ratio}")
    return rng.choice(length, round(length * ratio), replace=False)
