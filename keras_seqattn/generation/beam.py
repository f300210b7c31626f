"""Beam search with a length penalty. Each step is the same as in transformers."""

import numpy as np

from keras_seqattn.errors import InputError
from keras_seqattn.generation.processors import (
    build_processors,
    check_possible,
    log_softmax,
    softmax,
)
from keras_seqattn.generation.room import check_room, check_run

# The score of a hypothesis that may not be chosen. It is finite, so that sums with it can be
# compared.
_OUT = np.float32(-1e9)
_BLOCK = 64
# The largest factor of scores for a negative length_penalty, so that real scores stay far from
# _OUT.
_LARGEST_FACTOR = 1e5


def beam_search(decoder, input_ids, attention_mask, config, max_new_tokens, stop=None, source=None):
    """Return the best continuation of each prompt.

    The score of a finished hypothesis is sum(log p) / length^length_penalty. The length counts new
    tokens.

    Args:
        decoder: follows the protocol of `keras_seqattn.generation`.
        input_ids: int64 (b, t), prompts padded on the left.
        attention_mask: int64 (b, t), 1 = real token.
        config: GenerationConfig with num_beams above 1.
        max_new_tokens: int, the maximum number of steps.
        stop: None, or a callable `new_ids int64 (n, steps) -> bool (n,)`. It says which hypotheses
            end with their last token. Hypotheses that end with an eos_token_id end anyway.
        source: None, or for an encoder-decoder ids int64 (b, s) and mask int64 (b, s), padded on
            the right. They are encoded first, once for all beams.

    Raises:
        InputError: an argument is not valid, there is not enough memory, or no token is possible.

    Returns:
        int64 (b, n), the new tokens, with the padding id after the end of shorter rows; and
        int64 (b,), the number of new tokens of each row.
    """
    check_run(input_ids, attention_mask, config, max_new_tokens, source)
    beams = config.num_beams
    batch, length = input_ids.shape
    source_length = 0 if source is None else source[0].shape[1]
    check_room(decoder, batch, length, config, max_new_tokens, source_length)
    input_ids = np.repeat(input_ids, beams, axis=0)
    attention_mask = np.repeat(attention_mask, beams, axis=0)
    total = length + max_new_tokens
    beamed = source and [np.repeat(part, beams, axis=0) for part in source]
    processors = build_processors(config, attention_mask, total, beamed)
    search = _Search(batch, input_ids, config, max_new_tokens)

    if source is not None:
        decoder.encode(*source)
    decoder.start(batch * beams, total)
    logits = decoder(input_ids, attention_mask)
    while True:
        scores = log_softmax(logits)
        # A score that is not finite makes its whole row useless.
        check_possible(np.where(np.isnan(scores[:, 0]), np.nan, 0))
        for process in processors:
            scores = process(search.running_ids(), scores)
        rows = search.advance(scores, stop)
        if search.is_over():
            return search.best()
        decoder.reorder(rows)
        ids = search.running_ids()
        new = np.ones((len(ids), 1), np.int64)
        attention_mask = np.concatenate([attention_mask, new], axis=1)
        logits = decoder(ids[:, -1:], attention_mask)


class _Search:
    """The running and the finished hypotheses of a batch, each (b, beams)."""

    def __init__(self, batch, input_ids, config, max_new_tokens):
        self.config = config
        self.beams = config.num_beams
        self.prompt_length = input_ids.shape[1]
        self.max_new_tokens = max_new_tokens
        self.steps = 0
        self.candidates = max(2, 1 + len(config.eos_token_id)) * self.beams
        self.generator = np.random.default_rng(config.seed)
        _check_length_penalty(max_new_tokens, config.length_penalty)
        self.running = input_ids.reshape(batch, self.beams, -1)
        # All beams start equal. Only the first may continue, or all would choose the same token.
        self.running_scores = np.full((batch, self.beams), _OUT, np.float32)
        self.running_scores[:, 0] = 0
        self.finished = self.running.copy()
        self.finished_steps = np.zeros((batch, self.beams), np.int64)
        self.finished_scores = np.full((batch, self.beams), _OUT, np.float32)
        self.is_finished = np.zeros((batch, self.beams), bool)
        self.may_improve = np.ones((batch, 1), bool)
        self.may_continue = True

    def running_ids(self):
        """int64 (b * beams, n), the prompts and the tokens so far."""
        return self.running.reshape(-1, self.prompt_length + self.steps)

    def advance(self, scores, stop):
        """Add one token to every beam; return the row that each beam continues, int (b * beams,).

        `scores` float32 (b * beams, v) are the processed log probabilities of the next token. They
        are changed in place.
        """
        batch, vocabulary = len(self.running), scores.shape[-1]
        total = scores.reshape(batch, self.beams, -1)
        total += self.running_scores[:, :, None]
        scores, chosen = self._choose(total.reshape(batch, -1))
        parents, tokens = chosen // vocabulary, chosen % vocabulary
        ids = np.take_along_axis(self.running, parents[:, :, None], axis=1)
        ids = _with_column(ids, tokens)
        self.finished = _with_column(self.finished, self.config.padding)
        self.steps += 1
        ends = self._ends(ids, tokens, stop)
        self.may_continue = not ends.all()
        kept = self._keep_running(ids, scores, ends)
        self._keep_finished(ids, scores, ends)
        self._judge()
        parents = np.take_along_axis(parents, kept, axis=1)
        return (parents + np.arange(batch)[:, None] * self.beams).reshape(-1)

    def is_over(self):
        """Whether another step cannot improve any result."""
        all_done = self.config.early_stopping is True and self.is_finished.all()
        return not (self.may_improve.any() and self.may_continue and not all_done)

    def best(self):
        """The new tokens of the best finished hypothesis of each row, and the number of them."""
        steps = self.finished_steps[:, 0]
        end = self.prompt_length + steps.max()
        return self.finished[:, 0, self.prompt_length : end], steps

    def _choose(self, scores):
        """The best candidates of each row and their indices (or samples without replacement)."""
        if self.config.do_sample:
            # If Gumbel noise is added to log probabilities, the highest k are a sample of k
            # without replacement. A token with probability 0 is never chosen.
            noise = self.generator.gumbel(size=scores.shape)
            with np.errstate(divide="ignore"):
                drawn = np.log(softmax(scores)) + noise
            chosen = _top(drawn, self.candidates)
        else:
            chosen = _top(scores, self.candidates)
        best = np.take_along_axis(scores, chosen, axis=1)
        check_possible(best[:, 0], self.may_improve[:, 0])
        return best, chosen

    def _ends(self, ids, tokens, stop):
        if self.steps == self.max_new_tokens:
            return np.ones(tokens.shape, bool)
        ends = np.isin(tokens, self.config.eos_token_id)
        if stop is not None:
            new = ids[:, :, self.prompt_length :]
            ends |= stop(new.reshape(-1, self.steps)).reshape(ends.shape)
        return ends

    def _keep_running(self, ids, scores, ends):
        scores = scores + ends * _OUT
        kept = _top(scores, self.beams)
        self.running = np.take_along_axis(ids, kept[:, :, None], axis=1)
        self.running_scores = np.take_along_axis(scores, kept, axis=1)
        return kept

    def _keep_finished(self, ids, scores, ends):
        # Candidates after the first `beams` are only spare beams to continue, never results.
        ends = ends & (np.arange(ends.shape[1]) < self.beams)
        scores = scores / _length_factor(self.steps, self.config.length_penalty)
        closed = ~self.may_improve
        if self.config.early_stopping is True:
            closed = closed | self.is_finished.all(axis=1, keepdims=True)
        scores = scores + closed * _OUT + ~ends * _OUT
        steps = np.full(ends.shape, self.steps)
        merged = np.concatenate([self.finished_scores, scores], axis=1)
        kept = _top(merged, self.beams)

        def merge(old, new):
            return np.take_along_axis(np.concatenate([old, new], axis=1), kept, axis=1)

        self.finished_scores = np.take_along_axis(merged, kept, axis=1)
        self.finished_steps = merge(self.finished_steps, steps)
        self.is_finished = merge(self.is_finished, ends)
        both = np.concatenate([self.finished, ids], axis=1)
        self.finished = np.take_along_axis(both, kept[:, :, None], axis=1)

    def _judge(self):
        """Note the rows in which a running beam may still beat the worst finished hypothesis."""
        config = self.config
        longest = config.early_stopping == "never" and config.length_penalty > 0
        steps = self.max_new_tokens if longest else self.steps
        reachable = self.running_scores[:, :1] / _length_factor(steps, config.length_penalty)
        worst = np.where(self.is_finished, self.finished_scores.min(axis=1, keepdims=True), _OUT)
        self.may_improve &= (reachable > worst).any(axis=1, keepdims=True)


def _length_factor(steps, penalty):
    """steps^penalty, at most the largest float32."""
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(min(np.float64(steps) ** penalty, np.finfo(np.float32).max))


def _check_length_penalty(steps, penalty):
    """Refuse a factor that would give finished hypotheses a score below `_OUT`."""
    if penalty < 0 and _length_factor(steps, -penalty) > _LARGEST_FACTOR:
        raise InputError(
            f"length_penalty={penalty} multiplies the scores of {steps} tokens by more than "
            f"{_LARGEST_FACTOR:.0e}: raise it, or lower max_new_tokens"
        )


def _with_column(rows, column):
    """`rows` (b, n, t) with one more column at the end, (b, n, t + 1); `column`: (b, n) or int."""
    new = np.broadcast_to(np.asarray(column, rows.dtype), rows.shape[:2])
    return np.concatenate([rows, new[:, :, None]], axis=2)


def _top(scores, count):
    """Indices of the `count` highest scores of each row, best first; ties take the lower index."""
    count = min(count, scores.shape[1])
    best = _highest(scores, count)
    best.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def _highest(scores, count):
    """Indices of the `count` highest scores of each row, in any order."""
    blocks = scores.shape[1] // _BLOCK
    if blocks <= 2 * count:
        return np.argpartition(-scores, count - 1, axis=1)[:, :count]
    # The highest scores lie in the blocks with the highest maxima, or in the rest after the blocks.
    # To find maxima is several times faster than to partition all scores.
    whole = blocks * _BLOCK
    maxima = scores[:, :whole].reshape(len(scores), blocks, _BLOCK).max(axis=-1)
    starts = np.argpartition(-maxima, count - 1, axis=1)[:, :count] * _BLOCK
    among = (starts[:, :, None] + np.arange(_BLOCK)).reshape(len(scores), -1)
    rest = np.arange(whole, scores.shape[1])
    among = np.concatenate([among, np.tile(rest, (len(scores), 1))], axis=1)
    chosen = _highest(np.take_along_axis(scores, among, axis=1), count)
    return np.take_along_axis(among, chosen, axis=1)
