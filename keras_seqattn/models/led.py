"""LED (https://arxiv.org/abs/2004.05150): BART whose encoder has Longformer's attention."""

import keras

from keras_seqattn.layers.positions import PositionEmbedding
from keras_seqattn.models.bart import DEFAULTS, FIXED
from keras_seqattn.models.longformer import (
    MAX_GLOBAL_TOKENS,
    WINDOW_EXTENT,
    global_rows,
    window_attentions,
)
from keras_seqattn.models.transformer import attention_rows, transformer_like, weight_table
from keras_seqattn.ports import names


def _positions(settings):
    initializer = keras.initializers.RandomNormal(stddev=settings["init_std"])
    return lambda name: PositionEmbedding(
        settings[f"max_{name.removesuffix('_positions')}_position_embeddings"],
        settings["d_model"],
        embeddings_initializer=initializer.clone(),
        name=name,
    )


def _attentions(settings, initializer):
    layers, width = settings["encoder_layers"], settings["d_model"]
    return window_attentions("led", settings, layers, width, initializer)


def _encoder_attention_rows(checkpoint, variable):
    own = "longformer_self_attn"
    names = (*(f"{own}.{name}" for name in ("query", "key", "value")), "output")
    rows = attention_rows(checkpoint, variable, names)
    return (*rows, *global_rows(f"{checkpoint}.{own}", variable))


FAMILY = transformer_like(
    "led",
    "LEDForConditionalGeneration",
    DEFAULTS
    | {
        "max_encoder_position_embeddings": 16384,
        "max_decoder_position_embeddings": 1024,
        "attention_window": 512,
        MAX_GLOBAL_TOKENS: 64,
        "forced_eos_token_id": None,
    },
    FIXED,
    table=weight_table("led", _encoder_attention_rows),
    positions=_positions,
    embeddings_norm=True,
    attentions=_attentions,
    extent=(*WINDOW_EXTENT, "max_global_tokens * d_model"),
    position_rows="max_{side}_position_embeddings",
    extras=lambda settings: (names.global_mask(settings[MAX_GLOBAL_TOKENS], names.SOURCE),),
)
