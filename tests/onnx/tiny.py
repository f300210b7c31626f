"""Tiny re-randomised models of every family, for the export tests."""

import keras_seqattn.models as models
from tests.helpers import randomise

LLAMA = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 96,
    "tie_word_embeddings": True,
}
BERT = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "type_vocab_size": 2,
}
BART = {
    "vocab_size": 97,
    "d_model": 48,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 88,
    "decoder_ffn_dim": 80,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
T5 = {
    "vocab_size": 97,
    "d_model": 48,
    "d_kv": 12,
    "num_heads": 4,
    "d_ff": 88,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 19,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
RECURRENT = {
    "vocab_size": 97,
    "embedding_size": 31,
    "hidden_size": 40,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
# Attends to everything up to 28 tokens.
BIG_BIRD = {"block_size": 4, "num_random_blocks": 1}
LONGFORMER = BERT | {"attention_window": [6, 14], "pad_token_id": 1, "max_global_tokens": 3}
LED = {name: value for name, value in BART.items() if name != "max_position_embeddings"} | {
    "max_encoder_position_embeddings": 64,
    "max_decoder_position_embeddings": 64,
    "attention_window": [4, 12, 6],
    "max_global_tokens": 3,
}
LFM2 = {name: value for name, value in LLAMA.items() if name != "rms_norm_eps"} | {
    "num_hidden_layers": 3,
    "layer_types": ["conv", "full_attention", "conv"],
    "block_auto_adjust_ff_dim": False,
}
# Queries see equally far, beyond which no step need look: the memory may be short.
TRANSFO_XL = {
    "vocab_size": 97,
    "d_model": 48,
    "d_head": 10,
    "d_inner": 80,
    "n_layer": 2,
    "n_head": 4,
    "mem_len": 5,
    "eos_token_id": 96,
}
# Of XLNet a memory that holds what the comparisons read.
XLNET = {name: TRANSFO_XL[name] for name in TRANSFO_XL if name != "d_head"} | {"mem_len": 19}
QWEN3_NEXT = LLAMA | {
    "num_hidden_layers": 3,
    "full_attention_interval": 2,
    "num_experts": 0,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 8,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [2.0 + 0.3 * i for i in range(8)],
    "original_max_position_embeddings": 64,
}

# name -> (family, task, configuration)
DECODERS = {
    "llama": ("llama", LLAMA),
    "llama-mha-untied": ("llama", LLAMA | {"num_key_value_heads": 4, "tie_word_embeddings": False}),
    "llama-mqa-biased": (
        "llama",
        LLAMA | {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True},
    ),
    # Two-digit layer numbers sort in more than one way.
    "llama-deep": ("llama", LLAMA | {"num_hidden_layers": 11, "intermediate_size": 16}),
    # No multiple of 8: no fused kernel of onnxruntime takes it.
    "llama-odd-heads": ("llama", LLAMA | {"head_dim": 14}),
    "llama-linear": ("llama", LLAMA | {"rope_scaling": {"rope_type": "linear", "factor": 3.0}}),
    "llama-dynamic": (
        "llama",
        LLAMA
        | {"max_position_embeddings": 64, "rope_scaling": {"rope_type": "dynamic", "factor": 3.0}},
    ),
    "llama-yarn": ("llama", LLAMA | {"rope_scaling": YARN}),
    "llama-llama3": ("llama", LLAMA | {"rope_scaling": LLAMA3}),
    "llama-longrope": ("llama", LLAMA | {"rope_scaling": LONG}),
    "mistral": ("mistral", LLAMA | {"sliding_window": 5}),
    "lfm2": ("lfm2", LFM2),
    "qwen3": ("qwen3", LLAMA),
    "qwen3_next": ("qwen3_next", QWEN3_NEXT),
    "transfo_xl": ("transfo_xl", TRANSFO_XL),
    "xlnet": ("xlnet", XLNET),
}
ENCODERS = {
    "bert": ("bert", "embedding", BERT),
    "bert-classifier": ("bert", "sequence_classification", BERT | {"num_labels": 3}),
    "bert-tagger": ("bert", "token_classification", BERT | {"num_labels": 5}),
    "bert-answers": ("bert", "question_answering", BERT),
    "bert-masked": ("bert", "masked_lm", BERT),
    "llama-classifier": (
        "llama",
        "sequence_classification",
        LLAMA | {"num_labels": 3, "pad_token_id": 0},
    ),
    "llama-embedding": ("llama", "embedding", LLAMA),
    "big_bird-masked": ("big_bird", "masked_lm", BERT | BIG_BIRD),
    "longformer-masked": ("longformer", "masked_lm", LONGFORMER),
}
SEQ2SEQ = {
    "rnn_seq2seq": ("rnn_seq2seq", RECURRENT | {"num_hidden_layers": 2}),
    "bahdanau": ("bahdanau", RECURRENT | {"attention_size": 37, "maxout_size": 29}),
    # Heads of 16: kernels of onnxruntime that want a multiple of 8 take those of this one.
    "transformer": ("transformer", BART | {"d_model": 64}),
    "marian": (
        "marian",
        BART
        | {
            "activation_function": "swish",
            "scale_embedding": True,
            "pad_token_id": 96,
            "eos_token_id": 0,
            "decoder_start_token_id": 96,
        },
    ),
    "bart": ("bart", BART),
    "bigbird_pegasus": ("bigbird_pegasus", BART | BIG_BIRD),
    "led": ("led", LED),
    "t5": ("t5", T5),
    "t5-gated": (
        "t5",
        T5
        | {
            "num_heads": 6,
            "d_kv": 8,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
        },
    ),
}


def decoder(name, **changes):
    """A decoder of the list, with changes to its configuration, its weights redrawn."""
    family, config = DECODERS[name]
    model = randomise(models.build(family, task="causal_lm", **(config | changes)), seed=3)
    if family == "transfo_xl":
        # It scales its token vectors, without which attention is not all or nothing.
        table = model.get_layer("token_embedding").embeddings
        table.assign(table * config["d_model"] ** -0.5)
    return model


def encoder(name):
    """A model without cache of the list, its weights redrawn."""
    family, task, config = ENCODERS[name]
    return randomise(models.build(family, task=task, **config), seed=3)


def seq2seq(name):
    """An encoder-decoder of the list, its weights redrawn."""
    family, config = SEQ2SEQ[name]
    model = randomise(models.build(family, **config), seed=5)
    for variable in model.weights if family == "t5" else ():
        # T5's weights hold the factor of the scores, without which attention is all or nothing.
        if variable.path.endswith("query/kernel"):
            variable.assign(variable * config["d_kv"] ** -0.5)
    return model
