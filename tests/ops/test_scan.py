"""Loops over several tensors, whose length TensorFlow may not know beforehand."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.layers.mechanisms import Performer
from keras_seqattn.ops.scan import scan
from tests.helpers import to_numpy
from tests.mechanisms import heads


def _body(state, slices):
    total, count = state
    a, b = slices
    return (ops.add(ops.multiply(total, ops.exp(a)), b), ops.add(count, 1.0)), (total, count)


@pytest.mark.parametrize("length", [1, 5])
def test_several_tensors(length):
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, length, 3, 7)).astype("float32")
    a = a[:, :, :1]
    run = _of_unknown_length(lambda a, b: scan(_body, (np.zeros((3, 7), "float32"), 0.0), (a, b)))
    (last, count), (before, counts) = run(a, b)
    total, expected = np.zeros((3, 7)), []
    for x, y in zip(a, b, strict=True):
        expected.append(total)
        total = total * np.exp(x) + y
    np.testing.assert_allclose(to_numpy(before), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_numpy(last), total, rtol=1e-5, atol=1e-6)
    assert to_numpy(counts).tolist() == list(range(length)) and float(count) == length


def test_steps_of_unknown_length():
    """The choice between one token and chunks is then made when the function runs."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends know every length")
    mechanism = Performer(11, seed=2)
    mechanism.build((None, None, 4, 5))
    state = (np.zeros((4, 2, 11, 8), "float32"), np.zeros((4, 2), "float32"))
    run = _of_unknown_length(lambda *qkv: mechanism(*qkv, state=state, causal=True)[0])
    for length in (1, 133):
        q, k, v = heads(length)
        expected = to_numpy(mechanism(q, k, v, causal=True))
        np.testing.assert_allclose(to_numpy(run(q, k, v)), expected, rtol=0, atol=1e-5)


def test_gradients_cost_no_square():
    """PyTorch's gradient of one slice, `x[i]`, is as large as x."""
    if keras.backend.backend() != "torch":
        pytest.skip("other backends add to one gradient in place")
    import torch

    a, b = (torch.randn(5, 3, 7, requires_grad=True) for _ in range(2))
    (last, _), _ = scan(_body, (torch.zeros(3, 7), torch.tensor(0.0)), (a, b))
    found, ahead = set(), [last.grad_fn]
    while ahead:
        node = ahead.pop()
        found.add(node.name())
        ahead += [after for after, _ in node.next_functions if after is not None]
    assert "UnbindBackward0" in found and "SelectBackward0" not in found, found
    slopes = torch.autograd.grad(last.sum(), (a, b))
    grown = torch.exp(a.flip(0).cumsum(0).flip(0) - a)
    torch.testing.assert_close(slopes[1], grown)


def _of_unknown_length(function):
    """Compiled on TensorFlow, with no size known but those behind the second axis."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    def call(*arrays):
        specs = [tf.TensorSpec([None, None, *x.shape[2:]]) for x in arrays]
        return tf.function(function, input_signature=specs)(*arrays)

    return call
