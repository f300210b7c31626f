"""BART (https://arxiv.org/abs/1910.13461): post-norm, learned positions, normalised embeddings."""

from keras_seqattn.models.transformer_like import BART_DEFAULTS, BART_FIXED, transformer_like

FAMILY = transformer_like(
    "bart",
    "BartForConditionalGeneration",
    BART_DEFAULTS,
    BART_FIXED,
    positions="learned",
    embeddings_norm=True,
)
