"""T5 (https://arxiv.org/abs/1910.10683), also v1.1 and Flan: pre-norm, relative position bias."""

import functools

import keras

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.position_bias import RelativePositionBias
from keras_seqattn.models.config import ACTIVATIONS
from keras_seqattn.models.encoder_decoder import (
    EncoderDecoderSpec,
    Stack,
    build_model,
    encoder_model,
    step_model,
)
from keras_seqattn.models.family import Family
from keras_seqattn.models.values import (
    FLAG,
    OPTIONAL_SIZE,
    RATE,
    SIZE,
    SPREAD,
    TEXT,
    Nullable,
)
from keras_seqattn.ops.position_bias import check_buckets
from keras_seqattn.weights.rows import WeightRow
from keras_seqattn.weights.table import Table

_DEFAULTS = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    # None is the number of the encoder.
    "num_decoder_layers": None,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "initializer_factor": 1.0,
    "feed_forward_proj": "relu",
    # None takes the activation of feed_forward_proj.
    "dense_act_fn": None,
    "is_gated_act": None,
    "tie_word_embeddings": True,
    # None is the value of tie_word_embeddings.
    "scale_decoder_outputs": None,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
_FIXED = {"is_decoder": (None, False)}


def _build(settings, task, initializer):
    return build_model(_spec(settings), settings, task, initializer)


def _spec(settings):
    width, vocabulary = settings["d_model"], settings["vocab_size"]
    tied, scaled = settings["tie_word_embeddings"], settings["scale_decoder_outputs"]
    block = _block(settings)
    spread = keras.initializers.RandomNormal(stddev=settings["initializer_factor"])
    bias = functools.partial(
        RelativePositionBias,
        settings["num_heads"],
        settings["relative_attention_num_buckets"],
        settings["relative_attention_max_distance"],
        embeddings_initializer=keras.initializers.RandomNormal(
            stddev=settings["initializer_factor"] * width**-0.5
        ),
    )
    return EncoderDecoderSpec(
        encoder=Stack(vocabulary, settings["num_layers"], block),
        decoder=Stack(vocabulary, settings["num_decoder_layers"] or settings["num_layers"], block),
        hidden_dim=width,
        tied=tied,
        logits_scale=width**-0.5 if (tied if scaled is None else scaled) else 1.0,
        position_bias=lambda name, bidirectional: bias(bidirectional=bidirectional, name=name),
        final_norms=True,
        dropout=settings["dropout_rate"],
        final_dropout=True,
        embeddings_initializer=spread.clone,
    )


def _check(settings):
    _feed_forward(settings)
    names = ("relative_attention_num_buckets", "relative_attention_max_distance")
    try:
        for bidirectional in (True, False):
            check_buckets(*(settings[name] for name in names), bidirectional)
    except ConfigError as error:
        raise ConfigError(f"t5: {' and '.join(names)}: {error}") from None


def _block(settings):
    activation, gated = _feed_forward(settings)
    return {
        "num_heads": settings["num_heads"],
        "head_dim": settings["d_kv"],
        "intermediate_dim": settings["d_ff"],
        "activation": activation,
        "gated": gated,
        "use_bias": False,
        "norm": "rms_norm",
        "layer_norm_epsilon": settings["layer_norm_epsilon"],
        "normalize_first": True,
        # Other models apply a factor to the scores; here the initial weights include it.
        "scale": 1.0,
        "dropout": settings["dropout_rate"],
        "attention_dropout": settings["dropout_rate"],
        "activation_dropout": settings["dropout_rate"],
    }


def _feed_forward(settings):
    """The activation, and whether the feed-forward is gated, from a text such as "gated-gelu"."""
    *kind, name = settings["feed_forward_proj"].split("-")
    if kind not in ([], ["gated"]):
        raise ConfigError(
            f"t5: feed_forward_proj={shown(settings['feed_forward_proj'])} is not implemented; it "
            "must be an activation, or gated- and an activation."
        )
    # "gated-gelu" means the tanh approximation; all other texts name their activation.
    derived = "gelu_new" if kind and name == "gelu" else name
    key = "feed_forward_proj" if settings["dense_act_fn"] is None else "dense_act_fn"
    activation = derived if settings["dense_act_fn"] is None else settings["dense_act_fn"]
    if activation not in ACTIVATIONS:
        raise ConfigError(
            f"t5: {key}={shown(settings[key])} is not implemented; implemented activations: "
            f"{', '.join(ACTIVATIONS)}."
        )
    gated = settings["is_gated_act"]
    return ACTIVATIONS[activation], bool(kind) if gated is None else gated


def _adapt(config, names):
    """For `Family.adapt`: read whether embeddings are tied.

    transformers 5 always writes tie_word_embeddings=true, and a separate key for the scale of the
    logits.
    """
    untied = "lm_head.weight" in names and config.get("scale_decoder_outputs") is False
    return {**config, "tie_word_embeddings": False} if untied else config


def _attention(checkpoint, name, variable):
    letters = {"q": "query", "k": "key", "v": "value", "o": "output_dense"}
    return [
        WeightRow(f"{checkpoint}.{name}.{letter}.weight", f"{variable}/{ours}/kernel", "o i -> i o")
        for letter, ours in letters.items()
    ] + [WeightRow(f"{checkpoint}.layer_norm.weight", f"{variable}_norm/scale")]


def _feed_forward_rows(checkpoint, variable, gated):
    names = {"wi_0": "gate", "wi_1": "up", "wo": "down"} if gated else {"wi": "up", "wo": "down"}
    return [
        WeightRow(
            f"{checkpoint}.DenseReluDense.{name}.weight", f"{variable}/{ours}/kernel", "o i -> i o"
        )
        for name, ours in names.items()
    ] + [WeightRow(f"{checkpoint}.layer_norm.weight", f"{variable}_norm/scale")]


def _side_rows(side, gated):
    layer, variable = f"{side}.block.{{i}}.layer", f"{side}_layers_{{i}}"
    rows = _attention(f"{layer}.0", "SelfAttention", f"{variable}/attention")
    if side == "decoder":
        rows += _attention(f"{layer}.1", "EncDecAttention", f"{variable}/cross_attention")
    last = 1 if side == "encoder" else 2
    rows += _feed_forward_rows(f"{layer}.{last}", f"{variable}/feed_forward", gated)
    first = f"{side}.block.0.layer"
    return [
        # The shared table may be stored again for each of its uses.
        WeightRow(f"{side}.embed_tokens.weight", "token_embedding/embeddings"),
        WeightRow(
            f"{first}.0.SelfAttention.relative_attention_bias.weight",
            f"{side}_position_bias/embeddings",
        ),
        # Old checkpoints have it, but cross-attention has no position bias.
        WeightRow(f"{first}.1.EncDecAttention.relative_attention_bias.weight", None),
        *rows,
        WeightRow(f"{side}.final_layer_norm.weight", f"{side}_norm/scale"),
    ]


def _table(settings):
    gated = _feed_forward(settings)[1]
    return Table(
        body=(
            WeightRow("shared.weight", "token_embedding/embeddings"),
            *_side_rows("encoder", gated),
            *_side_rows("decoder", gated),
            WeightRow("lm_head.weight", "token_embedding/reverse_embeddings", "v m -> m v"),
            WeightRow("lm_head.weight", "token_embedding/embeddings"),
        )
    )


FAMILY = Family(
    model_type="t5",
    architectures={"seq2seq_lm": "T5ForConditionalGeneration"},
    aliases={"T5WithLMHeadModel": "seq2seq_lm"},
    defaults=_DEFAULTS,
    fixed=_FIXED,
    build=_build,
    table=_table,
    adapt=_adapt,
    step=step_model,
    encoder=encoder_model,
    check=_check,
    shapes={
        ("shared.weight", "encoder.embed_tokens.weight"): ("vocab_size", "d_model"),
        "encoder.block.{i}.layer.0.SelfAttention.q.weight": ("num_heads * d_kv", "d_model"),
        (
            "encoder.block.{i}.layer.1.DenseReluDense.wi.weight",
            "encoder.block.{i}.layer.1.DenseReluDense.wi_0.weight",
        ): ("d_ff", "d_model"),
        "encoder.block.{i}.layer.1.DenseReluDense.wo.weight": ("d_model", "d_ff"),
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
            "relative_attention_num_buckets",
            "num_heads",
        ),
    },
    extent=("8 * relative_attention_max_distance",),
    keys={
        "d_kv": SIZE,
        "d_ff": SIZE,
        "num_layers": SIZE,
        "num_decoder_layers": OPTIONAL_SIZE,
        "num_heads": SIZE,
        "relative_attention_num_buckets": SIZE,
        "relative_attention_max_distance": SIZE,
        "feed_forward_proj": TEXT,
        "dense_act_fn": Nullable(TEXT),
        "is_gated_act": Nullable(FLAG),
        "scale_decoder_outputs": Nullable(FLAG),
        "initializer_factor": SPREAD,
        "dropout_rate": RATE,
    },
    keras_names={
        "intermediate_dim": ("d_ff",),
        "head_dim": ("d_kv",),
        "activation": ("feed_forward_proj",),
        "dropout": ("dropout_rate",),
    },
    layer_counts={
        "encoder_layers_{i}": ("num_layers",),
        "decoder_layers_{i}": ("num_decoder_layers", "num_layers"),
    },
)
