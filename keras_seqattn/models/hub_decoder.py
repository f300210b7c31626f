"""Causal language models of keras-hub as decoders with a past that grows, like our own."""

import inspect

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
from keras_seqattn.models.hub_config import has_window, hub_assets, hub_config, hub_limit
from keras_seqattn.ports import names
from keras_seqattn.tasks import CAUSAL_LM, MODEL

_INPUTS = {"token_ids", "padding_mask"}


class HubDecoder(PortModel):
    """The logits of a causal language model of keras-hub, with inputs as in checkpoints.

    Padding may be on either side: the model sees the real tokens of a row side by side.

    Args:
        source: a `keras_hub.models.CausalLM` that reads only text.

    Raises:
        ConfigError: the model also reads other things, or what it keeps of earlier tokens is not
            one buffer of keys and values.
    """

    task = CAUSAL_LM.name
    family = None

    def __init__(self, source):
        given = set(source.input) if isinstance(source.input, dict) else set()
        if given != _INPUTS:
            raise ConfigError(
                f"{source.name} takes {', '.join(sorted(given)) or 'no dict'}; a decoder of a "
                "bundle takes only text. Build it without the parts for pictures and sound, or "
                "export it to one file"
            )
        inputs = symbolic(names.tokens(source.backbone.vocabulary_size), names.mask())
        shape, _ = _cache_shape(source)
        logits = HubLogits(source, name="hub")(inputs)
        super().__init__(inputs, {"logits": logits}, name=source.name)
        self.config, self.assets = hub_config(source, shape), hub_assets(source)
        self.padding_sides = ("left",) if has_window(source) else ("left", "right")

    def parts(self):
        """The models that become files, as in `SequenceModel.parts`."""
        return {MODEL: hub_step(self.get_layer("hub").source)}


def hub_step(source):
    """The model of one decoding step, as in `SequenceModel.step_model`."""
    shape, stacked = _cache_shape(source)
    step = HubStep(source, stacked, name="hub")
    inputs = symbolic(
        names.tokens(source.backbone.vocabulary_size),
        names.mask(length=names.TOTAL),
        *cache_ports(shape, source.compute_dtype, "cache", names.PAST),
    )
    limit = hub_limit(source)
    return PortModel(
        inputs,
        step(inputs),
        limits={names.TOTAL: limit} if limit else None,
        totals=names.TOTALS,
        name=f"{source.name}_step",
    )


class HubLogits(HubLayer):
    """The logits of whole rows."""

    def call(self, inputs):
        ids, mask, back = side_by_side(inputs["input_ids"], inputs["attention_mask"])
        logits = self.source({"token_ids": ids, "padding_mask": mask}, training=False)
        return ops.take_along_axis(logits, ops.expand_dims(back, -1), axis=1)

    def compute_output_spec(self, inputs):
        return self.logits_spec(inputs["input_ids"])


class HubStep(HubStepLayer):
    """One step with pasts that grow."""

    def step(self, inputs):
        ids = inputs["input_ids"]
        rooms, index = self.rooms(inputs, None, ids)
        cache = pairs_as_tensor(rooms) if self.stacked else rooms
        logits, _, cache = self.source.call_with_cache(ids, cache, index)
        pairs = tensor_as_pairs(cache, len(rooms)) if self.stacked else cache
        return logits, named_presents(pairs)


def _cache_shape(source):
    """What `call_with_cache` takes, found by a call of the model with one token.

    Returns:
        (number of layers, number of heads, size of a head), and whether all keys and values are one
        tensor (b, layers, 2, n, g, d). Otherwise they are pairs of tensors (b, n, g, d).
    """
    kind = type(source).__name__
    refusal = (
        f"{source.name}: what {kind} keeps of earlier tokens is not only keys and values of one "
        "shape, so it has no step here; export it to one file (a path that ends in .onnx)"
    )
    token = ops.zeros((1, 1), "int32")
    known = inspect.signature(source._build_cache).parameters
    own = {"token_ids": token, "padding_mask": ops.ones((1, 1), "int32")}
    given = {name: own.get(name) for name, p in known.items() if p.default is p.empty}
    try:
        _, cache = source._build_cache(**given)
        stacked = not isinstance(cache, (tuple, list))
        shapes = {cache.shape[2:]} if stacked else {x.shape for pair in cache for x in pair}
        ((_, length, heads, size),) = shapes
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(refusal) from error
    if length != 1:
        raise ConfigError(refusal)
    return ((cache.shape[1] if stacked else len(cache)), heads, size), stacked
