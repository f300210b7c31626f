"""Random numbers that a layer draws at inference: functions of `keras.random` during a trace.

Keras would draw them once, and the file would hold them as constants. Since opset 22, onnxruntime
has no kernel for RandomUniform and RandomNormal on CPU. But it has one for Dropout, whose mask is
24 random bits of each uniform number here.

A whole number as seed gives the same draw at each call of Keras. If the shape is known, this draw
is what the file holds.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.symbol import Symbol

# The key in the metadata of a file that draws random numbers. The value names the functions.
RANDOM = "keras_seqattn.random"
_BITS = 24
_REFUSED = ("gamma", "beta", "binomial")


def replaced_draws(tracer):
    """dict of name in `keras.random` -> wrapper(original), for `keras_internals.intercept`."""
    functions = (uniform, normal, truncated_normal, randint, categorical, dropout, shuffle)
    return {
        **{function.__name__: _drawn(tracer, function) for function in functions},
        **{name: _refused(tracer, name) for name in _REFUSED},
    }


def _drawn(tracer, function):
    def wrapper(original):
        def traced(*args, **kwargs):
            seed = kwargs.get("seed")
            given = keras.tree.flatten((args, [v for k, v in kwargs.items() if k != "seed"]))
            is_known = not any(isinstance(x, Symbol) for x in given)
            if is_known and isinstance(seed, int):
                return original(*args, **kwargs)
            drawn = tracer.graph.metadata_props.get(RANDOM, "").split()
            tracer.graph.metadata_props[RANDOM] = " ".join({*drawn, function.__name__})
            return function(tracer, *args, **kwargs)

        return traced

    return wrapper


def _refused(tracer, name):
    def wrapper(original):
        def traced(*args, **kwargs):
            raise ExportError(
                f"{tracer.where()}: keras.random.{name} has no ONNX form; draw from "
                "keras.random.uniform or keras.random.normal, or give the numbers as an input"
            )

        return traced

    return wrapper


def _uniform(tracer, shape):
    """float32 numbers in [0, 1) of a shape of ints and scalar Symbols."""
    shape = list(shape)
    sizes = tracer.numbers(shape, "the size of a random tensor")
    # Nodes that compute the same of the same are joined. No two draws have the same input.
    tracer.draws += 1
    ones = tracer.filled([*shape, _BITS], float(tracer.draws), "float32")
    half, on = tracer.constant(0.5, "float32"), tracer.constant(True)
    specs = [(ones.sizes, "float32"), (ones.sizes, "bool")]
    _, bits = tracer.emit("Dropout", [ones, half, on], outputs=specs)
    digits = tracer.constant(0.5 ** np.arange(1, _BITS + 1), "float32")
    bits = cast(tracer, bits, "float32")
    return tracer.emit("MatMul", [bits, digits], sizes=sizes, dtype="float32")


def uniform(tracer, shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
    width = ops.subtract(maxval, minval)
    drawn = ops.add(ops.multiply(_uniform(tracer, shape), width), minval)
    return ops.cast(drawn, dtype or keras.config.floatx())


def normal(tracer, shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
    """Normal numbers of two uniform ones each: the transform of Box and Muller."""
    radius = ops.sqrt(ops.multiply(ops.log(1.0 - _uniform(tracer, shape)), -2.0))
    angle = ops.multiply(_uniform(tracer, shape), 2 * math.pi)
    drawn = ops.multiply(radius, ops.cos(angle))
    drawn = ops.add(ops.multiply(drawn, stddev), mean)
    return ops.cast(drawn, dtype or keras.config.floatx())


def truncated_normal(tracer, shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
    """Normal numbers, drawn again as long as they are more than two deviations from the mean."""

    def is_far(x):
        return ops.greater(ops.abs(x), 2.0)

    def again(x):
        return ops.where(is_far(x), normal(tracer, shape, dtype="float32"), x)

    start = normal(tracer, shape, dtype="float32")
    drawn = ops.while_loop(lambda x: ops.any(is_far(x)), again, start)
    drawn = ops.add(ops.multiply(drawn, stddev), mean)
    return ops.cast(drawn, dtype or keras.config.floatx())


def randint(tracer, shape, minval, maxval, dtype="int32", seed=None):
    """Whole numbers. Of a range of more than 2^24 numbers, not every one is drawn."""
    width = ops.cast(ops.subtract(tracer.tensor(maxval), tracer.tensor(minval)), "float32")
    drawn = ops.floor(ops.multiply(_uniform(tracer, shape), width))
    return ops.cast(ops.add(ops.cast(drawn, "int32"), minval), dtype)


def categorical(tracer, logits, num_samples, dtype="int32", seed=None):
    """Classes (b, num_samples): the first whose cumulated probability is above a uniform number."""
    ends = ops.cumsum(ops.softmax(ops.cast(logits, "float32"), axis=-1), axis=-1)
    drawn = _uniform(tracer, (tracer.size(ends, 0), num_samples))
    # The sum of all may be rounded to less than 1.
    before = ops.less_equal(ends[:, None, :-1], ops.expand_dims(drawn, -1))
    return ops.cast(ops.sum(ops.cast(before, "int32"), axis=-1), dtype)


def dropout(tracer, inputs, rate, noise_shape=None, seed=None):
    if rate == 0:
        return inputs
    shape = [tracer.size(inputs, axis) for axis in range(len(inputs.sizes))]
    if noise_shape is not None:
        shape = [n if given is None else given for n, given in zip(shape, noise_shape, strict=True)]
    kept = ops.greater_equal(_uniform(tracer, shape), rate)
    zero = tracer.constant(0.0, inputs.dtype)
    return ops.where(kept, ops.divide(inputs, 1.0 - rate) if rate < 1 else zero, zero)


def shuffle(tracer, x, axis=0, seed=None):
    """The parts of `x` along an axis in a random order."""
    order = ops.argsort(_uniform(tracer, [tracer.size(x, axis)]))
    return ops.take(x, order, axis=axis)
