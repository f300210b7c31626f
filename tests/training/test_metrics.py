"""Accuracy and perplexity over tokens, across batches of different numbers of tokens."""

import keras
import numpy as np

from keras_seqattn.training import IGNORED, MaskedAccuracy, Perplexity
from keras_seqattn.training.losses import token_losses
from tests.helpers import to_numpy

V = 11


def batches():
    rng = np.random.default_rng(1)
    for rows, length, ignored in ((3, 7, 9), (2, 5, 1), (1, 1, 0)):
        labels = rng.integers(0, V, (rows, length))
        labels.reshape(-1)[rng.choice(rows * length, ignored, replace=False)] = IGNORED
        yield labels, rng.normal(0, 2, (rows, length, V)).astype("float32")


def over_tokens(value):
    values = [value(labels, logits)[labels != IGNORED] for labels, logits in batches()]
    return np.concatenate(values).mean()


def measured(metric):
    for labels, logits in batches():
        metric.update_state(labels, logits)
    return to_numpy(metric.result())


def test_accuracy():
    expected = over_tokens(lambda labels, logits: logits.argmax(-1) == labels)
    np.testing.assert_allclose(measured(MaskedAccuracy()), expected, rtol=1e-6)


def test_perplexity():
    expected = np.exp(over_tokens(lambda labels, logits: to_numpy(token_losses(labels, logits)[0])))
    np.testing.assert_allclose(measured(Perplexity()), expected, rtol=1e-5)


def test_uniform_logits_have_the_perplexity_of_the_vocabulary():
    metric = Perplexity()
    metric.update_state(np.array([[1, 2, IGNORED]]), np.zeros((1, 3, V), "float32"))
    np.testing.assert_allclose(to_numpy(metric.result()), V, rtol=1e-5)


def test_sample_weights_of_rows_and_of_tokens():
    labels = np.array([[1, 2], [3, 4]])
    logits = np.eye(V, dtype="float32")[np.array([[1, 2], [0, 0]])]
    for weight in (np.array([3.0, 1.0]), np.array([[3.0, 3.0], [1.0, 1.0]])):
        metric = MaskedAccuracy()
        metric.update_state(labels, logits, sample_weight=weight)
        np.testing.assert_allclose(to_numpy(metric.result()), 0.75, rtol=1e-6)


def test_configurations():
    for metric in (MaskedAccuracy(ignore_class=0, name="a"), Perplexity(ignore_class=0, name="p")):
        copy = keras.metrics.deserialize(keras.metrics.serialize(metric))
        assert copy.get_config() == metric.get_config()
