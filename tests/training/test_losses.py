"""The cross-entropy against PyTorch's: smoothing, ignored tokens, reductions, gradients."""

import keras
import numpy as np
import pytest
import torch

from keras_seqattn.training import IGNORED, MaskedCrossEntropy
from tests.helpers import compiled, gradients, to_numpy

B, T, V = 3, 7, 11


@pytest.fixture
def logits():
    return np.random.default_rng(1).normal(0, 3, (B, T, V)).astype("float32")


@pytest.fixture
def labels():
    labels = np.random.default_rng(2).integers(0, V, (B, T)).astype("int32")
    labels[0, 4:] = labels[2, :6] = IGNORED
    return labels


def reference(labels, logits, smoothing, reduction="mean"):
    return torch.nn.functional.cross_entropy(
        logits.reshape(-1, V),
        torch.tensor(labels.reshape(-1), dtype=torch.long),
        label_smoothing=smoothing,
        ignore_index=IGNORED,
        reduction=reduction,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.35])
@pytest.mark.parametrize(
    ("reduction", "theirs"), [("sum_over_batch_size", "mean"), ("sum", "sum"), (None, "none")]
)
def test_equals_pytorch(labels, logits, smoothing, reduction, theirs):
    loss = MaskedCrossEntropy(smoothing, reduction=reduction)
    expected = reference(labels, torch.tensor(logits), smoothing, theirs).numpy()
    actual = to_numpy(loss(labels, logits)).reshape(expected.shape)
    # float32 sums of up to 11 exponentials and 21 tokens.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_gradient_equals_pytorch(labels, logits):
    loss = MaskedCrossEntropy(0.1)
    (actual,) = gradients(lambda x: loss(labels, x), logits)
    x = torch.tensor(logits, requires_grad=True)
    reference(labels, x, 0.1).backward()
    np.testing.assert_allclose(actual, x.grad.numpy(), rtol=1e-5, atol=1e-7)
    assert np.all(actual[labels == IGNORED] == 0)


def test_a_mean_over_all_tokens_would_be_seen(labels, logits):
    everything = MaskedCrossEntropy(reduction=None)(labels, logits)
    mean = to_numpy(keras.ops.mean(everything))
    assert abs(mean - to_numpy(MaskedCrossEntropy()(labels, logits))) > 0.5


def test_a_length_of_one_and_nothing_to_learn(logits):
    labels = np.full((B, 1), 4)
    actual = to_numpy(MaskedCrossEntropy(0.1)(labels, logits[:, :1]))
    expected = reference(labels, torch.tensor(logits[:, :1]), 0.1).numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    labels[:] = IGNORED
    assert to_numpy(MaskedCrossEntropy(0.1)(labels, logits[:, :1])) == 0
    (gradient,) = gradients(lambda x: MaskedCrossEntropy(0.1)(labels, x), logits[:, :1])
    assert np.all(gradient == 0)


def test_padding_can_be_the_ignored_class(labels, logits):
    padded = np.where(labels == IGNORED, 0, np.maximum(labels, 1))
    marked = np.where(labels == IGNORED, IGNORED, np.maximum(labels, 1))
    np.testing.assert_array_equal(
        to_numpy(MaskedCrossEntropy(ignore_class=0)(padded, logits)),
        to_numpy(MaskedCrossEntropy()(marked, logits)),
    )


def test_large_logits_and_large_ids_in_half_precision():
    logits = np.zeros((1, 2, 70001), "float32")
    logits[0, :, 69999] = 3e4
    half = keras.ops.cast(logits, "bfloat16")
    values = to_numpy(MaskedCrossEntropy(reduction=None)(np.array([[69999, 70000]]), half))
    # bfloat16 keeps 8 bits: 3e4 is 29952 in it; 69999 and 70000 would be one id.
    np.testing.assert_allclose(values, [[0, 29952]], rtol=1e-6)


def test_compiled_and_restored_from_its_configuration(labels, logits):
    loss = MaskedCrossEntropy(0.2, ignore_class=3, name="loss")
    labels = np.where(labels == IGNORED, 3, labels)
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert copy.get_config() == loss.get_config()
    actual = to_numpy(compiled(lambda x, y: copy(x, y))(labels, logits))
    np.testing.assert_allclose(actual, to_numpy(loss(labels, logits)), rtol=1e-6)


def test_refuses_a_smoothing_of_one():
    with pytest.raises(ValueError, match="label_smoothing"):
        MaskedCrossEntropy(1.0)
