"""Marian (https://aclanthology.org/P18-4020): post-norm, sinusoids in halves; as in OPUS-MT."""

from keras_seqattn.models.transformer_like import LOGITS_BIAS, transformer_like
from keras_seqattn.models.values import OPTIONAL_SIZE

FAMILY = transformer_like(
    "marian",
    "MarianMTModel",
    {
        "vocab_size": 58101,
        # The vocabulary of the target, if it has its own; null is `vocab_size`.
        "decoder_vocab_size": None,
        "share_encoder_decoder_embeddings": True,
        "pad_token_id": 58100,
        "eos_token_id": 0,
        "decoder_start_token_id": 58100,
        "forced_eos_token_id": 0,
        LOGITS_BIAS: True,
    },
    {
        "normalize_before": (None, False),
        "add_final_layer_norm": (None, False),
        "normalize_embedding": (None, False),
        "static_position_embeddings": (None, True),
        "add_bias_logits": (None, False),
        "is_decoder": (None, False),
    },
    positions="halves",
    fields={"keys": {"decoder_vocab_size": OPTIONAL_SIZE}},
    extent=("decoder_vocab_size * d_model",),
)
