"""The keys that several families read from config.json, with the values that they may have.

A key means the same in all families. Each family has its own default for it (`Family.defaults`). A
key that only one family reads is in `Family.keys`.
"""

from keras_seqattn.models.values import (
    EPSILON,
    FLAG,
    OPTIONAL_SIZE,
    RATE,
    SIZE,
    SPREAD,
    TEXT,
    TOKEN,
    TOKENS,
    Activation,
    Labels,
    Listed,
    Members,
    Nullable,
    Real,
    Whole,
)

_BASE = Nullable(Real(1, 1e18, open=True))

KEYS = {
    # Tokens and positions.
    "vocab_size": SIZE,
    "type_vocab_size": SIZE,
    "max_position_embeddings": SIZE,
    "original_max_position_embeddings": OPTIONAL_SIZE,
    "rope_parameters": Nullable(Members()),
    "rope_scaling": Nullable(Members()),
    "rope_theta": _BASE,
    "partial_rotary_factor": Real(0, 1, open=True),
    "pad_token_id": TOKEN,
    "bos_token_id": TOKEN,
    "eos_token_id": TOKENS,
    "decoder_start_token_id": TOKEN,
    "forced_bos_token_id": TOKEN,
    "forced_eos_token_id": TOKENS,
    # Widths and numbers of layers.
    "hidden_size": SIZE,
    "d_model": SIZE,
    "intermediate_size": SIZE,
    "encoder_ffn_dim": SIZE,
    "decoder_ffn_dim": SIZE,
    "num_hidden_layers": SIZE,
    "encoder_layers": SIZE,
    "decoder_layers": SIZE,
    # Heads.
    "num_attention_heads": SIZE,
    "encoder_attention_heads": SIZE,
    "decoder_attention_heads": SIZE,
    "num_key_value_heads": OPTIONAL_SIZE,
    "head_dim": OPTIONAL_SIZE,
    # The keys of an attention, and the part of the past that is kept.
    "sliding_window": OPTIONAL_SIZE,
    "rolling_cache": FLAG,
    "layer_types": Nullable(Listed(TEXT)),
    # The parts of a layer.
    "hidden_act": Activation(),
    "activation_function": Activation(),
    "layer_norm_eps": EPSILON,
    "layer_norm_epsilon": EPSILON,
    "rms_norm_eps": EPSILON,
    "norm_eps": EPSILON,
    "attention_bias": FLAG,
    "mlp_bias": FLAG,
    "use_bias": FLAG,
    "add_pooling_layer": FLAG,
    "add_final_logits_bias": FLAG,
    "tie_word_embeddings": FLAG,
    "share_encoder_decoder_embeddings": FLAG,
    "scale_embedding": FLAG,
    # Training, and new weights.
    "hidden_dropout_prob": RATE,
    "attention_probs_dropout_prob": RATE,
    "attention_dropout": RATE,
    "activation_dropout": RATE,
    "classifier_dropout": Nullable(RATE),
    "dropout": RATE,
    "initializer_range": SPREAD,
    "init_std": Nullable(SPREAD),
    # Labels.
    "num_labels": SIZE,
    "id2label": Nullable(Labels()),
    "label2id": Nullable(Members()),
}

# Values inside `rope_parameters`; `rope.py` says which of them a type has.
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
    "truncate": FLAG,
}
