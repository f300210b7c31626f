"""What is done to the scores of the next token, in transformers' order: penalties, then warpers.

Each processor is a callable of `ids` int64 (b, n), the prompt and the tokens so far, and `scores`
float32 (b, v), and returns new scores; none changes its arguments.
"""

import numpy as np

_FORBIDDEN = np.float32(-np.inf)


def softmax(scores):
    """Probabilities over the last axis of `scores`, float32 (..., v)."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def log_softmax(scores):
    """Log probabilities over the last axis of `scores`, float32 (..., v)."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


class RepetitionPenalty:
    """score / penalty if positive, score * penalty if negative, for ids that occurred (CTRL).

    Args:
        penalty: float above 0; 1 changes nothing.
        padding: int (b,), the left padding of each row, which does not count as occurring.
    """

    def __init__(self, penalty, padding):
        self.penalty = penalty
        self.padding = np.asarray(padding)[:, None]

    def __call__(self, ids, scores):
        # One spare column takes the padding and ids outside the scores.
        spare = scores.shape[-1]
        seen = np.where(np.arange(ids.shape[1]) < self.padding, spare, np.minimum(ids, spare))
        scores = np.pad(scores, ((0, 0), (0, 1)))
        chosen = np.take_along_axis(scores, seen, axis=1)
        chosen = np.where(chosen < 0, chosen * self.penalty, chosen / self.penalty)
        np.put_along_axis(scores, seen, chosen.astype(scores.dtype), axis=1)
        return scores[:, :spare]


class NoRepeatNGram:
    """Forbids every token that would complete an n-gram which the row holds already."""

    def __init__(self, size):
        self.size = size

    def __call__(self, ids, scores):
        if ids.shape[1] < self.size:
            return scores
        windows = np.lib.stride_tricks.sliding_window_view(ids, self.size, axis=1)  # (b, n, size)
        suffix = ids[:, ids.shape[1] + 1 - self.size :]
        repeats = (windows[..., :-1] == suffix[:, None]).all(axis=-1)
        rows, positions = np.nonzero(repeats & (windows[..., -1] < scores.shape[-1]))
        scores = scores.copy()
        scores[rows, windows[rows, positions, -1]] = _FORBIDDEN
        return scores


class MinNewTokens:
    """Forbids eos_token_id until `min_new_tokens` tokens have been added to the prompt."""

    def __init__(self, prompt_length, min_new_tokens, eos_token_id):
        self.length = prompt_length + min_new_tokens
        self.eos_token_id = list(eos_token_id)

    def __call__(self, ids, scores):
        if ids.shape[1] >= self.length:
            return scores
        scores = scores.copy()
        scores[:, [i for i in self.eos_token_id if i < scores.shape[-1]]] = _FORBIDDEN
        return scores


class Temperature:
    """scores / temperature."""

    def __init__(self, temperature):
        self.temperature = temperature

    def __call__(self, ids, scores):
        return scores / np.float32(self.temperature)


class TopK:
    """Keeps the k highest scores, and those equal to the k-th."""

    def __init__(self, top_k, min_tokens_to_keep=1):
        self.top_k = max(top_k, min_tokens_to_keep)

    def __call__(self, ids, scores):
        k = min(self.top_k, scores.shape[-1])
        threshold = np.partition(scores, -k, axis=-1)[:, -k, None]
        return np.where(scores < threshold, _FORBIDDEN, scores)


class TopP:
    """Keeps the fewest most likely tokens whose probabilities sum to at least top_p (nucleus)."""

    def __init__(self, top_p, min_tokens_to_keep=1):
        self.top_p = top_p
        self.min_tokens_to_keep = min_tokens_to_keep

    def __call__(self, ids, scores):
        scores = scores.copy()
        for row in scores:
            # Only what is still possible is sorted: few tokens, if top_k came before.
            possible = possible_tokens(row)
            order = possible[np.argsort(row[possible], kind="stable")]  # ascending
            # The running sum is kept in float64, as torch does, and compared in float32.
            running = np.cumsum(softmax(row[order]), dtype=np.float64).astype(np.float32)
            removed = running <= np.float32(1 - self.top_p)
            removed[-self.min_tokens_to_keep :] = False
            row[order[removed]] = _FORBIDDEN
        return scores


class MinP:
    """Keeps tokens at least min_p times as likely as the most likely one."""

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


def build_processors(config, attention_mask):
    """The processors that `config` asks for, in transformers' order; none for plain greedy.

    Args:
        config: GenerationConfig.
        attention_mask: int (b, t), of the prompt.

    Returns:
        List of callables `(ids int64 (b, n), scores float32 (b, v)) -> float32 (b, v)`.
    """
    processors = []
    if config.repetition_penalty != 1.0:
        padding = (attention_mask != 0).argmax(axis=1)
        processors.append(RepetitionPenalty(config.repetition_penalty, padding))
    if config.no_repeat_ngram_size > 0:
        processors.append(NoRepeatNGram(config.no_repeat_ngram_size))
    if config.min_new_tokens > 0 and config.eos_token_id:
        prompt_length = attention_mask.shape[1]
        processors.append(MinNewTokens(prompt_length, config.min_new_tokens, config.eos_token_id))
    if not config.do_sample:
        return processors
    # Beams need a token besides each eos to go on with.
    keep = 1 if config.num_beams == 1 else (len(config.eos_token_id) or 1) + 1
    if config.temperature != 1.0:
        processors.append(Temperature(config.temperature))
    if config.top_k > 0:
        processors.append(TopK(config.top_k, keep))
    if config.top_p < 1.0:
        processors.append(TopP(config.top_p, keep))
    if config.min_p is not None:
        processors.append(MinP(config.min_p, keep))
    return processors
