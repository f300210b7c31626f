"""LED (https://arxiv.org/abs/2004.05150): BART whose encoder has Longformer's attention."""

import keras

from keras_seqattn.layers.positions import PositionEmbedding
from keras_seqattn.models.longformer_like import (
    WINDOW_DEFAULTS,
    WINDOW_EXTENT,
    WINDOW_KEYS,
    global_rows,
    most_global_tokens,
    window_attentions,
)
from keras_seqattn.models.transformer_like import (
    BART_DEFAULTS,
    BART_FIXED,
    transformer_like,
    weight_table,
)
from keras_seqattn.models.values import SIZE
from keras_seqattn.ports import names
from keras_seqattn.weights.rows import attention_rows

_POSITIONS = ("max_encoder_position_embeddings", "max_decoder_position_embeddings")


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
    BART_DEFAULTS
    | WINDOW_DEFAULTS
    | {
        "max_encoder_position_embeddings": 16384,
        "max_decoder_position_embeddings": 1024,
        "forced_eos_token_id": None,
    },
    BART_FIXED,
    table=weight_table("led", _encoder_attention_rows),
    positions=_positions,
    embeddings_norm=True,
    attentions=_attentions,
    extent=(*WINDOW_EXTENT, "max_global_tokens * d_model"),
    position_rows="max_{side}_position_embeddings",
    extras=lambda settings: (names.global_mask(most_global_tokens(settings), names.SOURCE),),
    fields={
        "keys": WINDOW_KEYS | dict.fromkeys(_POSITIONS, SIZE),
        "keras_names": {"max_sequence_length": _POSITIONS},
        "most_global_tokens": most_global_tokens,
    },
)
