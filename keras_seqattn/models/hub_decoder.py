"""Causal language models of keras-hub as decoders with a past that grows, like our own.

keras-hub generates with one buffer of a fixed length for all keys and values. Its `call_with_cache`
writes new tokens at an index into the buffer. Here the buffer is made of the pasts of the layers
and of room for the new tokens. So the result is the past and the new tokens.
"""

import inspect

import keras
from keras import ops

from keras_seqattn.errors import ConfigError
from keras_seqattn.models.functional import PortModel, symbolic
from keras_seqattn.models.hub_config import has_window, hub_assets, hub_config, hub_limit
from keras_seqattn.ports import Port, names
from keras_seqattn.tasks import CAUSAL_LM, MODEL

_INPUTS = {"token_ids", "padding_mask"}


def as_decoder(model):
    """A `HubDecoder` of a causal language model of keras-hub. Any other model does not change.

    keras-hub itself is not imported.

    Raises:
        ConfigError: as for `HubDecoder`.
    """
    is_hub = any(
        cls.__name__ == "CausalLM" and cls.__module__.startswith("keras_hub.")
        for cls in type(model).__mro__
    )
    return HubDecoder(model) if is_hub else model


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
        full = HubLogits(source, name="hub")
        super().__init__(inputs, {"logits": full(inputs)}, name=source.name)
        self.config, self.assets = hub_config(source, full.cache_shape), hub_assets(source)
        self.padding_sides = ("left",) if has_window(source) else ("left", "right")

    def parts(self):
        """The models that become files, as in `SequenceModel.parts`."""
        return {MODEL: hub_step(self.get_layer("hub").source)}


def hub_step(source):
    """The model of one decoding step, as in `SequenceModel.step_model`."""
    step = HubStep(source, name="hub")
    inputs = symbolic(
        names.tokens(source.backbone.vocabulary_size), names.mask(length=names.TOTAL)
    )
    layers, heads, size = step.cache_shape
    for index in range(layers):
        for part in ("key", "value"):
            past, present = names.cache_names(index, part)
            axes = (names.BATCH, heads, names.PAST, size)
            inputs |= symbolic(Port(past, "cache", axes, source.compute_dtype, follows=present))
    limit = hub_limit(source)
    return PortModel(
        inputs,
        step(inputs),
        limits={names.TOTAL: limit} if limit else None,
        totals=names.TOTALS,
        name=f"{source.name}_step",
    )


class _Hub(keras.layers.Layer):
    """A layer around a causal language model of keras-hub, the `source`."""

    def __init__(self, source, **kwargs):
        super().__init__(**kwargs, dtype=source.dtype_policy)
        self.source = source
        self.cache_shape, self.stacked = _cache_shape(source)

    def build(self, input_shape):
        # The source has its weights.
        self.built = True

    def _logits_spec(self, input_ids):
        width = self.source.backbone.vocabulary_size
        return keras.KerasTensor((*input_ids.shape, width), self.source.compute_dtype)


class HubLogits(_Hub):
    """The logits of whole rows. Padding is moved to the end of the rows, where keras-hub has it."""

    def call(self, inputs):
        ids, mask = (ops.cast(inputs[name], "int32") for name in ("input_ids", "attention_mask"))
        length = ops.shape(ids)[1]
        # No two of these numbers are equal, so that the order does not depend on the backend.
        order = ops.argsort((1 - mask) * length + ops.arange(length, dtype="int32"), axis=1)
        logits = self.source(
            {
                "token_ids": ops.take_along_axis(ids, order, axis=1),
                "padding_mask": ops.take_along_axis(mask, order, axis=1),
            },
            training=False,
        )
        back = ops.expand_dims(ops.argsort(order, axis=1), -1)
        return ops.take_along_axis(logits, back, axis=1)

    def compute_output_spec(self, inputs):
        return self._logits_spec(inputs["input_ids"])


class HubStep(_Hub):
    """One step with pasts that grow.

    Here, for Keras, all tokens are real. The exporter also follows `attention_mask`; see
    `onnx/lower/hub.py`.
    """

    def call(self, inputs):
        logits, presents = self.step(inputs)
        outputs = {"logits": logits}
        for index, pair in enumerate(presents):
            for part, present in zip(("key", "value"), pair, strict=True):
                name = names.cache_names(index, part)[1]
                outputs[name] = ops.transpose(present, (0, 2, 1, 3))
        return outputs

    def step(self, inputs):
        """(logits, for each layer its keys and values) with all tokens, float (b, p + t, g, d)."""
        ids = inputs["input_ids"]
        layers = range(self.cache_shape[0])
        pasts = [
            [inputs[names.cache_names(index, part)[0]] for part in ("key", "value")]
            for index in layers
        ]
        cache = tuple(tuple(_room(x, ids) for x in pair) for pair in pasts)
        if self.stacked:
            cache = ops.stack([ops.stack(pair, axis=1) for pair in cache], axis=1)
        index = ops.shape(pasts[0][0])[2]
        logits, _, cache = self.source.call_with_cache(ids, cache, index)
        if self.stacked:
            return logits, [(cache[:, i, 0], cache[:, i, 1]) for i in layers]
        return logits, cache

    def compute_output_spec(self, inputs):
        outputs = {"logits": self._logits_spec(inputs["input_ids"])}
        for name, tensor in inputs.items():
            if getattr(tensor, "port", None) is not None and tensor.port.role == "cache":
                shape = (tensor.shape[0], tensor.shape[1], None, tensor.shape[3])
                outputs[tensor.port.follows] = keras.KerasTensor(shape, tensor.dtype)
        return outputs


def _room(past, ids):
    """The past (b, g, p, d) as (b, p + t, g, d), with room for the new tokens (b, t)."""
    past = ops.transpose(past, (0, 2, 1, 3))
    batch, length = ops.shape(ids)
    shape = (batch, length, *past.shape[2:])
    return ops.concatenate([past, ops.zeros(shape, past.dtype)], axis=1)


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
