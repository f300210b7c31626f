"""Training each model for the same time on the same batches."""

import time

import keras
import numpy as np

from keras_seqattn import models, training
from translation_study.corpus import batches

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
    clock = TimeBudget(settings.seconds, settings.learning_rates[family], settings.warmups[family])
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


class TimeBudget(keras.callbacks.Callback):
    """Ends training after a time; the learning rate rises to its peak and falls to 0 within it.

    Args:
        seconds: float, the time.
        learning_rate: float, the peak.
        warmup: float, the share of the time until the peak.
    """

    def __init__(self, seconds, learning_rate, warmup):
        super().__init__()
        self.seconds, self.learning_rate, self.warmup = seconds, learning_rate, warmup
        self.steps, self.times = 0, []

    def on_train_begin(self, logs=None):
        self._start = time.perf_counter()

    @property
    def elapsed(self):
        """Seconds since the beginning, until the end once that is reached."""
        return self._end if self.model.stop_training else time.perf_counter() - self._start

    def on_epoch_begin(self, epoch, logs=None):
        done = self.elapsed / self.seconds
        rate = min(max(done, 1e-3) / self.warmup, max(0.0, 1 - done) / (1 - self.warmup))
        self.model.optimizer.learning_rate = self.learning_rate * rate

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        elapsed = time.perf_counter() - self._start
        if elapsed >= self.seconds:
            self._end = elapsed
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        self.times.append(self.elapsed)


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
