"""Softmax over allowed positions, and the scale of the scores."""

import math

from keras import ops

from keras_seqattn.ops.nothing import is_empty
from keras_seqattn.ops.precision import in_full_precision

# Far below any score, and far from the overflow of float32.
NEVER = -1e30


def score_scale(scale, query):
    """The factor of scores: `scale`, or `1 / sqrt(d)` for None. Queries are float (..., d)."""
    return 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale


def softmax(scores, sinks=None):
    """`exp(score) / (sum exp(score) + exp(sink))` over the last axis; ONNX Softmax without sinks.

    Args:
        scores: float (..., s).
        sinks: None, or one additional logit that broadcasts to (..., 1).

    Returns:
        float (..., s).
    """
    if is_empty(scores):
        return scores
    # Keras warns about a softmax over one element, but for a first token that is right.
    if sinks is None and scores.shape[-1] != 1:
        return ops.softmax(scores, axis=-1)
    largest = ops.amax(scores, axis=-1, keepdims=True)
    if sinks is not None:
        largest = ops.maximum(largest, sinks)
    largest = ops.stop_gradient(largest)
    weights = ops.exp(ops.subtract(scores, largest))
    total = ops.sum(weights, axis=-1, keepdims=True)
    if sinks is not None:
        total = ops.add(total, ops.exp(ops.subtract(sinks, largest)))
    return ops.divide(weights, total)


def masked_softmax(scores, allowed=None):
    """Softmax in float32 over the allowed positions; zeros if no position is allowed.

    Args:
        scores: float (..., s).
        allowed: None, or bool that broadcasts to (..., s).

    Returns:
        float (..., s), with the dtype of the scores.
    """
    dtype, scores = scores.dtype, in_full_precision(scores)
    if allowed is None:
        return ops.cast(softmax(scores), dtype)
    probabilities = softmax(ops.where(allowed, scores, NEVER))
    # They are zero already, except in rows without any allowed position.
    return ops.cast(ops.where(allowed, probabilities, 0.0), dtype)
