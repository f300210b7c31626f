"""Collecting the attention probabilities of every layer that a model runs through."""

import contextlib
import contextvars

_RECORDS = contextvars.ContextVar("recorded attention", default=None)


@contextlib.contextmanager
def recording():
    """Attention layers called in this context compute their probabilities and hand them over.

    Only eager calls: a model that is already compiled runs without its layers' Python code.

    Yields:
        list of (layer, probabilities), which grows with every call, in the order of the calls.

    Example:
        with recording() as records:
            model(inputs)
        {layer.path: probabilities for layer, probabilities in records}
    """
    records = []
    token = _RECORDS.set(records)
    try:
        yield records
    finally:
        _RECORDS.reset(token)


def is_recording():
    """Whether a `recording` context is open."""
    return _RECORDS.get() is not None


def record(layer, scores):
    """Hand over the probabilities of one call; does nothing unless a context is open.

    Args:
        layer: the attention layer.
        scores: float (b, h, t, s), or (b, t, s) of attention without heads.
    """
    if is_recording():
        _RECORDS.get().append((layer, scores))
