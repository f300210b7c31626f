"""The skeleton of decoder-only models: full pass and decoding step with the same layers."""

import dataclasses
import functools
from collections.abc import Callable

import keras

from keras_seqattn.layers.blocks import DecoderBlock
from keras_seqattn.layers.embedding import EmbeddingSum, Scale, TokenEmbedding
from keras_seqattn.layers.normalization import normalization
from keras_seqattn.layers.outputs import OutputBias
from keras_seqattn.models.functional import (
    PortModel,
    apply_layers,
    file_dtype,
    named_layers,
    numbered_layers,
    symbolic,
)
from keras_seqattn.models.heads import Body, apply_head
from keras_seqattn.ops.positions import NewTokens, PositionIds, StreamPositions
from keras_seqattn.ports import Port, names


@dataclasses.dataclass(frozen=True)
class DecoderSpec:
    """The differences between decoders.

    Attributes:
        vocabulary_size: v.
        hidden_dim: m.
        layers: for each layer, a dict of its own arguments of `DecoderBlock`, such as a window, a
            mechanism for `attention`, or a mixer.
        block: dict of the arguments of `DecoderBlock` that all layers share.
        tied: the logits use the token embedding.
        embedding_scale: None, or the factor of the token embeddings.
        positions: function from a name to a layer such as `PositionEmbedding`, or None.
        embeddings_norm: normalise the embeddings.
        final_norm: normalise the last hidden states.
        output_bias: the logits have a bias.
        dropout: rate, applied to the embeddings and to the last hidden states.
    """

    vocabulary_size: int
    hidden_dim: int
    layers: tuple
    block: dict
    tied: bool = True
    embedding_scale: float | None = None
    positions: Callable | None = None
    embeddings_norm: bool = False
    final_norm: bool = True
    output_bias: bool = False
    dropout: float = 0.0


def make_layers(spec, initializer):
    """The layers of a decoder, by name.

    Args:
        spec: a `DecoderSpec`.
        initializer: function that makes a kernel initializer.

    Returns:
        dict with token_embedding, layers_0, layers_1, .... If the model has them, also
        embedding_scale, position_embedding, embeddings_sum, embeddings_norm, embedding_dropout,
        norm, dropout and output_bias.
    """
    layers = {
        "token_embedding": TokenEmbedding(
            spec.vocabulary_size,
            spec.hidden_dim,
            tied=spec.tied,
            embeddings_initializer=initializer(),
            name="token_embedding",
        )
    }
    for index, own in enumerate(spec.layers):
        name = f"layers_{index}"
        block = {**spec.block, **own, "kernel_initializer": initializer()}
        layers[name] = DecoderBlock(**block, name=name)
        x = keras.Input((None, spec.hidden_dim))
        layers[name].build(x.shape)
        # Keras compares the outputs of every later graph with those of the first call of a layer.
        # So the first call must be the one with the most outputs.
        layers[name](x, cache=tuple(symbolic(*_pasts(layers[name], index)).values()))
    if spec.embedding_scale is not None:
        layers["embedding_scale"] = Scale(spec.embedding_scale, name="embedding_scale")
    if spec.positions is not None:
        layers["position_embedding"] = spec.positions("position_embedding")
        layers["embeddings_sum"] = EmbeddingSum(name="embeddings_sum")
    if spec.embeddings_norm:
        layers["embeddings_norm"] = _normalization(spec, "embeddings_norm")
    if spec.final_norm:
        layers["norm"] = _normalization(spec, "norm")
    for name in ("embedding_dropout", "dropout") if spec.dropout else ():
        layers[name] = keras.layers.Dropout(spec.dropout, name=name)
    if spec.output_bias:
        layers["output_bias"] = OutputBias(name="output_bias")
    return layers


def _normalization(spec, name):
    kind, epsilon = spec.block.get("norm", "layer_norm"), spec.block["layer_norm_epsilon"]
    return normalization(kind, epsilon, spec.hidden_dim, keras.config.dtype_policy(), name)


def full_pass(layers, input_ids, attention_mask):
    """The hidden states of whole sequences.

    Args:
        layers: the result of `make_layers`.
        input_ids: int (b, t).
        attention_mask: int (b, t), 1 = real.

    Returns:
        float (b, t, m), normalised.
    """
    positions = PositionIds(name="position_ids")(attention_mask, input_ids)
    x = _embed(layers, input_ids, positions)
    for block in numbered_layers(layers, "layers_"):
        x = block(x, attention_mask=attention_mask, position_ids=positions)
    return _finish(layers, x)


def decoder_model(spec, settings, task, initializer, heads=None):
    """(inputs, outputs) of a decoder, for `Family.build`.

    Args:
        spec: a `DecoderSpec`.
        settings, task, initializer: the arguments of `Family.build`.
        heads: None, or a dict of heads that replace those of `heads.HEADS`.
    """
    inputs = symbolic(names.tokens(spec.vocabulary_size), names.mask())
    layers = make_layers(spec, initializer)
    hidden, logits = full_pass(layers, **inputs), functools.partial(_logits, layers)
    body = Body(hidden, inputs, layers["token_embedding"], logits, causal=True)
    return inputs, apply_head(task, body, settings, heads)


def step_model(model, static):
    """The model of one decoding step, see `SequenceModel.step_model`.

    Args:
        model: a functional model over the layers of `make_layers`.
        static: whether caches that grow are buffers of a fixed size.

    Returns:
        A functional model that shares the layers.
    """
    layers = named_layers(model)
    blocks = numbered_layers(layers, "layers_")
    pasts = [symbolic(*_pasts(block, index)) for index, block in enumerate(blocks)]
    grows = any(block.state_shapes() is None for block in blocks)
    # The mask of a static step has the length of the buffer.
    read = names.TOKENS if not grows else names.PAST if static else names.TOTAL
    vocabulary_size = layers["token_embedding"].vocabulary_size
    inputs = symbolic(names.tokens(vocabulary_size), names.mask(length=read))
    positions, new_mask, presents = _growing(inputs, static) if grows else _streaming(inputs)
    x = _embed(layers, inputs["input_ids"], positions)
    for block, past in zip(blocks, pasts, strict=True):
        inputs |= past
        fixed = block.state_shapes() is not None
        x, present = block(
            x,
            attention_mask=new_mask if fixed else inputs["attention_mask"],
            position_ids=positions,
            cache=tuple(past.values()),
            cache_position=None if fixed else inputs.get("cache_position"),
        )
        presents |= zip((tensor.port.follows for tensor in past.values()), present, strict=True)
    longest = model.ports.longest
    return PortModel(
        inputs,
        {"logits": _logits(layers, _finish(layers, x)), **presents},
        limits={read: longest} if grows and longest else None,
        totals=names.TOTALS if read == names.TOTAL else None,
        name=f"{model.name}_step",
    )


def _embed(layers, input_ids, positions):
    x = apply_layers(layers, ("embedding_scale",), layers["token_embedding"](input_ids))
    if "position_embedding" in layers:
        places = layers["position_embedding"](input_ids, position_ids=positions)
        x = layers["embeddings_sum"](x, places)
    return apply_layers(layers, ("embeddings_norm", "embedding_dropout"), x)


def _finish(layers, x):
    return apply_layers(layers, ("norm", "dropout"), x)


def _logits(layers, hidden):
    return apply_layers(layers, ("output_bias",), layers["token_embedding"](hidden, reverse=True))


def _growing(inputs, static):
    """Positions (b, t) and mask (b, t) of the new tokens, if `attention_mask` includes the past.

    Additional inputs of the step are added to `inputs`. Additional outputs are returned last.
    """
    if static:
        inputs |= symbolic(names.slot())
    call = inputs["attention_mask"], inputs["input_ids"], inputs.get("cache_position")
    return PositionIds(name="position_ids")(*call), NewTokens(name="new_tokens")(*call), {}


def _streaming(inputs):
    """The same if no past grows. Then the number of earlier tokens is part of the past."""
    past, present = names.length_names()
    inputs |= symbolic(Port(past, "length", (names.BATCH,), "int64", least=0, follows=present))
    mask = inputs["attention_mask"]
    positions, length = StreamPositions(name="position_ids")(mask, inputs[past])
    return positions, mask, {present: length}


def _pasts(block, index):
    """The ports of the past of one layer: its states, or the key and value of its cache."""
    ports = []
    for name, (shape, dtype) in (block.state_shapes() or {}).items():
        past, present = names.state_names(index, name)
        dtype = file_dtype(dtype or block.compute_dtype)
        ports.append(Port(past, "state", (names.BATCH, *shape), dtype, follows=present))
    if block.state_shapes() is None:
        for name, (heads, size) in block.cache_shapes().items():
            past, present = names.cache_names(index, name)
            axes = (names.BATCH, heads, names.PAST, size)
            ports.append(Port(past, "cache", axes, block.compute_dtype, follows=present))
    return ports
