"""Collecting the attention probabilities of every layer of a model while it runs."""

import contextlib
import contextvars

_RECORDS = contextvars.ContextVar("recorded attention", default=None)


@contextlib.contextmanager
def recording():
    """In this context, attention layers compute their probabilities and record them.

    Only eager calls are recorded: a compiled model does not run the Python code of its layers.

    Yields:
        list of (layer, probabilities) in the order of the calls; every call adds an item.

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
    """Record the probabilities of one call, if a context is open.

    Args:
        layer: the attention layer.
        scores: float (b, h, t, s), or (b, t, s) for attention without heads.
    """
    if is_recording():
        _RECORDS.get().append((layer, scores))
