"""Which inputs must have one length: found out by tracing, since Keras's shapes cannot say so."""

import itertools

# Above so many lengths not each pair is tried: a model that cannot be exported is to say so soon.
_MOST = 8


def trace_with_equal_lengths(attempt):
    """Trace a model whose inputs have lengths of their own, or one in common where it must be.

    Args:
        attempt: function(same) -> (tracer, outputs, error), which traces the model from the
            beginning; `same` is a dict of name of a dimension -> name of the one that it equals,
            and one of outputs and error is None.

    Returns:
        (tracer, outputs, str that says which inputs have one length and because of what).

    Raises:
        Exception: the model cannot be traced, whichever lengths are equal.
    """
    first, outputs, error = attempt({})
    tracer, same, reasons = first, {}, []
    while outputs is None:
        stopped = tracer.stopped_at or "the exporter"
        joined, tracer, outputs = _next(attempt, first, tracer, same)
        if joined is None:
            raise error
        same |= joined
        dimensions = dict.fromkeys([*joined.values(), *joined])
        inputs = _inputs_of(first, dimensions)
        # The length of an input may be a part of its axis, as behind a past.
        equal = inputs if len(inputs) > 1 else dimensions
        reasons.append(f"{' and '.join(equal)} have one length, which {stopped} needs")
    return tracer, outputs, "; ".join(reasons)


def _next(attempt, first, stopped, same):
    """The dimensions that, made one, let the trace get further: two of them, or else all.

    Returns:
        (dict as `same`, tracer, outputs); (None, None, None) if nothing helps.
    """
    names = [name for name in _lengths(first) if name not in same]
    best = stopped.progress, None, None, None
    pairs = itertools.combinations(names, 2) if len(names) <= _MOST else ()
    choices = [{b: a} for a, b in pairs]
    if len(names) > 2:
        choices.append(dict.fromkeys(names[1:], names[0]))
    for choice in choices:
        tracer, outputs, _ = attempt(same | choice)
        if outputs is not None:
            return choice, tracer, outputs
        if tracer.progress > best[0]:
            best = tracer.progress, choice, tracer, None
    return best[1:]


def _lengths(tracer):
    """Names of the dynamic dimensions of inputs, but the first ones, which are the batch."""
    firsts = (i.shape.dims[0] for i in tracer.graph.inputs if i.shape.dims)
    batches = {d.value for d in firsts if not isinstance(d, int)}
    return [name for name in tracer.dimension_names if name not in batches]


def _inputs_of(tracer, names):
    def has_one(shape):
        return any(not isinstance(d, int) and d.value in names for d in shape.dims)

    return [i.name for i in tracer.graph.inputs if has_one(i.shape)]
