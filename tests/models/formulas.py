"""Encoders in NumPy float64 by their equations, over the tensors of a saved checkpoint."""

import math

import numpy as np
import safetensors.numpy

_erf = np.vectorize(math.erf, otypes=["float64"])


class Checkpoint:
    """Layers over the weights that `models.save` wrote.

    Args:
        directory: where they are.
        epsilon: of the layer norms.
    """

    def __init__(self, directory, epsilon):
        tensors = safetensors.numpy.load_file(directory / "model.safetensors")
        self.tensors = {name: value.astype("float64") for name, value in tensors.items()}
        self.epsilon = epsilon

    def __getitem__(self, name):
        return self.tensors[name]

    def dense(self, name, x):
        """`x W' + b`."""
        return x @ self[f"{name}.weight"].T + self[f"{name}.bias"]

    def norm(self, name, x):
        """Layer normalisation."""
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + self.epsilon)
        return centred / deviation * self[f"{name}.weight"] + self[f"{name}.bias"]

    def heads(self, layer, x, num_heads, which):
        """Queries, keys or values of a layer, float (b, t, h, d)."""
        out = self.dense(f"{layer}.attention.self.{which}", x)
        return out.reshape(*out.shape[:2], num_heads, -1)

    def output(self, layer, out):
        """The output projection over heads (b, t, h, d)."""
        return self.dense(f"{layer}.attention.output.dense", out.reshape(*out.shape[:2], -1))

    def feed_forward(self, layer, x):
        """`W2 gelu(W1 x)`."""
        hidden = self.dense(f"{layer}.intermediate.dense", x)
        gelu = 0.5 * hidden * (1 + _erf(hidden / 2**0.5))
        return self.dense(f"{layer}.output.dense", gelu)


def rotate(x, positions, base=10000.0):
    """Rotary positions in halves: float (b, t, h, d) turned by int (b, t)."""
    half = x.shape[-1] // 2
    angles = positions[:, :, None, None] * base ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def places(mask):
    """The number of real tokens before each, int (b, t)."""
    return np.maximum(mask.cumsum(1) - 1, 0)
