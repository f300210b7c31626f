"""What decoders keep of the past: writing into a buffer, and what is not in it yet."""

from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.symbol import Symbol
from keras_seqattn.ops.cache import UncachedContext


@lowers(UncachedContext)
def uncached_context(tracer, operation, context, past_key):
    """A Slice, whose length is a difference: never more is cached than the context has."""
    part = operation.call(context, past_key)
    length = context.sizes[1] - past_key.sizes[2]
    return Symbol(part.value, (part.sizes[0], length, *part.sizes[2:]), part.dtype)
