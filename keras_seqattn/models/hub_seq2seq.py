"""Sequence-to-sequence models of keras-hub as an encoder and a decoder with pasts, like our own."""

import keras
from keras import ops

from keras_seqattn.errors import ConfigError
from keras_seqattn.models.functional import PortModel, symbolic
from keras_seqattn.models.hub_caches import (
    HubLayer,
    HubStepLayer,
    cache_ports,
    named_presents,
    pairs_as_tensor,
    side_by_side,
    tensor_as_pairs,
)
from keras_seqattn.models.hub_config import hub_assets, hub_seq2seq_config
from keras_seqattn.ops.cache import UncachedContext
from keras_seqattn.ports import names
from keras_seqattn.tasks import DECODER, ENCODER, SEQ2SEQ_LM

_INPUTS = {"encoder_token_ids", "encoder_padding_mask", "decoder_token_ids", "decoder_padding_mask"}


class HubSeq2Seq(PortModel):
    """The logits of a sequence-to-sequence model of keras-hub, with inputs as in checkpoints.

    Args:
        source: a `keras_hub.models.Seq2SeqLM` that reads only text.

    Raises:
        ConfigError: the model also reads other things, or what it keeps of earlier tokens is not
            one buffer of keys and values for each side.
    """

    task = SEQ2SEQ_LM.name
    family = None

    def __init__(self, source):
        given = set(source.input) if isinstance(source.input, dict) else set()
        self_shape = _cache_shapes(source) if given == _INPUTS else None
        if self_shape is None:
            raise ConfigError(
                f"{source.name}: {type(source).__name__} has no buffers of keys and values for "
                "each side, or reads more than text, so it has no step here; export it to one "
                "file (a path that ends in .onnx)"
            )
        size = source.backbone.vocabulary_size
        inputs = symbolic(*_source_ports(size), names.targets(size))
        logits = HubSeq2SeqLogits(source, name="hub")(inputs)
        super().__init__(inputs, {"logits": logits}, name=source.name)
        self.config, self.assets = hub_seq2seq_config(source, self_shape), hub_assets(source)

    def parts(self):
        """The models that become files, as in `SequenceModel.parts`."""
        source = self.get_layer("hub").source
        return {ENCODER: _encoder(source), DECODER: _step(source)}


def _encoder(source):
    inputs = symbolic(*_source_ports(source.backbone.vocabulary_size))
    hidden = HubEncoder(source, name="hub")(inputs)
    return PortModel(inputs, {names.ENCODED: hidden}, name=f"{source.name}_encoder")


def _step(source):
    size, dtype, shape = (
        source.backbone.vocabulary_size,
        source.compute_dtype,
        _cache_shapes(source),
    )
    own = cache_ports(shape, dtype, "cache", names.PAST_TARGET, "decoder")
    cross = cache_ports(shape, dtype, "source_cache", names.PAST_SOURCE, "encoder")
    # The order of other programs: for each layer those of the decoder, then those of the encoder.
    pasts = [port for i in range(0, len(own), 2) for port in own[i : i + 2] + cross[i : i + 2]]
    inputs = symbolic(
        names.source_mask(),
        names.tokens(size, length=names.TARGET),
        names.context(source.backbone.hidden_dim, dtype),
        *pasts,
    )
    outputs = HubSeq2SeqStep(source, name="hub")(inputs)
    return PortModel(inputs, outputs, totals=names.TARGET_TOTALS, name=f"{source.name}_step")


def _source_ports(vocabulary_size):
    return (
        names.tokens(vocabulary_size, length=names.SOURCE),
        names.mask(length=names.SOURCE),
    )


class HubSeq2SeqLogits(HubLayer):
    """The logits of whole targets."""

    def call(self, inputs):
        ids, mask, _ = side_by_side(inputs["input_ids"], inputs["attention_mask"])
        targets = ops.cast(inputs["decoder_input_ids"], "int32")
        fed = {
            "encoder_token_ids": ids,
            "encoder_padding_mask": mask,
            "decoder_token_ids": targets,
            "decoder_padding_mask": ops.ones_like(targets),
        }
        return self.source(fed, training=False)

    def compute_output_spec(self, inputs):
        return self.logits_spec(inputs["decoder_input_ids"])


class HubEncoder(HubLayer):
    """The hidden states of a source. The exporter counts positions by `attention_mask`."""

    def call(self, inputs):
        ids, mask = (ops.cast(inputs[name], "int32") for name in ("input_ids", "attention_mask"))
        return self.source.call_encoder(token_ids=ids, padding_mask=mask)

    def compute_output_spec(self, inputs):
        shape = (*inputs["input_ids"].shape, self.source.backbone.hidden_dim)
        return keras.KerasTensor(shape, self.source.compute_dtype)


class HubSeq2SeqStep(HubStepLayer):
    """One step. The keys and values of the source are computed where the past has none."""

    def step(self, inputs):
        ids, context = inputs["input_ids"], inputs["encoder_hidden_states"]
        first = names.cache_names(0, "key", "encoder")[0]
        new = UncachedContext(name="uncached_context")(context, inputs[first])
        rooms, index = self.rooms(inputs, "decoder", ids)
        source_rooms, source_index = self.rooms(inputs, "encoder", new)
        logits, _, own, cross = self.source.call_decoder_with_cache(
            encoder_hidden_states=new,
            encoder_padding_mask=inputs["encoder_attention_mask"],
            decoder_token_ids=ids,
            self_attention_cache=pairs_as_tensor(rooms),
            self_attention_cache_update_index=index,
            cross_attention_cache=pairs_as_tensor(source_rooms),
            cross_attention_cache_update_index=source_index,
        )
        presents = {}
        for side, cache in (("decoder", own), ("encoder", cross)):
            presents |= named_presents(tensor_as_pairs(cache, len(rooms)), side)
        return logits, presents


def _cache_shapes(source):
    """(number of layers, number of heads, size of a head) of both sides, or None."""
    token = ops.zeros((1, 1), "int32")
    try:
        shapes = {tuple(cache.shape) for cache in source._initialize_cache(token, token)}
        ((_, layers, pair, length, heads, size),) = shapes
    except (AttributeError, TypeError, ValueError):
        return None
    return (layers, heads, size) if (pair, length) == (2, 1) else None
