"""Training throughput by length: what recurrence costs where it cannot run in parallel.

Every batch has about as many tokens, so that a longer text means fewer rows, as in training. The
texts are random: nothing here depends on what they say.
"""

import time

import numpy as np

from keras_seqattn import training
from translation_study.fitting import build, compile_model


def random_batch(vocabulary_size, rows, length, seed=0):
    """Inputs and labels of `rows` random pairs without padding, as `fit` takes them."""
    ids = np.random.default_rng(seed).integers(4, vocabulary_size, (2, rows, length), "int32")
    inputs = {
        "input_ids": ids[0],
        "attention_mask": np.ones_like(ids[0]),
        "decoder_input_ids": training.shift_right(ids[1], 1, 0),
    }
    return inputs, {"logits": ids[1]}


def measure(family, settings):
    """Target tokens per second of training steps, for every length.

    Args:
        family: str.
        settings: Settings.

    Returns:
        dict length -> median of target tokens per second.
    """
    model = build(family, settings)
    compile_model(model, settings)
    found = {}
    for length in settings.throughput_lengths:
        rows = max(1, settings.throughput_tokens // length)
        batch = random_batch(settings.vocabulary_size, rows, length)
        model.train_on_batch(*batch)
        seconds, start = [], time.perf_counter()
        while time.perf_counter() - start < settings.throughput_seconds or len(seconds) < 3:
            before = time.perf_counter()
            model.train_on_batch(*batch)
            seconds.append(time.perf_counter() - before)
        found[str(length)] = rows * length / float(np.median(seconds))
    return found
