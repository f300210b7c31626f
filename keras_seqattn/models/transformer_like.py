"""The common part of encoder-decoders with the layers of the Transformer."""

import dataclasses
import functools
import math

import keras

from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.positions import PositionEmbedding, SinusoidalPositions
from keras_seqattn.models.encoder_decoder import (
    EncoderDecoderSpec,
    Stack,
    build_model,
    encoder_model,
    step_model,
)
from keras_seqattn.models.family import Family
from keras_seqattn.weights.rows import WeightRow, attention_rows, dense_rows, layer_norm_rows
from keras_seqattn.weights.table import Table

DEFAULTS = {
    "vocab_size": 50265,
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "max_position_embeddings": 1024,
    "activation_function": "gelu",
    "scale_embedding": False,
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "init_std": 0.02,
    "tie_word_embeddings": True,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "decoder_start_token_id": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
}
# Not a key of transformers. It says whether the logits have a bias; some checkpoints have none.
LOGITS_BIAS = "add_final_logits_bias"
# The defaults of BART and of families like it.
BART_DEFAULTS = {
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
    LOGITS_BIAS: True,
}
BART_FIXED = {
    "tie_word_embeddings": (True,),
    "normalize_before": (None, False),
    "add_final_layer_norm": (None, False),
    "normalize_embedding": (None, True),
    "static_position_embeddings": (None, False),
    "extra_pos_embeddings": (None, 2),
    "add_bias_logits": (None, False),
    "is_decoder": (None, False),
}
SIDES = ("encoder", "decoder")
# The default of torch, which transformers does not change.
_EPSILON = 1e-5


def transformer_like(
    model_type,
    class_name,
    defaults,
    fixed=None,
    constants=None,
    table=None,
    extent=(),
    position_rows="max_position_embeddings + 2",
    fields=None,
    **variation,
):
    """A family of encoder-decoders with the layers of the Transformer.

    Args:
        model_type: as in config.json.
        class_name: its Hugging Face class.
        defaults: changes to `DEFAULTS`.
        fixed: as in `Family`.
        constants: as in `Table`.
        table: the weight table if names differ; None is `weight_table()`.
        extent: as in `Family`.
        position_rows: expression for the number of rows of a learned table of positions; {side} in
            it is replaced by "encoder" or "decoder".
        fields: dict of other fields of `Family`.
        variation: any of these. positions: "interleaved" or "halves" (sinusoids), "learned", or a
            function from the settings to `EncoderDecoderSpec.positions`. normalize_first: pre-norm,
            with a norm at the end of both stacks. embeddings_norm. attentions: function from the
            settings and the initializer to the `Mechanism` of each block of the encoder. extras:
            function from the settings to `EncoderDecoderSpec.extras`. source: function from the
            settings and the initializer to the `Source` of an encoder that does not read tokens.

    Returns:
        A `Family`.
    """

    defaults = {**DEFAULTS, **defaults}
    if "max_encoder_position_embeddings" in defaults:
        # Each side has its own key.
        del defaults["max_position_embeddings"]

    learned = variation["positions"] not in ("interleaved", "halves")

    def build(settings, task, initializer):
        spec = _spec(settings, initializer, **variation)
        return build_model(spec, settings, task, initializer)

    return Family(
        model_type=model_type,
        architectures={"seq2seq_lm": class_name},
        defaults=defaults,
        fixed=fixed or {},
        build=build,
        table=dataclasses.replace(table or weight_table(), constants=constants or {}),
        adapt=_adapt,
        step=step_model,
        encoder=encoder_model,
        check=functools.partial(_check, sinusoids=not learned),
        shapes=_shapes((table or weight_table()).prefix, learned and position_rows),
        extent=extent if learned else (*extent, "2 * max_position_embeddings * d_model"),
        layer_counts={f"{side}_layers_{{i}}": (f"{side}_layers",) for side in SIDES},
        unsaved=(LOGITS_BIAS,),
        **(fields or {}),
    )


def _spec(
    settings,
    initializer,
    positions,
    normalize_first=False,
    embeddings_norm=False,
    attentions=None,
    extras=None,
    source=None,
):
    width = settings["d_model"]
    vocabulary = settings["vocab_size"]
    shared = settings.get("share_encoder_decoder_embeddings", True)
    target = None if shared else settings["decoder_vocab_size"]
    normalize_first = settings.get("normalize_before", normalize_first)
    blocks = {side: _block(settings, side, normalize_first) for side in SIDES}
    embeddings = None
    if settings["init_std"] is None:
        embeddings = functools.partial(keras.initializers.RandomNormal, stddev=width**-0.5)
    if attentions is not None:
        attentions = attentions(settings, initializer)
    return EncoderDecoderSpec(
        encoder=Stack(
            vocabulary,
            settings["encoder_layers"],
            blocks["encoder"],
            attentions,
            source and source(settings, initializer),
        ),
        decoder=Stack(target or vocabulary, settings["decoder_layers"], blocks["decoder"]),
        hidden_dim=width,
        shared=shared,
        tied=settings["tie_word_embeddings"],
        embedding_scale=math.sqrt(width) if settings["scale_embedding"] else 1.0,
        logits_bias=settings.get(LOGITS_BIAS, False),
        positions=_positions(positions, settings),
        embeddings_norm=embeddings_norm,
        final_norms=normalize_first,
        dropout=settings["dropout"],
        embeddings_initializer=embeddings,
        extras=() if extras is None else extras(settings),
    )


def _check(settings, sinusoids):
    width = settings["d_model"]
    for side in SIDES:
        heads = settings[f"{side}_attention_heads"]
        if width % heads:
            raise ConfigError(
                f"d_model={width} is not a multiple of {side}_attention_heads={heads}."
            )
    if sinusoids and width % 2:
        raise ConfigError(f"d_model={width} must be even, for sines and cosines.")


def _block(settings, side, normalize_first):
    width, heads = settings["d_model"], settings[f"{side}_attention_heads"]
    return {
        "num_heads": heads,
        "head_dim": width // heads,
        "intermediate_dim": settings[f"{side}_ffn_dim"],
        "activation": settings["activation_function"],
        "use_bias": settings.get("use_bias", True),
        "use_feed_forward_bias": True,
        "layer_norm_epsilon": settings.get("layer_norm_eps", _EPSILON),
        "normalize_first": normalize_first,
        "dropout": settings["dropout"],
        "attention_dropout": settings["attention_dropout"],
        "activation_dropout": settings["activation_dropout"],
    }


def _positions(kind, settings):
    if callable(kind):
        return kind(settings)
    width, length = settings["d_model"], settings["max_position_embeddings"]
    if kind == "learned":
        spread = settings["init_std"] or width**-0.5
        return lambda name: PositionEmbedding(
            length,
            width,
            offset=2,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=spread),
            name=name,
        )
    return lambda name: SinusoidalPositions(width, kind == "interleaved", length, name=name)


def _adapt(config, names):
    """For `Family.adapt`: old checkpoints have no bias of the logits."""
    return config if "final_logits_bias" in names else {**config, LOGITS_BIAS: False}


def _shapes(root, position_rows):
    shapes = {
        (f"{root}shared.weight", f"{root}encoder.embed_tokens.weight"): ("vocab_size", "d_model"),
    }
    for side in SIDES:
        layer = f"{root}{side}.layers.{{i}}"
        shapes |= {
            f"{layer}.fc1.weight": (f"{side}_ffn_dim", "d_model"),
            f"{layer}.fc2.weight": ("d_model", f"{side}_ffn_dim"),
        }
        if position_rows:
            rows = position_rows.format(side=side)
            shapes[f"{root}{side}.embed_positions.weight"] = (rows, "d_model")
    return shapes


def _layer_rows(root, side, own_attention):
    checkpoint, variable = f"{root}.{side}.layers.{{i}}", f"{side}_layers_{{i}}"
    attentions = {"self_attn": "attention", "encoder_attn": "cross_attention"}
    rows = []
    for theirs, ours in attentions.items():
        of = own_attention if theirs == "self_attn" else attention_rows
        rows += of(f"{checkpoint}.{theirs}", f"{variable}/{ours}")
        rows += layer_norm_rows(f"{checkpoint}.{theirs}_layer_norm", f"{variable}/{ours}_norm")
    rows += dense_rows(f"{checkpoint}.fc1", f"{variable}/feed_forward/up")
    rows += dense_rows(f"{checkpoint}.fc2", f"{variable}/feed_forward/down")
    rows += layer_norm_rows(f"{checkpoint}.final_layer_norm", f"{variable}/feed_forward_norm")
    return rows


def _side_rows(root, side, own_attention, final_norm):
    checkpoint = f"{root}.{side}"
    return (
        # A shared table may be stored again for each of its uses.
        WeightRow(f"{checkpoint}.embed_tokens.weight", f"{side}_embedding/embeddings"),
        WeightRow(f"{checkpoint}.embed_tokens.weight", "token_embedding/embeddings"),
        WeightRow(f"{checkpoint}.embed_positions.weight", f"{side}_positions/embeddings"),
        WeightRow(f"{checkpoint}.embed_positions.weight", None),
        *layer_norm_rows(f"{checkpoint}.layernorm_embedding", f"{side}_embeddings_norm"),
        *_layer_rows(root, side, own_attention),
        *layer_norm_rows(f"{checkpoint}.{final_norm}", f"{side}_norm"),
    )


def weight_table(root="model", encoder_attention=attention_rows, final_norm="layer_norm"):
    """The weight table of an encoder-decoder with the layers of the Transformer.

    Args:
        root: start of the names of its body.
        encoder_attention: function from a checkpoint name and a variable path to the rows of an
            attention of the encoder.
        final_norm: name of the norm at the end of a stack.
    """
    return Table(
        body=(
            WeightRow(f"{root}.shared.weight", "token_embedding/embeddings"),
            *_side_rows(root, "encoder", encoder_attention, final_norm),
            *_side_rows(root, "decoder", attention_rows, final_norm),
            WeightRow("lm_head.weight", "token_embedding/reverse_embeddings", "v m -> m v"),
            WeightRow("lm_head.weight", "decoder_embedding/reverse_embeddings", "v m -> m v"),
            WeightRow("lm_head.weight", "token_embedding/embeddings"),
            WeightRow("lm_head.weight", "decoder_embedding/embeddings"),
            WeightRow("final_logits_bias", "final_logits_bias/bias", "() v -> v"),
        ),
        prefix=f"{root}.",
    )
