"""Batches without rows and sequences without tokens.

All operations and layers follow one rule. No rows give no rows, and no tokens give no tokens, with
the usual shapes and dtypes. A query without keys gets zeros. A state does not change.
"""

import functools
import inspect

import keras
from keras import ops


def is_empty(*tensors):
    """Whether one of the tensors is known to have no elements."""
    return any(0 in tuple(x.shape) for x in tensors)


def of_tokens(*states):
    """A decorator for `call(self, query, key, ...)` of an operation, which applies the rule.

    Without it, reshapes, maxima and loops fail on empty tensors, differently on each backend.

    Args:
        states: names of the arguments that the operation returns again, in the order of its outputs
            after the first. Such an argument may be a tuple.
    """

    def decorate(call):
        signature = inspect.signature(call)

        @functools.wraps(call)
        def checked(self, query, key, *args, **kwargs):
            if not is_empty(query, key):
                return call(self, query, key, *args, **kwargs)
            spec = self.compute_output_spec(query, key, *args, **kwargs)
            given = signature.bind(self, query, key, *args, **kwargs).arguments
            old = keras.tree.flatten([given.get(name) for name in states])
            first, *rest = keras.tree.flatten(spec)
            kept = [_kept(x, like, query) for x, like in zip(old or [None], rest, strict=False)]
            return keras.tree.pack_sequence_as(spec, [_zeros(first, query), *kept])

        return checked

    return decorate


def _kept(old, spec, query):
    return _zeros(spec, query) if old is None else ops.cast(old, spec.dtype)


def _zeros(spec, query):
    sizes = ops.shape(query)
    shape = [sizes[axis] if n is None else n for axis, n in enumerate(spec.shape)]
    return ops.zeros(shape, spec.dtype)
