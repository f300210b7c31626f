"""BART (https://arxiv.org/abs/1910.13461): post-norm, learned positions, normalised embeddings."""

from keras_seqattn.models.transformer import LOGITS_BIAS, transformer_like

DEFAULTS = {
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
    LOGITS_BIAS: True,
}
FIXED = {
    "tie_word_embeddings": (True,),
    "normalize_before": (None, False),
    "add_final_layer_norm": (None, False),
    "normalize_embedding": (None, True),
    "static_position_embeddings": (None, False),
    "extra_pos_embeddings": (None, 2),
    "add_bias_logits": (None, False),
    "is_decoder": (None, False),
}

FAMILY = transformer_like(
    "bart",
    "BartForConditionalGeneration",
    DEFAULTS,
    FIXED,
    positions="learned",
    embeddings_norm=True,
)
