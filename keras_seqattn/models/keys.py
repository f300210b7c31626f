"""Every key that a family reads from config.json, with the values that it may have.

A key means the same in all families, which say its value where it is absent (`Family.defaults`).
"""

from keras_seqattn.models.values import (
    MOST,
    Flag,
    Labels,
    Listed,
    Members,
    Nullable,
    Real,
    Text,
    Whole,
)

_SIZE = Whole()
_MAYBE_SIZE = Nullable(_SIZE)
_FLAG = Flag()
_RATE = Real(0, 1, below=True)
# Less vanishes beside the variance in float32.
_EPSILON = Real(1e-20, 1)
_SPREAD = Real(0, 1000)
_BASE = Nullable(Real(1, 1e18, open=True))
_TEXT = Text()
_LAYERS = Nullable(Listed(Whole(0)))
_TOKEN = Nullable(Whole(0))
_TOKENS = Nullable(Listed(Whole(0), alone=True))

KEYS = {
    # Tokens and positions.
    "vocab_size": _SIZE,
    "decoder_vocab_size": _MAYBE_SIZE,
    "type_vocab_size": _SIZE,
    "max_position_embeddings": _SIZE,
    "max_encoder_position_embeddings": _SIZE,
    "max_decoder_position_embeddings": _SIZE,
    "original_max_position_embeddings": _MAYBE_SIZE,
    "relative_attention_num_buckets": _SIZE,
    "relative_attention_max_distance": _SIZE,
    "rope_parameters": Nullable(Members()),
    "rope_scaling": Nullable(Members()),
    "rope_theta": _BASE,
    "partial_rotary_factor": Real(0, 1, open=True),
    "pad_token_id": _TOKEN,
    "bos_token_id": _TOKEN,
    "sep_token_id": _TOKEN,
    "eos_token_id": _TOKENS,
    "decoder_start_token_id": _TOKEN,
    "forced_bos_token_id": _TOKEN,
    "forced_eos_token_id": _TOKENS,
    # Widths and numbers of layers.
    "hidden_size": _SIZE,
    "d_model": _SIZE,
    "embedding_size": _SIZE,
    "intermediate_size": _SIZE,
    "d_ff": _SIZE,
    "d_inner": _SIZE,
    "encoder_ffn_dim": _SIZE,
    "decoder_ffn_dim": _SIZE,
    "maxout_size": _SIZE,
    "num_hidden_layers": _SIZE,
    "num_layers": _SIZE,
    "num_decoder_layers": _MAYBE_SIZE,
    "encoder_layers": _SIZE,
    "decoder_layers": _SIZE,
    "n_layer": _SIZE,
    "block_auto_adjust_ff_dim": _FLAG,
    "block_ffn_dim_multiplier": Real(0, 1000, open=True),
    "block_multiple_of": _SIZE,
    # Heads.
    "num_attention_heads": _SIZE,
    "num_heads": _SIZE,
    "encoder_attention_heads": _SIZE,
    "decoder_attention_heads": _SIZE,
    "n_head": _SIZE,
    "num_key_value_heads": _MAYBE_SIZE,
    "head_dim": _MAYBE_SIZE,
    "d_head": _MAYBE_SIZE,
    "d_kv": _SIZE,
    "attention_size": _SIZE,
    "linear_num_key_heads": _SIZE,
    "linear_num_value_heads": _SIZE,
    "linear_key_head_dim": _SIZE,
    "linear_value_head_dim": _SIZE,
    # Which keys are attended to, and how much of the past is kept.
    "sliding_window": _MAYBE_SIZE,
    "use_sliding_window": _FLAG,
    "rolling_cache": _FLAG,
    "max_window_layers": Whole(0),
    "layer_types": Nullable(Listed(_TEXT)),
    "attention_window": Listed(_SIZE, alone=True),
    "max_global_tokens": _SIZE,
    "attention_type": Text(("original_full", "block_sparse")),
    "block_size": _SIZE,
    "num_random_blocks": _SIZE,
    "num_projections": _SIZE,
    "projection_sharing": _TEXT,
    "num_random_features": _SIZE,
    # One more for each layer.
    "random_features_seed": Whole(0, MOST // 2),
    "mem_len": _SIZE,
    "clamp_len": Whole(-1),
    "same_length": _FLAG,
    "attn_type": _TEXT,
    "conv_L_cache": _SIZE,
    "linear_conv_kernel_dim": _SIZE,
    "full_attn_idxs": _LAYERS,
    "full_attention_interval": _SIZE,
    "num_experts": Whole(0),
    "decoder_sparse_step": _SIZE,
    "mlp_only_layers": _LAYERS,
    # What is in a layer.
    "hidden_act": _TEXT,
    "activation_function": _TEXT,
    "ff_activation": _TEXT,
    "feed_forward_proj": _TEXT,
    "dense_act_fn": Nullable(_TEXT),
    "is_gated_act": Nullable(_FLAG),
    "layer_norm_eps": _EPSILON,
    "layer_norm_epsilon": _EPSILON,
    "rms_norm_eps": _EPSILON,
    "norm_eps": _EPSILON,
    "normalize_before": _FLAG,
    "pre_lnorm": _FLAG,
    "attention_bias": _FLAG,
    "mlp_bias": _FLAG,
    "conv_bias": _FLAG,
    "use_bias": _FLAG,
    "add_pooling_layer": _FLAG,
    "add_final_logits_bias": _FLAG,
    "tie_word_embeddings": _FLAG,
    "share_encoder_decoder_embeddings": _FLAG,
    "scale_embedding": _FLAG,
    "scale_decoder_outputs": Nullable(_FLAG),
    "rescale_embeddings": _FLAG,
    "reverse_source": _FLAG,
    # Training, and new weights.
    "hidden_dropout_prob": _RATE,
    "attention_probs_dropout_prob": _RATE,
    "attention_dropout": _RATE,
    "activation_dropout": _RATE,
    "classifier_dropout": Nullable(_RATE),
    "dropout": _RATE,
    "dropout_rate": _RATE,
    "dropatt": _RATE,
    "initializer_range": _SPREAD,
    "initializer_factor": _SPREAD,
    "init_std": Nullable(_SPREAD),
    # Labels.
    "num_labels": _SIZE,
    "id2label": Nullable(Labels()),
    "label2id": Nullable(Members()),
}

# Values inside `rope_parameters`; which of them a type takes is in `rope.py`.
_FACTOR = Real(0, 1e6, open=True)
ROPE_KEYS = {
    "rope_theta": _BASE,
    "partial_rotary_factor": Nullable(Real(0, 1, open=True)),
    "factor": _FACTOR,
    "low_freq_factor": _FACTOR,
    "high_freq_factor": _FACTOR,
    "short_factor": Listed(_FACTOR),
    "long_factor": Listed(_FACTOR),
    "original_max_position_embeddings": Nullable(Whole(2)),
    "attention_factor": Nullable(_FACTOR),
    "beta_fast": Nullable(_FACTOR),
    "beta_slow": Nullable(_FACTOR),
    "mscale": Nullable(Real(0, 1e6)),
    "mscale_all_dim": Nullable(Real(0, 1e6)),
    "truncate": _FLAG,
}
