"""Learning rates that rise linearly and then fall."""

import math

import keras
from keras import ops

from keras_seqattn.arguments import integer, number, shown


@keras.saving.register_keras_serializable(package="keras_seqattn")
class NoamSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """scale m^-0.5 min(n^-0.5, n w^-1.5); n counts from 1 (Vaswani et al. 2017, equation 3).

    Args:
        hidden_dim: int m, the width of the model.
        warmup_steps: int w.
        scale: float.
    """

    def __init__(self, hidden_dim, warmup_steps=4000, scale=1.0):
        integer(hidden_dim, "hidden_dim", least=1)
        integer(warmup_steps, "warmup_steps", least=1)
        number(scale, "scale")
        self.hidden_dim = hidden_dim
        self.warmup_steps = warmup_steps
        self.scale = scale

    def __call__(self, step):
        # The first update is step 0 in the optimizer and step 1 in the paper.
        n = ops.cast(step, "float32") + 1
        rate = ops.minimum(ops.rsqrt(n), n * self.warmup_steps**-1.5)
        return self.scale * self.hidden_dim**-0.5 * rate

    def get_config(self):
        return {
            "hidden_dim": self.hidden_dim,
            "warmup_steps": self.warmup_steps,
            "scale": self.scale,
        }


def _inverse_sqrt(step, warmup, _):
    return ops.rsqrt(ops.maximum(step, warmup) / warmup)


def _linear(step, warmup, total):
    return ops.maximum(0.0, (total - step) / max(1, total - warmup))


def _cosine(step, warmup, total):
    done = ops.minimum((step - warmup) / max(1, total - warmup), 1.0)
    return 0.5 * (1 + ops.cos(math.pi * done))


def _constant(step, warmup, total):
    return ops.ones_like(step)


_DECAYS = {
    "inverse_sqrt": _inverse_sqrt,
    "linear": _linear,
    "cosine": _cosine,
    "constant": _constant,
}


@keras.saving.register_keras_serializable(package="keras_seqattn")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from 0 to the peak in w steps, then falls; same values as in transformers.

    Args:
        learning_rate: float, the peak.
        warmup_steps: int w.
        decay: "inverse_sqrt", sqrt(w / n); "linear" or "cosine", to 0 at total_steps; "constant".
        total_steps: int, the last step of the decay; for "linear" and "cosine".
    """

    def __init__(self, learning_rate, warmup_steps, decay="inverse_sqrt", total_steps=None):
        number(learning_rate, "learning_rate")
        integer(warmup_steps, "warmup_steps")
        if total_steps is not None:
            integer(total_steps, "total_steps")
        if not isinstance(decay, str) or decay not in _DECAYS:
            raise ValueError(f"decay must be one of {', '.join(_DECAYS)}, not {shown(decay)}")
        if decay == "inverse_sqrt" and warmup_steps < 1:
            raise ValueError("inverse_sqrt decay needs at least 1 warm-up step")
        if decay in ("linear", "cosine") and (total_steps or 0) <= warmup_steps:
            raise ValueError(f"{decay} decay needs total_steps above {warmup_steps} warm-up steps")
        self.learning_rate = learning_rate
        self.warmup_steps = warmup_steps
        self.decay = decay
        self.total_steps = total_steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        warmup = step / max(1, self.warmup_steps)
        decay = _DECAYS[self.decay](step, self.warmup_steps, self.total_steps)
        return self.learning_rate * ops.where(step < self.warmup_steps, warmup, decay)

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "decay": self.decay,
            "total_steps": self.total_steps,
        }
