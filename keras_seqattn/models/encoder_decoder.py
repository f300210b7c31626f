"""The skeleton of encoder-decoders: full pass, encoder and decoding step over the same layers.

Positions count padding, as in the original implementations: so pad sources on the right.
"""

import dataclasses
import functools
from collections.abc import Callable

import keras

from keras_seqattn.layers.blocks import DecoderBlock, EncoderBlock
from keras_seqattn.layers.context_cache import ContextCache
from keras_seqattn.layers.embedding import EmbeddingSum, Scale, TokenEmbedding
from keras_seqattn.layers.normalization import normalization
from keras_seqattn.layers.outputs import OutputBias
from keras_seqattn.models.embedders import Source
from keras_seqattn.models.functional import (
    PortModel,
    apply_layers,
    named_layers,
    numbered_layers,
    symbolic,
)
from keras_seqattn.models.heads import Body, apply_head
from keras_seqattn.ops.cache import UncachedContext
from keras_seqattn.ops.positions import SlotPositions
from keras_seqattn.ports import Port, names


@dataclasses.dataclass(frozen=True)
class Stack:
    """The settings of only the encoder or only the decoder.

    Attributes:
        vocabulary_size: v.
        num_layers: number of blocks.
        block: dict of the arguments of `EncoderBlock` or `DecoderBlock`.
        attentions: None, or the `Mechanism` for the self-attention of each block.
        source: None, or the `Source` of an encoder that does not read tokens. `vocabulary_size` is
            not used then.
    """

    vocabulary_size: int | None
    num_layers: int
    block: dict
    attentions: list | None = None
    source: Source | None = None


@dataclasses.dataclass(frozen=True)
class EncoderDecoderSpec:
    """What distinguishes one encoder-decoder from another.

    Attributes:
        encoder, decoder: each a `Stack`.
        hidden_dim: m.
        shared: both stacks use one token embedding.
        tied: the logits use the token embedding of the decoder.
        embedding_scale: factor of the token embeddings.
        logits_scale: factor of the hidden states before the logits.
        logits_bias: the logits have a bias, which training does not change.
        positions: function from a name to a layer such as `PositionEmbedding`, or None.
        position_bias: None, or a function from a name and a bool (bidirectional) to a layer. The
            layer gets the positions of queries int (t,) and keys int (s,), and returns a bias for
            the self-attention of a stack, float (1, h, t, s).
        embeddings_norm: normalise the embeddings.
        final_norms: normalise the output of each stack.
        dropout: rate, applied to the embeddings.
        final_dropout: apply dropout also to the output of each stack.
        embeddings_initializer: function that makes an initializer for token embeddings; with None
            they have the initializer of all matrices.
        extras: the `Port` of each additional input int (b, s); each block of the encoder gets these
            inputs.
    """

    encoder: Stack
    decoder: Stack
    hidden_dim: int
    shared: bool = True
    tied: bool = True
    embedding_scale: float = 1.0
    logits_scale: float = 1.0
    logits_bias: bool = False
    positions: Callable | None = None
    position_bias: Callable | None = None
    embeddings_norm: bool = False
    final_norms: bool = False
    dropout: float = 0.0
    final_dropout: bool = False
    embeddings_initializer: Callable | None = None
    extras: tuple = ()


def make_layers(spec, initializer):
    """The layers of an encoder-decoder, by name.

    Args:
        spec: an `EncoderDecoderSpec`.
        initializer: function that makes a kernel initializer.

    Returns:
        dict with token_embedding, or with encoder_embedding and decoder_embedding (for a source
        that is not tokens, encoder_embedding is its layer). If the model has them, for encoder and
        decoder: encoder_scale, encoder_positions, encoder_embeddings_sum, encoder_embeddings_norm,
        encoder_dropout, encoder_position_bias, encoder_layers_0, ..., encoder_norm,
        encoder_final_dropout. Also logits_scale and final_logits_bias.
    """
    layers = _token_embeddings(spec, spec.embeddings_initializer or initializer)
    for side in ("encoder", "decoder"):
        layers |= _embedding_layers(spec, side)
        layers |= _blocks(spec, side, initializer)
        if spec.final_norms:
            layers[f"{side}_norm"] = _norm(spec, side, f"{side}_norm")
        if spec.final_dropout and spec.dropout:
            name = f"{side}_final_dropout"
            layers[name] = keras.layers.Dropout(spec.dropout, name=name)
    if spec.logits_scale != 1.0:
        layers["logits_scale"] = Scale(spec.logits_scale, name="logits_scale")
    if spec.logits_bias:
        layers["final_logits_bias"] = OutputBias(trainable=False, name="final_logits_bias")
    return layers


def build_model(spec, settings, task, initializer, heads=None):
    """(inputs, outputs) of the whole model, for `Family.build`.

    Args:
        spec: an `EncoderDecoderSpec`.
        settings, task, initializer: the arguments of `Family.build`.
        heads: None, or a dict of heads that replace those of `heads.HEADS`.
    """
    source = spec.encoder.source
    if source is None:
        tokens = names.tokens(spec.encoder.vocabulary_size, length=names.SOURCE)
        ports = (tokens, names.mask(length=names.SOURCE))
    else:
        ports = source.ports(names.SOURCE)
    targets = names.targets(spec.decoder.vocabulary_size)
    inputs = symbolic(*ports, *spec.extras, targets)
    layers = make_layers(spec, initializer)
    hidden, logits = full_pass(layers, inputs), functools.partial(_logits, layers)
    embedding = _table(layers, "decoder")
    return inputs, apply_head(task, Body(hidden, inputs, embedding, logits), settings, heads)


def full_pass(layers, inputs):
    """The hidden states of the decoder, for whole sources and whole targets.

    Args:
        layers: the result of `make_layers`.
        inputs: dict with the inputs of `encode`, and decoder_input_ids int (b, t).

    Returns:
        float (b, t, m).
    """
    targets = inputs["decoder_input_ids"]
    sources = {name: x for name, x in inputs.items() if name != "decoder_input_ids"}
    context = encode(layers, sources)
    x, bias = _embed(layers, "decoder", targets)
    for block in stack_of(layers, "decoder"):
        x = block(x, context, context_mask=inputs.get("attention_mask"), bias=bias)
    return _finish(layers, x)


def encode(layers, inputs):
    """The hidden states of the encoder.

    Args:
        layers: the result of `make_layers`.
        inputs: dict with the source as its first item, int (b, s) for tokens; attention_mask int
            (b, s), 1 = real, if there is one; and additional inputs for each block.

    Returns:
        float (b, s, m).
    """
    source, *others = inputs
    x, bias = _embed(layers, "encoder", inputs[source])
    for block in stack_of(layers, "encoder"):
        x = block(x, bias=bias, **{name: inputs[name] for name in others})
    return apply_layers(
        layers,
        (
            "encoder_norm",
            "encoder_final_dropout",
        ),
        x,
    )


def encoder_model(model, static):
    """The model of the encoder, see `SequenceModel.encoder_model`."""
    layers = named_layers(model)
    inputs = symbolic(*names.source_ports(model.ports))
    hidden = encode(layers, inputs)
    outputs = _context_caches(layers, hidden) if static else {names.ENCODED: hidden}
    limits = names.renamed_limits(model.ports, names.SOURCE, names.SOURCE)
    return PortModel(inputs, outputs, limits, name=f"{model.name}_encoder")


def step_model(model, static):
    """The model of one decoding step, see `SequenceModel.step_model`."""
    layers = named_layers(model)
    blocks = stack_of(layers, "decoder")
    inputs, caches = _step_inputs(blocks, _table(layers, "decoder"), static)
    ids, slot = inputs["input_ids"], inputs.get("cache_position")
    (past_key, _), (context_key, _) = caches[0]
    positions = SlotPositions(name="slot_positions")(ids, past_key, slot)
    context = None
    if not static:
        states = inputs["encoder_hidden_states"]
        context = UncachedContext(name="uncached_context")(states, context_key)
    x, bias = _embed(layers, "decoder", ids, positions)
    presents = {}
    for index, (block, (cache, context_cache)) in enumerate(zip(blocks, caches, strict=True)):
        x, *present = block(
            x,
            context,
            context_mask=inputs["encoder_attention_mask"],
            bias=bias,
            cache=cache,
            cache_position=slot,
            context_cache=context_cache,
        )
        for side, pair in zip(("decoder", "encoder"), present, strict=False):
            presents |= dict(zip(_presents(index, side), pair, strict=True))
    return PortModel(
        inputs,
        {"logits": _logits(layers, _finish(layers, x)), **presents},
        limits=names.renamed_limits(model.ports, names.TARGET, names.TOTAL_TARGET),
        totals=None if static else names.TARGET_TOTALS,
        name=f"{model.name}_step",
    )


def stack_of(layers, side):
    """The blocks of "encoder" or "decoder" among named layers, in order."""
    return numbered_layers(layers, f"{side}_layers_")


def _token_embeddings(spec, initializer):
    sides = {"token_embedding": spec.decoder}
    if not spec.shared or spec.encoder.source is not None:
        sides = {"encoder_embedding": spec.encoder, "decoder_embedding": spec.decoder}
    layers = {}
    for name, stack in sides.items():
        if stack.source is not None:
            layers[name] = stack.source.layer(name)
            continue
        layers[name] = TokenEmbedding(
            stack.vocabulary_size,
            spec.hidden_dim,
            tied=spec.tied or stack is not spec.decoder,
            embeddings_initializer=initializer(),
            name=name,
        )
    return layers


def _embedding_layers(spec, side):
    layers = {}
    if spec.embedding_scale != 1.0:
        layers["scale"] = Scale(spec.embedding_scale, name=f"{side}_scale")
    if spec.positions is not None:
        layers["positions"] = spec.positions(f"{side}_positions")
        layers["embeddings_sum"] = EmbeddingSum(name=f"{side}_embeddings_sum")
    if spec.position_bias is not None:
        layers["position_bias"] = spec.position_bias(f"{side}_position_bias", side == "encoder")
    if spec.embeddings_norm:
        layers["embeddings_norm"] = _norm(spec, side, f"{side}_embeddings_norm")
    if spec.dropout:
        layers["dropout"] = keras.layers.Dropout(spec.dropout, name=f"{side}_dropout")
    return {f"{side}_{name}": layer for name, layer in layers.items()}


def _norm(spec, side, name):
    block = getattr(spec, side).block
    kind, epsilon = block.get("norm", "layer_norm"), block["layer_norm_epsilon"]
    return normalization(kind, epsilon, spec.hidden_dim, keras.config.dtype_policy(), name)


def _blocks(spec, side, initializer):
    stack, blocks = getattr(spec, side), {}
    for index in range(stack.num_layers):
        name = f"{side}_layers_{index}"
        settings = {**stack.block, "kernel_initializer": initializer(), "name": name}
        if stack.attentions is not None:
            settings["attention"] = stack.attentions[index]
        if side == "encoder":
            blocks[name] = EncoderBlock(**settings)
            continue
        blocks[name] = DecoderBlock(**settings, cross_attention=True)
        x, context = keras.Input((None, spec.hidden_dim)), keras.Input((None, spec.hidden_dim))
        cache, context_cache = (tuple(x.values()) for x in _cache_inputs(blocks[name], index))
        # Keras compares the outputs of every later graph with those of the first call of a layer.
        # So the first call must be the one with the most outputs.
        blocks[name](x, context, cache=cache, context_cache=context_cache)
    return blocks


def _embed(layers, side, ids, positions=None):
    """The embeddings of a stack, and the bias of its self-attention or None."""
    x = apply_layers(layers, (f"{side}_scale",), _table(layers, side)(ids))
    queries = None if positions is None else positions[0]
    # A source that is not tokens may have another length than its vectors.
    ids = ids if len(ids.shape) == 2 else x
    if f"{side}_positions" in layers:
        vectors = layers[f"{side}_positions"](ids, position_ids=queries)
        x = layers[f"{side}_embeddings_sum"](x, vectors)
    x = apply_layers(
        layers,
        (
            f"{side}_embeddings_norm",
            f"{side}_dropout",
        ),
        x,
    )
    if f"{side}_position_bias" not in layers:
        return x, None
    return x, layers[f"{side}_position_bias"](*(positions or SlotPositions()(ids)))


def _finish(layers, x):
    return apply_layers(
        layers,
        (
            "decoder_norm",
            "decoder_final_dropout",
        ),
        x,
    )


def _logits(layers, x):
    x = apply_layers(layers, ("logits_scale",), x)
    return apply_layers(layers, ("final_logits_bias",), _table(layers, "decoder")(x, reverse=True))


def _table(layers, side):
    return layers.get("token_embedding") or layers[f"{side}_embedding"]


def _context_caches(layers, hidden):
    """The keys and values of the encoder's hidden states, for every cross-attention, by name."""
    caches = {}
    for index, block in enumerate(stack_of(layers, "decoder")):
        cache = ContextCache(block.cross_attention, name=f"context_cache_{index}")(hidden)
        caches |= dict(zip(_presents(index, "encoder"), cache, strict=True))
    return caches


def _step_inputs(blocks, table, static):
    """The inputs of a step by name, and for each layer the pairs (key, value) of both caches."""
    ports = [names.source_mask(), names.tokens(table.vocabulary_size, length=names.TARGET)]
    if static:
        ports.append(names.slot())
    else:
        ports.append(names.context(table.hidden_dim, blocks[0].compute_dtype))
    inputs, caches = symbolic(*ports), []
    for index, block in enumerate(blocks):
        own, cross = _cache_inputs(block, index)
        inputs |= own | cross
        caches.append((tuple(own.values()), tuple(cross.values())))
    return inputs, caches


def _cache_inputs(block, index):
    """The symbolic keys and values of the past and of the context of one layer, by name."""
    settings = block.attention_settings
    groups = settings["num_key_value_heads"] or settings["num_heads"]
    sides = []
    for side, role, length in (
        ("decoder", "cache", names.PAST_TARGET),
        ("encoder", "source_cache", names.PAST_SOURCE),
    ):
        axes = (names.BATCH, groups, length, settings["head_dim"])
        pairs = [names.cache_names(index, part, side) for part in ("key", "value")]
        ports = [Port(past, role, axes, block.compute_dtype, follows=now) for past, now in pairs]
        sides.append(symbolic(*ports))
    return tuple(sides)


def _presents(index, side):
    return [names.cache_names(index, part, side)[1] for part in ("key", "value")]
