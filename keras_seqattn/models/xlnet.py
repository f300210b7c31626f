"""XLNet (https://arxiv.org/abs/1906.08237) read from left to right: this is a Transformer-XL.

The special parts of XLNet are its training, with several orders of prediction, and attention in
both directions. Only configurations with attn_type "uni" are accepted. Token types and the vector
of the mask are not used.
"""

import dataclasses

import numpy as np

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
    read_shape,
    transformer_xl_spec,
)
from keras_seqattn.weights.rows import WeightRow

_DEFAULTS = {
    "vocab_size": 32000,
    "d_model": 1024,
    # None is d_model / n_head.
    "d_head": None,
    "d_inner": 4096,
    "n_layer": 24,
    "n_head": 16,
    "ff_activation": "gelu",
    "attn_type": "uni",
    "mem_len": 512,
    "clamp_len": -1,
    "dropout": 0.1,
    "layer_norm_eps": 1e-12,
    "tie_word_embeddings": True,
}
_FIXED = {
    "attn_type": ("uni",),
    "same_length": (None, False),
    "bi_data": (None, False),
    "reuse_len": (None, 0),
}


def _build(settings, task, initializer):
    spec = transformer_xl_spec(
        {
            **settings,
            "same_length": False,
            "pre_lnorm": False,
            "dropatt": settings["dropout"],
            "layer_norm_epsilon": settings["layer_norm_eps"],
        },
        task,
        initializer,
        activation=settings["ff_activation"],
    )
    return decoder_model(spec, settings, task, initializer)


def _adapt(config, names):
    """For `Family.adapt`: files do not contain keys with the default of transformers."""
    return {"attn_type": "bi", **config}


def _table(settings):
    heads, width = settings["n_head"], settings["d_model"]
    size = read_shape(settings)["head_dim"]
    layer = "transformer.layer.{i}.rel_attn."
    unused = {layer + "r_s_bias": (heads, size), layer + "seg_embed": (2, heads, size)}
    rows = [WeightRow(name, None) for name in ("transformer.mask_emb", *unused)]
    zeros = {"transformer.mask_emb": np.zeros((1, 1, width), "float32")}
    for index in range(settings["n_layer"]):
        for name, shape in unused.items():
            zeros[name.format(i=index)] = np.zeros(shape, "float32")
    return dataclasses.replace(TABLE, body=(*TABLE.body, *rows), constants=zeros)


FAMILY = Family(
    model_type="xlnet",
    architectures={"causal_lm": "XLNetLMHeadModel", "embedding": "XLNetModel"},
    defaults=_DEFAULTS,
    fixed=_FIXED,
    build=_build,
    table=_table,
    adapt=_adapt,
    step=step_model,
    check=check_width,
    shapes=SHAPES,
    extent=MEMORY_EXTENT,
    layer_counts={"layers_{i}": ("n_layer",)},
    keys=KEYS,
    keras_names=KERAS_NAMES,
    equal_steps=equal_steps,
)
