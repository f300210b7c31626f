"""mBART (https://arxiv.org/abs/2001.08210): BART with pre-norm and a norm after each stack."""

from keras_seqattn.models.transformer_like import BART_DEFAULTS, BART_FIXED, transformer_like

FAMILY = transformer_like(
    "mbart",
    "MBartForConditionalGeneration",
    {**BART_DEFAULTS, "decoder_start_token_id": None},
    {**BART_FIXED, "normalize_before": (None, True), "add_final_layer_norm": (None, True)},
    positions="learned",
    normalize_first=True,
    embeddings_norm=True,
)
