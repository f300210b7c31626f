"""Batches without rows and sequences without tokens.

The rule, of every operation and layer: no rows give no rows and no tokens give no tokens, of the
shapes and dtypes that others have; a query without keys gets zeros; and a state stays as it was.
"""

import functools
import inspect

import keras
from keras import ops


def is_empty(*tensors):
    """Whether one of the tensors is known to have no elements."""
    return any(0 in tuple(x.shape) for x in tensors)


def of_tokens(*states):
    """A decorator for `call(self, query, key, ...)` of an operation that holds to the rule.

    Reshapes, maxima and loops fail on nothing, each backend in its own way.

    Args:
        states: names of the arguments that come back, in the order of the outputs after the first;
            one may be a tuple.
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
