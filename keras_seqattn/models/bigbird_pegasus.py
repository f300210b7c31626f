"""BigBird-Pegasus (https://arxiv.org/abs/2007.14062): PEGASUS with a block-sparse encoder.

Its positions are learned. `big_bird` explains attention_type.
"""

import keras

from keras_seqattn.layers.positions import PositionEmbedding
from keras_seqattn.models.big_bird_like import (
    SPARSE_DEFAULTS,
    SPARSE_EXTENT,
    SPARSE_KEYS,
    source_multiple,
    sparse_attentions,
)
from keras_seqattn.models.transformer_like import (
    LOGITS_BIAS,
    transformer_like,
    weight_table,
)
from keras_seqattn.weights.rows import attention_rows


def _positions(settings):
    return lambda name: PositionEmbedding(
        settings["max_position_embeddings"],
        settings["d_model"],
        embeddings_initializer=keras.initializers.RandomNormal(stddev=settings["init_std"]),
        name=name,
    )


def _attentions(settings, initializer):
    return sparse_attentions(settings, settings["encoder_layers"])


def _encoder_attention_rows(checkpoint, variable):
    names = ("self.query", "self.key", "self.value", "output")
    return attention_rows(checkpoint, variable, names)


FAMILY = transformer_like(
    "bigbird_pegasus",
    "BigBirdPegasusForConditionalGeneration",
    SPARSE_DEFAULTS
    | {
        "vocab_size": 96103,
        "encoder_layers": 16,
        "decoder_layers": 16,
        "max_position_embeddings": 4096,
        "activation_function": "gelu_new",
        "scale_embedding": True,
        "use_bias": False,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "decoder_start_token_id": 2,
        LOGITS_BIAS: True,
    },
    {"tie_word_embeddings": (True,), "is_decoder": (None, False)},
    table=weight_table("model", _encoder_attention_rows, "layernorm_embedding"),
    positions=_positions,
    normalize_first=True,
    attentions=_attentions,
    extent=SPARSE_EXTENT,
    position_rows="max_position_embeddings",
    fields={"keys": SPARSE_KEYS, "source_multiple": source_multiple},
)
