"""The skeleton of decoder-only models: the full pass and the decoding step over the same layers."""

import dataclasses

import keras

from keras_seqattn.layers.blocks import DecoderBlock
from keras_seqattn.layers.embedding import TokenEmbedding
from keras_seqattn.layers.normalization import normalization
from keras_seqattn.models.functional import named_layers, numbered_layers, token_inputs
from keras_seqattn.ops.positions import PositionIds


@dataclasses.dataclass(frozen=True)
class DecoderSpec:
    """What distinguishes one decoder from another.

    Attributes:
        vocabulary_size: v.
        hidden_dim: m.
        windows: one attention window per layer, None or inclusive (left, right).
        block: the arguments of `DecoderBlock` that all layers share.
        tied: the logits use the table of the token embedding.
    """

    vocabulary_size: int
    hidden_dim: int
    windows: tuple
    block: dict
    tied: bool = True


def make_layers(spec, initializer):
    """The layers of a decoder, by name.

    Args:
        spec: a `DecoderSpec`.
        initializer: function that makes a kernel initializer.

    Returns:
        dict with token_embedding, layers_0, layers_1, ..., and norm.
    """
    block, policy = spec.block, keras.config.dtype_policy()
    layers = {
        "token_embedding": TokenEmbedding(
            spec.vocabulary_size,
            spec.hidden_dim,
            tied=spec.tied,
            embeddings_initializer=initializer(),
            name="token_embedding",
        )
    }
    for index, window in enumerate(spec.windows):
        name = f"layers_{index}"
        layers[name] = DecoderBlock(
            **block, window=window, kernel_initializer=initializer(), name=name
        )
        x = keras.Input((None, spec.hidden_dim))
        # Keras checks the outputs of every later graph against those of a layer's first call, so
        # that one must be the call with the most outputs.
        layers[name](x, cache=tuple(_cache_inputs(layers[name], index).values()))
    layers["norm"] = normalization(
        block["norm"], block["layer_norm_epsilon"], spec.hidden_dim, policy, "norm"
    )
    return layers


def full_pass(layers, input_ids, attention_mask):
    """The hidden states of whole sequences.

    Args:
        layers: what `make_layers` returned.
        input_ids: int (b, t).
        attention_mask: int (b, t), 1 = real.

    Returns:
        float (b, t, m), normalised.
    """
    positions = PositionIds(name="position_ids")(attention_mask, input_ids)
    x = layers["token_embedding"](input_ids)
    for block in numbered_layers(layers, "layers_"):
        x = block(x, attention_mask=attention_mask, position_ids=positions)
    return layers["norm"](x)


def step_model(model, static):
    """The model of one decoding step, see `SequenceModel.step_model`.

    Args:
        model: a functional model over the layers of `make_layers`.
        static: whether caches are buffers of a fixed size.

    Returns:
        A functional model that shares the layers.
    """
    layers = named_layers(model)
    inputs = token_inputs("input_ids", "attention_mask")
    if static:
        inputs["cache_position"] = keras.Input(
            batch_shape=(1,), dtype="int32", name="cache_position"
        )
    slot = inputs.get("cache_position")
    mask = inputs["attention_mask"]
    positions = PositionIds(name="position_ids")(mask, inputs["input_ids"], slot)
    x = layers["token_embedding"](inputs["input_ids"])
    presents = {}
    for index, block in enumerate(numbered_layers(layers, "layers_")):
        cache = _cache_inputs(block, index)
        inputs |= cache
        x, present = block(
            x,
            attention_mask=mask,
            position_ids=positions,
            cache=tuple(cache.values()),
            cache_position=slot,
        )
        presents[f"present.{index}.key"], presents[f"present.{index}.value"] = present
    logits = layers["token_embedding"](layers["norm"](x), reverse=True)
    return keras.Model(inputs, {"logits": logits, **presents}, name=f"{model.name}_step")


def _cache_inputs(block, index):
    """The symbolic key and value of one layer's past, by name."""
    settings = block.attention_settings
    shape = (settings["num_key_value_heads"], None, settings["head_dim"])
    return {
        name: keras.Input(shape, dtype=block.compute_dtype, name=name)
        for name in (f"past_key_values.{index}.key", f"past_key_values.{index}.value")
    }
