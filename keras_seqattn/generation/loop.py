"""Greedy search and sampling: one token per row and step, over any decoder."""

import numpy as np

from keras_seqattn.generation.processors import (
    build_processors,
    check_possible,
    possible_tokens,
    softmax,
)
from keras_seqattn.generation.room import check_run

# The number of tokens that can be added to a prompt before the arrays must grow.
_ROOM = 256


def decode(decoder, input_ids, attention_mask, config, max_new_tokens, stop=None, source=None):
    """The tokens of each step, as soon as they are chosen.

    Args:
        decoder: follows the protocol of `keras_seqattn.generation`.
        input_ids: int64 (b, t), prompts padded on the left.
        attention_mask: int64 (b, t), 1 = real token.
        config: GenerationConfig with num_beams 1.
        max_new_tokens: int, the maximum number of steps.
        stop: None, or a callable `(tokens int64 (b,), active bool (b,)) -> bool (b,)`. It says
            which rows end after these tokens. Rows that end with an eos_token_id end anyway.
        source: None, or for an encoder-decoder ids int64 (b, s) (or features float (b, s, f)) and
            mask int64 (b, s), padded on the right. They are encoded first.

    Returns:
        Iterator of tokens int64 (b,) and active bool (b,). Rows that ended at an earlier step have
        the padding id and are not active.

    Raises:
        InputError: an argument is not valid; or, at a later step, no token is possible.
    """
    check_run(input_ids, attention_mask, config, max_new_tokens, source)
    return _steps(decoder, input_ids, attention_mask, config, max_new_tokens, stop, source)


def _steps(decoder, input_ids, attention_mask, config, max_new_tokens, stop, source):
    batch, length = input_ids.shape
    total = length + max_new_tokens
    buffer = _TokenBuffer(input_ids, attention_mask)
    processors = build_processors(config, attention_mask, total, source)
    choose = _sampler(config.seed) if config.do_sample else _most_likely
    eos = np.asarray(config.eos_token_id, np.int64)
    every, active = np.arange(batch), np.ones(batch, bool)

    if source is not None:
        decoder.encode(*source)
    decoder.start(batch, total)
    scores = decoder(buffer.ids, buffer.mask)
    for position in range(length, total):
        for process in processors:
            scores = process(buffer.ids, scores)
        tokens = choose(scores)
        check_possible(scores[every, tokens], active)
        if not active.all():
            tokens = np.where(active, tokens, config.padding)
        buffer.append(tokens)
        ended = (tokens[:, None] == eos).any(axis=1)
        if stop is not None:
            ended |= stop(tokens, active)
        yield tokens, active
        active = active & ~ended
        if not active.any() or position + 1 == total:
            return
        scores = decoder(buffer.ids[:, -1:], buffer.mask)


class _TokenBuffer:
    """Token ids int64 (b, n) and their mask. Each step appends one token to every row.

    The arrays are longer than their content, and their length at least doubles when they are full.
    So an answer may be endless, and its first tokens cost no more than those of a short answer.
    """

    def __init__(self, ids, mask):
        self._length = ids.shape[1]
        self._ids, self._mask = self._with_room(ids, 0), self._with_room(mask, 1)

    @property
    def ids(self):
        return self._ids[:, : self._length]

    @property
    def mask(self):
        return self._mask[:, : self._length]

    def append(self, tokens):
        if self._length == self._ids.shape[1]:
            self._ids, self._mask = self._with_room(self._ids, 0), self._with_room(self._mask, 1)
        self._ids[:, self._length] = tokens
        self._length += 1

    def _with_room(self, values, fill):
        batch, length = values.shape
        roomy = np.full((batch, 2 * length + _ROOM), fill, np.int64)
        roomy[:, :length] = values
        return roomy


def _most_likely(scores):
    return scores.argmax(axis=-1)


def _sampler(seed):
    generator = np.random.default_rng(seed)

    def sample(scores):
        draws = generator.random(len(scores))
        return np.array([_draw(row, at) for row, at in zip(scores, draws, strict=True)])

    return sample


def _draw(row, at):
    """The token whose part of [0, 1) contains `at`; any token, if none is possible."""
    most_likely = row.argmax()
    if not np.isfinite(row[most_likely]):
        return most_likely
    possible = possible_tokens(row)
    running = np.cumsum(softmax(row[possible]), dtype=np.float64)
    return possible[np.searchsorted(running, at * running[-1], side="right")]
