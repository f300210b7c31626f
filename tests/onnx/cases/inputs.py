"""The inputs that all cases share, by one letter or word, and values for them."""

import dataclasses

import keras
import numpy as np

from keras_seqattn.ports import Port


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of cases.

    Attributes:
        axes: ints, and names of dimensions (keys of `SIZES`).
        draw: function of (random generator, shape) -> array.
        dtype: of the values, as Keras names it.
    """

    axes: tuple
    draw: object
    dtype: str = "float32"

    def tensor(self, name):
        """The keras.Input."""
        shape = [n if isinstance(n, int) else None for n in self.axes]
        return keras.Input(batch_shape=shape, dtype=self.dtype, name=name)

    def port(self, name):
        """The `Port` that tells the exporter which dimensions are equal."""
        return Port(name, axes=self.axes, dtype=self.dtype)

    def array(self, random, sizes):
        """Values for sizes by the names of dimensions."""
        shape = [sizes.get(n, n) for n in self.axes]
        return np.asarray(self.draw(random, shape)).astype(self.dtype)


# What the dynamic dimensions are in each run: two batch sizes, three sizes of every other one.
SIZES = (
    {"batch_size": 2, "t": 5, "s": 3, "h": 9, "w": 13, "l": 83},
    {"batch_size": 3, "t": 1, "s": 7, "h": 8, "w": 6, "l": 64},
    {"batch_size": 2, "t": 2, "s": 1, "h": 12, "w": 8, "l": 97},
)


def _normal(random, shape):
    return random.standard_normal(shape)


def _positive(random, shape):
    return np.abs(random.standard_normal(shape)) + 0.1


def _open(random, shape):
    """Within (-1, 1)."""
    return random.uniform(-0.95, 0.95, shape)


def _odd(random, shape):
    """Numbers among which are NaN, both infinities, both zeros, halves and ties."""
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, -1.5, 2.5])
    values = random.standard_normal(shape)
    return np.where(random.random(shape) < 0.5, values, random.choice(odd, shape))


def _integers(low, high):
    return lambda random, shape: random.integers(low, high, shape)


def _flags(random, shape):
    return random.random(shape) < 0.6


def _shares(random, shape):
    """Positive, and of the sum 1 over the last axis."""
    values = _positive(random, shape)
    return values / values.sum(-1, keepdims=True)


def _regular(random, shape):
    """Square matrices that are far from singular, and need pivots."""
    return random.permutation(np.eye(shape[-1])) * 3 + 0.4 * random.standard_normal(shape)


def _definite(random, shape):
    a = random.standard_normal(shape)
    return a @ np.swapaxes(a, -1, -2) + np.eye(shape[-1])


def _unit(random, shape):
    return random.random(shape)


def _ascending(random, shape):
    return np.sort(random.standard_normal(shape), axis=-1)


_BT7 = ("batch_size", "t", 7)
_IMAGE = ("batch_size", "h", "w", 3)

INPUTS = {
    "x": Input(_BT7, _normal),
    "y": Input(_BT7, _normal),
    "p": Input(_BT7, _positive),
    "u": Input(_BT7, _open),
    "n": Input(_BT7, _odd),
    "o": Input(_BT7, _odd),
    "i": Input(_BT7, _integers(-9, 9), "int32"),
    "j": Input(_BT7, _integers(-9, 9), "int32"),
    "k": Input(_BT7, _integers(1, 5), "int32"),
    "b": Input(_BT7, _integers(0, 256), "uint8"),
    "f": Input(_BT7, _flags, "bool"),
    "g": Input(_BT7, _flags, "bool"),
    "ids": Input(("batch_size", "t"), _integers(0, 5), "int32"),
    "rows": Input(("batch_size",), _integers(0, 5), "int32"),
    "z": Input(("batch_size", "s", 7), _normal),
    "v": Input(("t",), _normal),
    "vp": Input(("t",), _positive),
    "vi": Input(("t",), _integers(0, 5), "int32"),
    "c": Input((), _normal),
    "ci": Input((), _integers(0, 3), "int32"),
    "cf": Input((), _flags, "bool"),
    "shares": Input(_BT7, _shares),
    "other_shares": Input(_BT7, _shares),
    "m": Input(("batch_size", 4, 4), _regular),
    "d": Input(("batch_size", 4, 4), _definite),
    "r": Input(("batch_size", 4, 3), _normal),
    "edges": Input((6,), _ascending),
    "image": Input(_IMAGE, _unit),
    "picture": Input(("batch_size", 3, "h", "w"), _unit),
    "film": Input(("batch_size", "t", "h", "w", 2), _normal),
    "line": Input(("batch_size", "l", 4), _normal),
    "plane": Input(("batch_size", "h", "w", 4), _normal),
    "planes": Input(("batch_size", 4, "h", "w"), _normal),
    "block": Input(("batch_size", "h", "w", 8, 4), _normal),
    "fixed": Input(("batch_size", 8, 12, 4), _normal),
    "still": Input(("batch_size", 8, 10, 3), _unit),
    "clip": Input(("batch_size", "t", 6, 5, 2), _normal),
    "sound": Input(("batch_size", "l"), _normal),
    "wave": Input(("batch_size", "t", 8), _normal),
    "wave2": Input(("batch_size", "t", 8), _normal),
}


def arrays(names, sizes, seed=0):
    """dict of name -> values. An input has the same values for the same sizes in every model."""
    numbers = {name: place for place, name in enumerate(INPUTS)}
    return {
        name: INPUTS[name].array(np.random.default_rng([seed, numbers[name]]), sizes)
        for name in names
    }
