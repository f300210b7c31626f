"""What values in a step of keras-hub are made of: parts, a past, keys before a repeat."""

from keras_seqattn.onnx.symbol import Symbol


class _Stack(Symbol):
    """The result of `ops.stack`, of which one part can be taken without a node.

    Args:
        stacked: the Symbol of the result.
        parts: list of Symbols.
        axis: int, the axis of the parts.
    """

    def __init__(self, stacked, parts, axis):
        super().__init__(stacked.value, stacked.sizes, stacked.dtype)
        self._parts, self._axis = parts, axis % len(stacked.sizes)

    def __getitem__(self, key):
        key = key if isinstance(key, tuple) else (key,)
        entry = key[self._axis] if len(key) > self._axis else None
        rest = (*key[: self._axis], *key[self._axis + 1 :])
        plain = all(k is Ellipsis or isinstance(k, slice) and k == slice(None) for k in rest)
        if isinstance(entry, int) and plain and Ellipsis not in key[: self._axis]:
            return self._parts[entry]
        if isinstance(entry, int) and not any(k is None or k is Ellipsis for k in key):
            return self._parts[entry][rest]
        return super().__getitem__(key)


def keeping_parts(original):
    """`ops.stack` whose result knows its parts. `original` is `ops.stack` itself."""

    def stack(xs, axis=0):
        result = original(xs, axis)
        return _Stack(result, list(xs), axis) if isinstance(result, Symbol) else result

    return stack


def is_behind(past, room, start, updates):
    """Whether new tokens are written behind a past (b, p, g, d) and fill its room."""
    if not isinstance(start, (list, tuple)):
        return False
    at = [n.number if isinstance(n, Symbol) else n for n in start]
    fills = past.sizes[1] + updates.sizes[1] == room.sizes[1]
    return fills and at == [0, past.sizes[1], 0, 0]


def transposed_input(tracer, x):
    """The Symbol of a past (b, g, p, d) of which `x` is the form (b, p, g, d), or None."""
    node = x.value.producer() if isinstance(x, Symbol) else None
    if node is None or node.op_type != "Transpose" or node.inputs[0] not in tracer.graph.inputs:
        return None
    b, p, g, d = x.sizes
    return Symbol(node.inputs[0], (b, g, p, d), x.dtype)


def before_repeat(value):
    """The keys before `ops.repeat` gave each query head its own: Unsqueeze, Expand, Reshape."""
    made = value
    for op_type in ("Reshape", "Expand", "Unsqueeze"):
        node = made.producer()
        if node is None or node.op_type != op_type:
            return value
        made = node.inputs[0]
    return made
