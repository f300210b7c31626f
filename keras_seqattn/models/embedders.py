"""The embedders of encoders: they make the first vectors, from tokens or from other inputs."""

import dataclasses
from collections.abc import Callable

import keras

from keras_seqattn.layers.embedding import EmbeddingSum, Scale, TokenEmbedding
from keras_seqattn.layers.normalization import normalization
from keras_seqattn.ports import Port, names


@dataclasses.dataclass(frozen=True)
class Source:
    """An input that is not tokens, and the layer that makes vectors from it.

    Attributes:
        name: name of the input, for example pixel_values or input_features.
        shape: shape of the input without the batch axis; None for an axis of free length.
        layer: function from a name to a layer, which maps float (b, *shape) to float (b, s, m).
        masked: there is also an input attention_mask, int (b, s). The layer must then make one
            vector of each entry of the first axis of the input.
    """

    name: str
    shape: tuple
    layer: Callable
    masked: bool = True

    def ports(self, length=names.TOKENS):
        """tuple of the `Port` of each input; `length` is the name of the first free axis."""
        free = [axis for axis, size in enumerate(self.shape) if size is None]
        dimensions = {axis: f"{self.name}_axis_{axis + 1}" for axis in free[1:]}
        dimensions |= dict.fromkeys(free[:1], length)
        axes = (dimensions.get(axis, size) for axis, size in enumerate(self.shape))
        port = names.guess(Port(self.name, axes=(names.BATCH, *axes)))
        seen = length if self.shape[0] is None else self.shape[0]
        return (port, names.mask(length=seen)) if self.masked else (port,)


@dataclasses.dataclass(frozen=True)
class SourceEmbedder:
    """The vectors of a `Source`, with positions, normalised.

    Attributes:
        source: the `Source`.
        positions: function of a name to a layer such as `PositionEmbedding`, or None.
        norm: None, or the kind and epsilon of a normalisation.
        dropout: rate.
    """

    source: Source
    positions: Callable | None = None
    norm: tuple | None = None
    dropout: float = 0.0

    def ports(self):
        """tuple of the `Port` of each input."""
        return self.source.ports()

    def embed(self, inputs, places, initializer):
        """The vectors float (b, s, m), and no token embedding."""
        x = self.source.layer(f"{self.source.name}_embedding")(inputs[self.source.name])
        return _finish(self, x, _positions(self, x, places)), None


@dataclasses.dataclass(frozen=True)
class TokenEmbedder:
    """The vectors of tokens, with positions and token types, normalised.

    Attributes:
        vocabulary_size: v.
        hidden_dim: m.
        positions: function of a name to a layer such as `PositionEmbedding`, or None.
        type_vocabulary_size: number of token types. The token types are then an input. None means
            no token types.
        scale: None, or the factor of the token vectors.
        norm: None, or the kind and epsilon of a normalisation.
        dropout: rate.
        tied: logits use the table of the token embedding.
    """

    vocabulary_size: int
    hidden_dim: int
    positions: Callable | None = None
    type_vocabulary_size: int | None = None
    scale: float | None = None
    norm: tuple | None = None
    dropout: float = 0.0
    tied: bool = True

    def ports(self):
        """tuple of the `Port` of each input."""
        count = self.type_vocabulary_size
        types = () if count is None else (names.token_types(count),)
        return (names.tokens(self.vocabulary_size), names.mask(), *types)

    def embed(self, inputs, places, initializer):
        """The vectors float (b, t, m), and the token embedding.

        Args:
            inputs: the symbolic inputs by name.
            places: int (b, t), the positions of the tokens; None counts padding too.
            initializer: function that makes an initializer.
        """
        embedding = TokenEmbedding(
            self.vocabulary_size,
            self.hidden_dim,
            tied=self.tied,
            embeddings_initializer=initializer(),
            name="token_embedding",
        )
        x = embedding(inputs["input_ids"])
        if self.scale is not None:
            x = Scale(self.scale, name="embeddings_scale")(x)
        others = _positions(self, inputs["input_ids"], places)
        if self.type_vocabulary_size is not None:
            table = TokenEmbedding(
                self.type_vocabulary_size,
                self.hidden_dim,
                embeddings_initializer=initializer(),
                name="token_type_embedding",
            )
            others.append(table(inputs["token_type_ids"]))
        return _finish(self, x, others), embedding


def _positions(embedder, x, places):
    """A list with the vectors of positions; it is empty if there are none."""
    if embedder.positions is None:
        return []
    return [embedder.positions("position_embedding")(x, position_ids=places)]


def _finish(embedder, x, others):
    """Add other vectors, normalise the sum, and apply dropout."""
    if others:
        x = EmbeddingSum(name="embeddings_sum")(x, *others)
    if embedder.norm is not None:
        kind, epsilon = embedder.norm
        policy = keras.config.dtype_policy()
        x = normalization(kind, epsilon, x.shape[-1], policy, "embeddings_norm")(x)
    if embedder.dropout:
        x = keras.layers.Dropout(embedder.dropout, name="embeddings_dropout")(x)
    return x
