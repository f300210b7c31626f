"""Training each model for the same time on the same batches."""

import time

import keras
import numpy as np

from keras_seqattn import models, training
from translation_study.corpus import batches
from translation_study.time_budget import TimeBudget

# The learning rate is set anew after so many batches.
_STEPS = 20


def build(family, settings, assets=None):
    """A new model of a family, its weights drawn from a fixed seed."""
    keras.utils.set_random_seed(1)
    model = models.build(family, **settings.configs[family])
    model.assets = dict(assets or {})
    return model


def compile_model(model, settings):
    """Adam with clipped gradients, on the mean cross-entropy of the target tokens."""
    smoothing = settings.label_smoothings[model.family]
    model.compile(
        keras.optimizers.Adam(0.0, beta_2=0.98, epsilon=1e-9, clipnorm=1.0),
        {"logits": training.MaskedCrossEntropy(smoothing)},
    )


def fit(family, corpus, settings, folder):
    """Train a model and save it.

    Args:
        family: str.
        corpus: Corpus.
        settings: Settings.
        folder: pathlib.Path, where the model goes.

    Returns:
        dict of what was seen: parameters, steps, tokens, epochs, seconds, loss curve, perplexity.
    """
    model = build(family, settings, corpus.assets)
    compile_model(model, settings)
    data = batches(corpus, corpus.split.train, settings)
    compile_seconds = _compile_shapes(model, data)
    rate, warmup = settings.learning_rates[family], settings.warmups[family]
    clock = TimeBudget(settings.seconds, rate, warmup)
    stream = _Stream(data)
    history = model.fit(
        stream.forever(),
        steps_per_epoch=_STEPS,
        epochs=10**6,
        callbacks=[clock],
        shuffle=False,
        verbose=0,
    )
    models.save(model, folder)
    return {
        "parameters": model.count_params(),
        "compile_seconds": compile_seconds,
        "seconds": clock.elapsed,
        "steps": clock.steps,
        "epochs": clock.steps / len(data),
        "target_tokens": int(stream.target_tokens),
        "target_tokens_per_second": stream.target_tokens / clock.elapsed,
        "padding": data.padding(),
        "curve": [*zip(clock.times, history.history["loss"], strict=True)],
        "validation_perplexity": _perplexity(model, corpus, settings),
    }


class _Stream:
    """The batches without end, with a count of the target tokens that they hold."""

    def __init__(self, data):
        self.data = data
        self.target_tokens = 0

    def forever(self):
        while True:
            for index in range(len(self.data)):
                inputs, labels = self.data[index]
                self.target_tokens += np.sum(labels["logits"] != training.IGNORED)
                yield inputs, labels
            self.data.on_epoch_end()


def _compile_shapes(model, data):
    """Run one step on each shape of batch, and return the seconds; the learning rate is still 0."""
    start = time.perf_counter()
    firsts = {}
    for index in range(len(data)):
        inputs, labels = data[index]
        firsts.setdefault(inputs["input_ids"].shape, (inputs, labels))
    # A generator, as in training: for other kinds of data Keras would compile again.
    batches_of_each_shape = (batch for batch in firsts.values())
    model.fit(batches_of_each_shape, steps_per_epoch=len(firsts), verbose=0, shuffle=False)
    return time.perf_counter() - start


def _perplexity(model, corpus, settings):
    """Of the target tokens of the validation set, without label smoothing."""
    model.compile(
        loss={"logits": training.MaskedCrossEntropy()}, metrics={"logits": [training.Perplexity()]}
    )
    data = batches(corpus, corpus.split.validation, settings, seed=None)
    return float(model.evaluate(data, verbose=0, return_dict=True)["perplexity"])
