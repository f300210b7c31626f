"""The Transformer (https://arxiv.org/abs/1706.03762): post-norm or pre-norm, with sinusoids."""

from keras_seqattn.models.transformer_like import transformer_like
from keras_seqattn.models.values import FLAG

FAMILY = transformer_like(
    "transformer",
    "TransformerForConditionalGeneration",
    {
        "vocab_size": 37000,
        "d_model": 512,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 8,
        "encoder_ffn_dim": 2048,
        "decoder_ffn_dim": 2048,
        "activation_function": "relu",
        "scale_embedding": True,
        "layer_norm_eps": 1e-6,
        # Pre-norm, with a norm at the end of both stacks.
        "normalize_before": False,
        # None is Glorot's uniform for matrices, and deviation d_model ** -0.5 for the embedding.
        "init_std": None,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
    },
    fields={
        "keys": {"normalize_before": FLAG},
        "keras_names": {"normalize_first": ("normalize_before",)},
    },
    positions="interleaved",
)
