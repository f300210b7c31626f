"""Greedy search and sampling: one token per row and step, over any decoder."""

import numpy as np

from keras_seqattn.generation.processors import build_processors, possible_tokens, softmax


def decode(decoder, input_ids, attention_mask, config, max_new_tokens, stop=None, source=None):
    """Yield the tokens of each step, as soon as they are chosen.

    Args:
        decoder: follows the protocol of `keras_seqattn.generation`.
        input_ids: int64 (b, t), prompts padded on the left.
        attention_mask: int64 (b, t), 1 = real token.
        config: GenerationConfig with num_beams 1.
        max_new_tokens: int, the number of steps at most.
        stop: None, or a callable `(tokens int64 (b,), active bool (b,)) -> bool (b,)` that says
            which rows end after these tokens, besides those that end with an eos_token_id.
        source: None, or for an encoder-decoder ids int64 (b, s) and mask int64 (b, s), padded on
            the right, which are encoded first.

    Yields:
        tokens int64 (b,) and active bool (b,): rows that ended at an earlier step hold the padding
        id and are not active.
    """
    batch, length = input_ids.shape
    total = length + max_new_tokens
    ids = np.empty((batch, total), np.int64)
    ids[:, :length] = input_ids
    mask = np.ones((batch, total), np.int64)
    mask[:, :length] = attention_mask
    processors = build_processors(config, attention_mask, total, source)
    choose = _sampler(config.seed) if config.do_sample else _most_likely
    eos = np.asarray(config.eos_token_id, np.int64)
    active = np.ones(batch, bool)

    if source is not None:
        decoder.encode(*source)
    decoder.start(batch, total)
    scores = decoder(ids[:, :length], mask[:, :length])
    for position in range(length, total):
        for process in processors:
            scores = process(ids[:, :position], scores)
        tokens = choose(scores)
        if not active.all():
            tokens = np.where(active, tokens, config.padding)
        ids[:, position] = tokens
        ended = (tokens[:, None] == eos).any(axis=1)
        if stop is not None:
            ended |= stop(tokens, active)
        yield tokens, active
        active = active & ~ended
        if not active.any() or position + 1 == total:
            return
        scores = decoder(ids[:, position : position + 1], mask[:, : position + 1])


def _most_likely(scores):
    return scores.argmax(axis=-1)


def _sampler(seed):
    generator = np.random.default_rng(seed)

    def sample(scores):
        draws = generator.random(len(scores))
        return np.array([_draw(row, at) for row, at in zip(scores, draws, strict=True)])

    return sample


def _draw(row, at):
    """The token whose share of [0, 1) holds `at`."""
    possible = possible_tokens(row)
    running = np.cumsum(softmax(row[possible]), dtype=np.float64)
    return possible[np.searchsorted(running, at * running[-1], side="right")]
