"""Positions: rotary and ALiBi objects for attention, learned and sinusoidal position layers."""

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ConfigError
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.constants import shared_constant
from keras_seqattn.ops.nothing import is_empty
from keras_seqattn.ops.position_bias import alibi_bias, alibi_slopes
from keras_seqattn.ops.rotary import rotary_embedding
from keras_seqattn.ops.rotary_frequencies import (
    DIGIT_BASE,
    DIGITS,
    DYNAMIC_TYPES,
    STATIC_TYPES,
    base_frequencies,
    digit_tables,
    longrope_frequencies,
    rotary_tables,
)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class RotaryPositions:
    """Rotary position embedding of queries and keys, with the scalings of checkpoints.

    Args:
        head_dim: size d of a head.
        base: base of the frequencies.
        fraction: part of the channels that is rotated; the others stay.
        interleaved: rotate pairs of neighbouring channels, not the two halves.
        max_position: the longest sequence of the model; the number of rows of the tables.
        scaling: None or a dict as in the config of a checkpoint: `rope_type` (default, linear,
            dynamic, yarn, llama3 or longrope) and its values.
        unbounded: positions may be larger than `max_position`, up to 2**24, as in a stream that is
            decoded with a window. Only for scalings that do not depend on the length.

    Raises:
        ConfigError: the type of the scaling is unknown, or it is unbounded and depends on the
            length.
    """

    @checked
    def __init__(
        self,
        head_dim,
        base=10000.0,
        fraction=1.0,
        interleaved=False,
        max_position=4096,
        scaling=None,
        unbounded=False,
    ):
        self.head_dim = head_dim
        self.base = float(base)
        self.fraction = fraction
        self.interleaved = interleaved
        self.max_position = max_position
        self.scaling = dict(scaling or {"rope_type": "default"})
        self.rotary_dim = int(head_dim * fraction)
        self.rope_type = self.scaling.setdefault("rope_type", self.scaling.pop("type", "default"))
        if self.rope_type not in STATIC_TYPES + DYNAMIC_TYPES:
            raise ConfigError(
                f"Unknown rope_type {self.rope_type!r} in the rotary scaling; "
                f"implemented are {', '.join(STATIC_TYPES + DYNAMIC_TYPES)}."
            )
        self.unbounded = unbounded
        if unbounded and self.rope_type in DYNAMIC_TYPES:
            raise ConfigError(
                f"rope_type {self.rope_type!r} depends on the length, which an unbounded stream "
                f"does not have; {', '.join(STATIC_TYPES)} do not."
            )

    def rotate(self, query, key, position_ids):
        """Rotate queries and keys by the angles of their positions.

        Args:
            query: float (b, t, h, d).
            key: float (b, t, g, d).
            position_ids: int (b, t).

        Returns:
            float (b, t, h, d) and float (b, t, g, d).
        """
        if self.rope_type in STATIC_TYPES and not self.unbounded:
            cos, sin = self.tables()
            rows = position_ids
        else:
            cos, sin = self.angles(position_ids)
            rows = None
        return tuple(
            rotary_embedding(x, cos, sin, rows, interleaved=self.interleaved) for x in (query, key)
        )

    def tables(self):
        """The cos and sin of every position, NumPy float32 (max_position, r / 2)."""
        return rotary_tables(*self._table_key())

    def _table_key(self):
        items = tuple(
            (name, tuple(value) if isinstance(value, list) else value)
            for name, value in sorted(self.scaling.items())
        )
        return self.rotary_dim, self.base, self.max_position, items

    def angles(self, position_ids):
        """The cos and sin of positions, which may be larger than `max_position`.

        For a scaling that depends on the length, the length is the last position + 1.

        Args:
            position_ids: int (b, t), below 2**24.

        Returns:
            Two float32 (b, t, r / 2).
        """
        if self.rope_type in STATIC_TYPES:
            return self._angles_by_digits(position_ids)
        newest = 0 if is_empty(position_ids) else ops.max(position_ids)
        length = ops.cast(ops.add(newest, 1), "float32")
        if self.rope_type == "dynamic":
            frequencies, attention_factor = self._dynamic_frequencies(length), 1.0
        else:
            short, long, attention_factor = longrope_frequencies(
                self.rotary_dim, self.base, self.max_position, self.scaling
            )
            original = self.scaling.get("original_max_position_embeddings", self.max_position)
            frequencies = ops.where(
                ops.greater(length, float(original)),
                long.astype("float32"),
                short.astype("float32"),
            )
        angles = ops.multiply(
            ops.expand_dims(ops.cast(position_ids, "float32"), -1),
            ops.reshape(frequencies, (1, 1, -1)),
        )
        return tuple(ops.multiply(f(angles), attention_factor) for f in (ops.cos, ops.sin))

    def _angles_by_digits(self, position_ids):
        # Float32 positions times frequencies would be wrong by whole degrees.
        (cos, sin), *higher = (
            [ops.take(shared_constant(table), digit, axis=0) for table in tables]
            for digit, tables in zip(
                _digits(position_ids), digit_tables(*self._table_key()), strict=True
            )
        )
        for c, s in higher:
            cos, sin = (
                ops.subtract(ops.multiply(cos, c), ops.multiply(sin, s)),
                ops.add(ops.multiply(sin, c), ops.multiply(cos, s)),
            )
        return cos, sin

    def _dynamic_frequencies(self, length):
        # base * stretch ** (r / (r - 2)) to the power -2 i / r, written as one factor per channel.
        factor, channels = self.scaling["factor"], np.arange(0, self.rotary_dim, 2)
        length = ops.maximum(length, float(self.max_position))
        stretch = ops.subtract(ops.multiply(length, factor / self.max_position), factor - 1.0)
        powers = (-channels / (self.rotary_dim - 2)).astype("float32")
        frequencies = base_frequencies(self.rotary_dim, self.base).astype("float32")
        return ops.multiply(ops.exp(ops.multiply(ops.log(stretch), powers)), frequencies)

    def get_config(self):
        return {
            "head_dim": self.head_dim,
            "base": self.base,
            "fraction": self.fraction,
            "interleaved": self.interleaved,
            "max_position": self.max_position,
            "scaling": dict(self.scaling),
            "unbounded": self.unbounded,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _digits(position_ids):
    """The digits of positions in base DIGIT_BASE, the lowest first."""
    for _ in range(DIGITS):
        yield ops.mod(position_ids, DIGIT_BASE)
        position_ids = ops.floor_divide(position_ids, DIGIT_BASE)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class ALiBi:
    """Attention with linear biases: `-slope |i - j|` is added to the scores of each head.

    Args:
        num_heads: number of heads h.
    """

    @checked
    def __init__(self, num_heads):
        self.num_heads = num_heads
        self.slopes = alibi_slopes(num_heads)

    def bias(self, query_positions, key_positions):
        """The biases between two sets of positions, int (t,) and int (s,): float32 (1, h, t, s)."""
        return alibi_bias(self.slopes, query_positions, key_positions)

    def get_config(self):
        return {"num_heads": self.num_heads}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class _PositionLayer(keras.layers.Layer):
    """Rows of a table of positions: the rows of given positions, or the first t rows."""

    @checked
    def __init__(self, max_sequence_length, output_dim, offset=0, **kwargs):
        super().__init__(**kwargs)
        self.max_sequence_length = max_sequence_length
        self.output_dim = output_dim
        self.offset = offset
        self.supports_masking = True

    def _table(self):
        raise NotImplementedError

    def call(self, inputs, position_ids=None):
        if position_ids is None:
            self._check_length(inputs.shape[1])
            position_ids = ops.expand_dims(ops.arange(ops.shape(inputs)[1], dtype="int32"), 0)
        if self.offset:
            position_ids = ops.add(position_ids, self.offset)
        return ops.cast(ops.take(self._table(), position_ids, axis=0), self.compute_dtype)

    def _check_length(self, length):
        if length is not None and length > self.max_sequence_length:
            raise ValueError(
                f"{self.path}: there are {self.max_sequence_length} positions, for a sequence of "
                f"{length}; make the layer with a larger max_sequence_length."
            )

    def compute_output_spec(self, inputs, position_ids=None):
        shape = (1, inputs.shape[1]) if position_ids is None else tuple(position_ids.shape)
        return keras.KerasTensor((*shape, self.output_dim), self.compute_dtype)

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "max_sequence_length": self.max_sequence_length,
                "output_dim": self.output_dim,
                "offset": self.offset,
            }
        )
        return config


@keras.saving.register_keras_serializable(package="keras_seqattn")
class PositionEmbedding(_PositionLayer):
    """One learned vector per position; ONNX Gather.

    Args:
        max_sequence_length: number of positions.
        output_dim: size m of a vector.
        embeddings_initializer: initializer of the table.
        offset: number of rows of the table before position 0; BART has 2.

    Call arguments:
        inputs: (b, t) or (b, t, m); only its length is used.
        position_ids: int (b, t) or (t,); None means 0, 1, ..., t - 1.

    Returns:
        float (1, t, m), or (b, t, m) or (t, m) with `position_ids`.
    """

    @checked
    def __init__(self, max_sequence_length, output_dim, embeddings_initializer="uniform", **kwargs):
        super().__init__(max_sequence_length, output_dim, **kwargs)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def build(self, inputs_shape=None):
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.max_sequence_length + self.offset, self.output_dim),
            initializer=self.embeddings_initializer,
        )

    def _table(self):
        return self.embeddings

    def get_config(self):
        config = super().get_config()
        config["embeddings_initializer"] = keras.initializers.serialize(self.embeddings_initializer)
        return config


@keras.saving.register_keras_serializable(package="keras_seqattn")
class SinusoidalPositions(_PositionLayer):
    """`sin(p / 10000 ** (2 i / m))` and its cosine (https://arxiv.org/abs/1706.03762).

    Args:
        max_sequence_length: number of positions in the table.
        output_dim: size m of a vector, even.
        interleaved: sines and cosines alternate, as in the paper; otherwise the sines fill the
            first half.

    Call arguments and result as in `PositionEmbedding`.
    """

    @checked
    def __init__(self, output_dim, interleaved=True, max_sequence_length=4096, **kwargs):
        super().__init__(max_sequence_length, output_dim, **kwargs)
        if output_dim % 2:
            raise ValueError(f"output_dim must be even. Received: output_dim={output_dim}")
        self.interleaved = interleaved
        rows = max_sequence_length + self.offset
        angles = np.outer(np.arange(rows), base_frequencies(output_dim, 10000.0))
        parts = [np.sin(angles), np.cos(angles)]
        table = np.stack(parts, axis=-1) if interleaved else np.concatenate(parts, axis=-1)
        self.sinusoids = table.reshape(rows, output_dim).astype("float32")

    def build(self, inputs_shape=None):
        pass

    def _table(self):
        return self.sinusoids

    def get_config(self):
        config = super().get_config()
        config["interleaved"] = self.interleaved
        return config
