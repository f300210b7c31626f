"""Lowerings of losses and scores that Keras has as operations, and of their targets."""

import keras
import numpy as np
from keras import ops

from keras_seqattn.onnx.lower.elementwise import cast, operands, through_ops
from keras_seqattn.onnx.lower.registry import lowers


def _limited(probabilities):
    """Keras keeps probabilities away from 0 and 1, whose logarithms are infinite."""
    epsilon = keras.config.epsilon()
    return ops.clip(probabilities, epsilon, 1 - epsilon)


def _log_probabilities(operation, output, axis):
    if operation.from_logits:
        return ops.log_softmax(output, axis=axis)
    return ops.log(_limited(output / ops.sum(output, axis=axis, keepdims=True)))


@lowers("BinaryCrossentropy")
def binary_crossentropy(tracer, operation, target, output):
    """Of logits x and targets z: softplus(x) - x z, which does not overflow."""
    output = tracer.symbol(output)
    (target,) = operands(tracer, [target], output.dtype)
    if operation.from_logits:
        return ops.softplus(output) - output * target
    output = _limited(output)
    return -(target * ops.log(output) + (1 - target) * ops.log(1 - output))


@lowers("CategoricalCrossentropy")
def categorical_crossentropy(tracer, operation, target, output):
    output = tracer.symbol(output)
    (target,) = operands(tracer, [target], output.dtype)
    logs = _log_probabilities(operation, output, operation.axis)
    return -ops.sum(target * logs, axis=operation.axis)


@lowers("SparseCategoricalCrossentropy")
def sparse_categorical_crossentropy(tracer, operation, target, output):
    target, output = tracer.symbol(target), tracer.symbol(output)
    axis = operation.axis % len(output.sizes)
    logs = _log_probabilities(operation, output, axis)
    target = cast(tracer, target, "int64")
    if len(target.sizes) < len(output.sizes):
        target = ops.expand_dims(target, axis)
    return -ops.squeeze(ops.take_along_axis(logs, target, axis=axis), axis)


@lowers("MultiHot")
def multi_hot(tracer, operation, inputs):
    """1 for the classes that a row holds. The rows are along the second axis, if there are two."""
    hot = ops.one_hot(inputs, operation.num_classes, axis=operation.axis, dtype=operation.dtype)
    return ops.max(hot, axis=1 if len(inputs.sizes) > 1 else 0)


@lowers("InTopK")
def in_top_k(tracer, operation, targets, predictions):
    """Whether fewer than k predictions are greater than that of the target.

    A target whose prediction is not finite, or that is no class, is not among them.
    """
    targets, predictions = tracer.symbol(targets), tracer.symbol(predictions)
    at = ops.expand_dims(cast(tracer, targets, "int64"), -1)
    value = ops.take_along_axis(predictions, at, axis=-1)
    greater = ops.sum(ops.cast(predictions > value, "int32"), axis=-1)
    return ops.less(greater, operation.k)


@through_ops("PSNR")
def psnr(operation, x1, x2):
    """Peak signal-to-noise ratio in decibels: 20 log10 max - 10 log10 of the squared error."""
    error = ops.mean(ops.square(x1 - x2))
    return 20 * np.log10(operation.max_val) - 10 * ops.log10(error)
