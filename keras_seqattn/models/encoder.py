"""The skeleton of bidirectional encoders: an embedder, a stack of blocks, a head."""

import dataclasses

import keras

from keras_seqattn.layers.blocks import EncoderBlock
from keras_seqattn.layers.normalization import normalization
from keras_seqattn.models.embedders import SourceEmbedder, TokenEmbedder
from keras_seqattn.models.functional import symbolic
from keras_seqattn.models.heads import Body, apply_head
from keras_seqattn.ops.positions import PositionIds


@dataclasses.dataclass(frozen=True)
class EncoderSpec:
    """What distinguishes one encoder from another.

    Attributes:
        embedder: a `TokenEmbedder` or a `SourceEmbedder`.
        layers: for each layer, a dict of its own arguments of `EncoderBlock`, for example a window
            or `attention`.
        block: dict of the arguments of `EncoderBlock` that all layers share.
        extras: the `Port` of each additional input int (b, t); each block gets these inputs.
        skips_padding: positions count only real tokens; otherwise they count padding, too.
        numbered_blocks: each block gets the positions, too; rotary positions need this.
        final_norm: normalise the last hidden states.
    """

    embedder: TokenEmbedder | SourceEmbedder
    layers: tuple
    block: dict
    extras: tuple = ()
    skips_padding: bool = False
    numbered_blocks: bool = False
    final_norm: bool = False


def build_encoder(spec, settings, task, initializer, heads=None):
    """(inputs, outputs) of an encoder, for `Family.build`.

    Args:
        spec: an `EncoderSpec`.
        settings, task, initializer: the arguments of `Family.build`.
        heads: None, or a dict of heads that replace those of `heads.HEADS`.
    """
    inputs = symbolic(*spec.embedder.ports(), *spec.extras)
    mask, places = inputs.get("attention_mask"), None
    # Without a mask, positions count everything. Blocks without position_ids do the same.
    if mask is not None and (spec.skips_padding or spec.numbered_blocks):
        places = PositionIds(name="position_ids")(mask, inputs.get("input_ids", mask))
    x, embedding = spec.embedder.embed(inputs, places if spec.skips_padding else None, initializer)
    called = ("attention_mask", *(port.name for port in spec.extras))
    call = {name: inputs[name] for name in called if name in inputs}
    if spec.numbered_blocks and places is not None:
        call["position_ids"] = places
    for index, own in enumerate(spec.layers):
        block = {**spec.block, **own, "kernel_initializer": initializer()}
        x = EncoderBlock(**block, name=f"layers_{index}")(x, **call)
    if spec.final_norm:
        kind, epsilon = spec.block.get("norm", "layer_norm"), spec.block["layer_norm_epsilon"]
        x = normalization(kind, epsilon, x.shape[-1], keras.config.dtype_policy(), "norm")(x)
    return inputs, apply_head(task, Body(x, inputs, embedding), settings, heads)
