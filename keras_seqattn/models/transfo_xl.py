"""Transformer-XL (https://arxiv.org/abs/1901.02860): segments with a memory, relative positions."""

from keras_seqattn.models.decoder import decoder_model, step_model
from keras_seqattn.models.family import Family
from keras_seqattn.models.transformer_xl_like import (
    KERAS_NAMES,
    KEYS,
    MEMORY_EXTENT,
    SHAPES,
    TABLE,
    check_width,
    equal_steps,
    transformer_xl_spec,
)

DEFAULTS = {
    "vocab_size": 267735,
    "d_model": 1024,
    "d_head": 64,
    "d_inner": 4096,
    "n_layer": 18,
    "n_head": 16,
    "mem_len": 1600,
    "clamp_len": 1000,
    "same_length": True,
    "pre_lnorm": False,
    "dropout": 0.1,
    "dropatt": 0.0,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": True,
}
# One table of token vectors with the width of the model, no adaptive clusters; each layer has its
# own u and v.
_FIXED = {
    "cutoffs": (None, []),
    "div_val": (None, 1),
    "d_embed": (None,),
    "attn_type": (None, 0),
    "untie_r": (None, True),
}


def _build(settings, task, initializer):
    spec = transformer_xl_spec(
        settings, task, initializer, embedding_scale=settings["d_model"] ** 0.5
    )
    return decoder_model(spec, settings, task, initializer)


FAMILY = Family(
    model_type="transfo_xl",
    architectures={"causal_lm": "TransfoXLLMHeadModel", "embedding": "TransfoXLModel"},
    defaults=DEFAULTS,
    fixed=_FIXED,
    build=_build,
    table=TABLE,
    step=step_model,
    check=check_width,
    shapes=SHAPES,
    extent=MEMORY_EXTENT,
    layer_counts={"layers_{i}": ("n_layer",)},
    keys=KEYS,
    keras_names=KERAS_NAMES,
    equal_steps=equal_steps,
)
