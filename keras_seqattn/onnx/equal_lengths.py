"""Finds the inputs that must have one length. Shapes of Keras do not say it, so traces find it."""

import itertools

# With more lengths than this, not every pair is tried, so that the error comes soon.
_MOST = 8


def trace_with_equal_lengths(attempt):
    """Trace a model whose inputs have different lengths, or equal ones if the model needs that.

    Args:
        attempt: function(same) -> (tracer, outputs, error). It traces the model from the start.
            `same` is a dict of name of a dimension -> name of the dimension that it equals. Either
            outputs or error is None.

    Returns:
        (tracer, outputs, str that says which inputs have one length and which layer needs that).

    Raises:
        Exception: the model cannot be traced, whatever lengths are equal.
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
        # The axis of an input may be a sum of lengths, such as past + sequence.
        equal = inputs if len(inputs) > 1 else dimensions
        reasons.append(f"{' and '.join(equal)} have one length, which {stopped} needs")
    return tracer, outputs, "; ".join(reasons)


def _next(attempt, first, stopped, same):
    """Find dimensions that must be equal for the trace to get further: those that are unequal in
    the call that failed, or a pair, or all of them.

    Returns:
        (dict as `same`, tracer, outputs); (None, None, None) if nothing helps.
    """
    names = [name for name in _lengths(first) if name not in same]
    best = stopped.progress, None, None, None
    pairs = itertools.combinations(names, 2) if len(names) <= _MOST else ()
    choices = [{b: a} for a, b in pairs]
    aligned = _aligned(stopped, names)
    if aligned:
        tracer, outputs, _ = attempt(same | aligned)
        if outputs is not None or tracer.progress > stopped.progress:
            return aligned, tracer, outputs
    if len(names) > 2:
        choices.append(dict.fromkeys(names[1:], names[0]))
    for choice in choices:
        tracer, outputs, _ = attempt(same | choice)
        if outputs is not None:
            return choice, tracer, outputs
        if tracer.progress > best[0]:
            best = tracer.progress, choice, tracer, None
    return best[1:]


def _aligned(tracer, names):
    """The dimensions to join so that the shapes in the call that failed would agree."""
    known = {tracer.dimension(name): name for name in names}
    joined = {}
    for first, other in tracer.unequal:
        if first in known and other in known and known[other] not in joined:
            a, b = sorted((known[first], known[other]), key=names.index)
            joined[b] = a
    return joined


def _lengths(tracer):
    """Names of the dynamic dimensions of inputs, without first dimensions (the batch)."""
    firsts = (i.shape.dims[0] for i in tracer.graph.inputs if i.shape.dims)
    batches = {d.value for d in firsts if not isinstance(d, int)}
    return [name for name in tracer.dimension_names if name not in batches]


def _inputs_of(tracer, names):
    def has_one(shape):
        return any(not isinstance(d, int) and d.value in names for d in shape.dims)

    return [i.name for i in tracer.graph.inputs if has_one(i.shape)]
