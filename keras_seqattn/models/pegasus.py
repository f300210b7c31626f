"""PEGASUS (https://arxiv.org/abs/1912.08777): pre-norm, sinusoidal positions in halves."""

from keras_seqattn.models.transformer_like import LOGITS_BIAS, SIDES, transformer_like

FAMILY = transformer_like(
    "pegasus",
    "PegasusForConditionalGeneration",
    {
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "forced_eos_token_id": 1,
        LOGITS_BIAS: True,
    },
    {
        "tie_word_embeddings": (True,),
        "normalize_before": (None, True),
        "add_final_layer_norm": (None, True),
        "normalize_embedding": (None, False),
        "static_position_embeddings": (None, True),
        "add_bias_logits": (None, False),
        "is_decoder": (None, False),
    },
    {f"model.{x}.embed_positions.weight": (f"{x}_positions", "sinusoids") for x in SIDES},
    positions="halves",
    normalize_first=True,
)
