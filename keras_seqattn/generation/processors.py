"""Processing of the scores of the next token, in the order of transformers: penalties first.

Each processor is a callable. Its arguments are `ids` int64 (b, n), the prompt and the tokens so
far, and `scores` float32 (b, v). It returns new scores and does not change its arguments.
"""

import numpy as np

from keras_seqattn.errors import InputError

_FORBIDDEN = np.float32(-np.inf)


def softmax(scores):
    """Probabilities over the last axis of `scores`, float32 (..., v)."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def log_softmax(scores):
    """Log probabilities over the last axis of `scores`, float32 (..., v)."""
    scores = scores - scores.max(axis=-1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return scores


class RepetitionPenalty:
    """Lowers scores of ids that occurred (CTRL): score / penalty if positive, else score * penalty.

    Args:
        penalty: float above 0; 1 changes nothing.
        padding: int (b,), the number of padding tokens on the left of each row. They do not count.
    """

    def __init__(self, penalty, padding):
        self.penalty = penalty
        self.padding = np.asarray(padding)[:, None]

    def __call__(self, ids, scores):
        # One additional column takes the padding and the ids that have no score.
        spare = scores.shape[-1]
        seen = np.where(np.arange(ids.shape[1]) < self.padding, spare, np.minimum(ids, spare))
        scores = np.pad(scores, ((0, 0), (0, 1)))
        chosen = np.take_along_axis(scores, seen, axis=1)
        chosen = np.where(chosen < 0, chosen * self.penalty, chosen / self.penalty)
        np.put_along_axis(scores, seen, chosen.astype(scores.dtype), axis=1)
        return scores[:, :spare]


class NoRepeatNGram:
    """Forbids every token that would complete an n-gram which is already in the row."""

    def __init__(self, size):
        self.size = size

    def __call__(self, ids, scores):
        if ids.shape[1] < self.size:
            return scores
        windows = _windows(ids, self.size)
        return _without_completions(windows, True, ids, scores)


class NoRepeatSourceNGram:
    """Forbids every token that would complete an n-gram of the row's source.

    Args:
        size: int n.
        source_ids: int64 (b, s), the source of each row.
        source_mask: int (b, s), 1 = real token; n-grams with other tokens do not count.
    """

    def __init__(self, size, source_ids, source_mask):
        self.size = size
        self._windows = _windows(source_ids, size)
        self._real = _windows(source_mask, size).all(axis=-1)

    def __call__(self, ids, scores):
        if ids.shape[1] + 1 < self.size:
            return scores
        return _without_completions(self._windows, self._real, ids, scores)


def _windows(ids, size):
    """The n-grams of `ids` (b, n) as (b, n - size + 1, size); none if the rows are too short."""
    if ids.shape[1] < size:
        return np.empty((len(ids), 0, size), ids.dtype)
    return np.lib.stride_tricks.sliding_window_view(ids, size, axis=1)


def _without_completions(windows, counted, ids, scores):
    """Forbid the last token of each of the `windows` (b, n, size) that the end of `ids` begins."""
    size = windows.shape[-1]
    suffix = ids[:, ids.shape[1] + 1 - size :]
    repeats = (windows[..., :-1] == suffix[:, None]).all(axis=-1) & counted
    rows, positions = np.nonzero(repeats & (windows[..., -1] < scores.shape[-1]))
    scores = scores.copy()
    scores[rows, windows[rows, positions, -1]] = _FORBIDDEN
    return scores


class NoBadWords:
    """Forbids the last token of a listed sequence if the row ends with the tokens before it.

    Args:
        bad_words_ids: sequences of token ids. A sequence of only an eos_token_id does not count.
        eos_token_id: sequence of int.
    """

    def __init__(self, bad_words_ids, eos_token_id):
        words = [word for word in bad_words_ids if len(word) > 1 or word[0] not in eos_token_id]
        # Sequences of the same length are compared at once.
        sizes = sorted({len(word) for word in words})
        self.sequences = [np.array([w for w in words if len(w) == size]) for size in sizes]

    def __call__(self, ids, scores):
        scores = scores.copy()
        for sequences in self.sequences:
            known = sequences.shape[1] - 1
            if known <= ids.shape[1]:
                ends = ids[:, None, ids.shape[1] - known :]
                rows, found = np.nonzero((ends == sequences[:, :-1]).all(axis=-1))
                scores[rows, sequences[found, -1]] = _FORBIDDEN
        return scores


class MinLength:
    """Forbids eos_token_id until a row has `min_length` tokens, including its prompt."""

    def __init__(self, min_length, eos_token_id):
        self.min_length = min_length
        self.eos_token_id = list(eos_token_id)

    def __call__(self, ids, scores):
        if ids.shape[1] >= self.min_length:
            return scores
        scores = scores.copy()
        scores[:, [i for i in self.eos_token_id if i < scores.shape[-1]]] = _FORBIDDEN
        return scores


class ForcedTokens:
    """Allows only `token_ids`, with score 0, when a row has `length` tokens."""

    def __init__(self, length, token_ids):
        self.length = length
        self.token_ids = list(token_ids)

    def __call__(self, ids, scores):
        if ids.shape[1] != self.length:
            return scores
        scores = np.full_like(scores, _FORBIDDEN)
        scores[:, self.token_ids] = 0
        return scores


class Temperature:
    """scores / temperature."""

    def __init__(self, temperature):
        self.temperature = temperature

    def __call__(self, ids, scores):
        return scores / np.float32(self.temperature)


class TopK:
    """Keeps the k highest scores, and all scores equal to the k-th."""

    def __init__(self, top_k, min_tokens_to_keep=1):
        self.top_k = max(top_k, min_tokens_to_keep)

    def __call__(self, ids, scores):
        k = min(self.top_k, scores.shape[-1])
        threshold = np.partition(scores, -k, axis=-1)[:, -k, None]
        return np.where(scores < threshold, _FORBIDDEN, scores)


class TopP:
    """Keeps the smallest set of most likely tokens with a total probability >= top_p (nucleus)."""

    def __init__(self, top_p, min_tokens_to_keep=1):
        self.top_p = top_p
        self.min_tokens_to_keep = min_tokens_to_keep

    def __call__(self, ids, scores):
        scores = scores.copy()
        for row in scores:
            # Only possible tokens are sorted. These are few, if top_k came before.
            possible = possible_tokens(row)
            order = possible[np.argsort(row[possible], kind="stable")]  # ascending
            # As in torch, the running sum is computed in float64 and compared in float32.
            running = np.cumsum(softmax(row[order]), dtype=np.float64).astype(np.float32)
            removed = running <= np.float32(1 - self.top_p)
            removed[-self.min_tokens_to_keep :] = False
            row[order[removed]] = _FORBIDDEN
        return scores


class MinP:
    """Keeps tokens that are at least min_p times as likely as the most likely token."""

    def __init__(self, min_p, min_tokens_to_keep=1):
        self.min_p = min_p
        self.min_tokens_to_keep = min_tokens_to_keep

    def __call__(self, ids, scores):
        scores = scores.copy()
        for row in scores:
            possible = possible_tokens(row)
            probabilities = softmax(row[possible])
            removed = probabilities < np.float32(self.min_p) * probabilities.max()
            keep = min(self.min_tokens_to_keep, len(possible))
            removed[np.argpartition(probabilities, -keep)[-keep:]] = False
            row[possible[removed]] = _FORBIDDEN
        return scores


def possible_tokens(row):
    """Indices of the tokens that `row` float32 (v,) does not forbid."""
    return np.flatnonzero(row != _FORBIDDEN)


def check_possible(scores, active=True):
    """Raise InputError unless every row has a possible next token.

    Args:
        scores: float32 (b,), the scores of the chosen tokens. They are the highest possible ones.
        active: bool (b,), the rows that count.
    """
    if (np.isfinite(scores) | ~np.asarray(active)).all():
        return
    if np.isneginf(scores[active]).any():
        raise InputError(
            "the settings forbid every token: relax bad_words_ids, no_repeat_ngram_size, "
            "min_new_tokens or similar settings"
        )
    raise InputError(
        "the model's scores of the next token are not finite: it overflows or is damaged"
    )


class LogNormalization:
    """log softmax of the scores, so that the probabilities after processing sum to 1 again."""

    def __call__(self, ids, scores):
        return log_softmax(scores)


def build_processors(config, attention_mask, max_length, source=None):
    """The processors for `config`, in the order of transformers; none for plain greedy search.

    Args:
        config: GenerationConfig.
        attention_mask: int (b, t), of the prompt.
        max_length: int, the maximum number of tokens of a row, including its prompt.
        source: None, or the input of the encoder: ids int64 (b, s) or features, and mask int
            (b, s).

    Returns:
        List of callables `(ids int64 (b, n), scores float32 (b, v)) -> float32 (b, v)`.
    """
    processors = [
        *_penalties(config, attention_mask, source),
        *_constraints(config, attention_mask.shape[1], max_length),
    ]
    if config.do_sample:
        processors += _warpers(config)
    # For a single row, a constant that is added to all scores changes no choice and no draw.
    if config.renormalize_logits and config.num_beams > 1:
        processors.append(LogNormalization())
    return processors


def _penalties(config, attention_mask, source):
    if config.repetition_penalty != 1.0:
        padding = (attention_mask != 0).argmax(axis=1)
        yield RepetitionPenalty(config.repetition_penalty, padding)
    if config.no_repeat_ngram_size > 0:
        yield NoRepeatNGram(config.no_repeat_ngram_size)
    if config.encoder_no_repeat_ngram_size > 0 and source is not None:
        if source[0].dtype.kind == "f":
            raise InputError(
                "encoder_no_repeat_ngram_size needs a source of tokens, and this model reads "
                "features"
            )
        yield NoRepeatSourceNGram(config.encoder_no_repeat_ngram_size, *source)


def _constraints(config, prompt_length, max_length):
    if config.bad_words_ids:
        yield NoBadWords(config.bad_words_ids, config.eos_token_id)
    least = config.min_new_tokens and prompt_length + config.min_new_tokens
    least = max(least, config.min_length)
    if least > 0 and config.eos_token_id:
        yield MinLength(least, config.eos_token_id)
    if config.forced_bos_token_id is not None:
        yield ForcedTokens(1, [config.forced_bos_token_id])
    if config.forced_eos_token_id:
        yield ForcedTokens(max_length - 1, config.forced_eos_token_id)


def _warpers(config):
    # Beams need one more token besides each eos, so that they can continue.
    keep = 1 if config.num_beams == 1 else (len(config.eos_token_id) or 1) + 1
    if config.temperature != 1.0:
        yield Temperature(config.temperature)
    if config.top_k > 0:
        yield TopK(config.top_k, keep)
    if config.top_p < 1.0:
        yield TopP(config.top_p, keep)
    if config.min_p is not None:
        yield MinP(config.min_p, keep)
