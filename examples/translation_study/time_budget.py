"""Training for a given time."""

import time

import keras


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
