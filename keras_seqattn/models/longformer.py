"""Longformer (https://arxiv.org/abs/2004.05150): RoBERTa with windows and global tokens.

Positions count real tokens, from `pad_token_id + 1` on: the row of the table that its authors'
tokenizer leaves to the first token, on whichever side the padding is.
"""

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.mechanisms.global_local import GlobalLocal
from keras_seqattn.models.bert import DEFAULTS, FIXED
from keras_seqattn.models.encoder import (
    adapt_pooler,
    build_encoder,
    check_heads,
    encoder_rows,
    encoder_shapes,
)
from keras_seqattn.models.family import Family
from keras_seqattn.models.heads import ROBERTA_HEADS
from keras_seqattn.ports import names
from keras_seqattn.weights.table import Row, Table, dense_rows, layer_norm_rows

# Not a key of transformers, whose number of global tokens differs with each batch: room for those
# of a row.
MAX_GLOBAL_TOKENS = "max_global_tokens"
# The scores of a window, and those of the global tokens.
WINDOW_EXTENT = ("attention_window * attention_window", "max_global_tokens * max_global_tokens")


def window_attentions(model_type, settings, num_layers, width, initializer):
    """The mechanism of each layer.

    Args:
        model_type: as in config.json, for messages.
        settings: dict with attention_window, the keys of a window on both sides together for each
            layer or for all, and max_global_tokens.
        num_layers: their number.
        width: m.
        initializer: function that makes a kernel initializer.

    Returns:
        list of `GlobalLocal`.

    Raises:
        ConfigError: windows that are odd, none, or not one for each layer.
    """
    windows = settings["attention_window"]
    if isinstance(windows, int):
        windows = [windows] * num_layers
    valid = len(windows) == num_layers and all(type(n) is int for n in windows)
    if not valid or any(n < 2 or n % 2 for n in windows):
        raise ConfigError(
            f"{model_type}: attention_window must be an even number above 0, or one for each of "
            f"{num_layers} layers, not {shown(settings['attention_window'])}."
        )
    return [
        GlobalLocal(
            n // 2,
            n // 2,
            settings[MAX_GLOBAL_TOKENS],
            input_dim=width,
            kernel_initializer=initializer(),
        )
        for n in windows
    ]


def _build(settings, task, initializer):
    padding = settings["pad_token_id"]
    if padding is None or padding + 1 >= settings["max_position_embeddings"]:
        raise ConfigError(
            f"longformer: pad_token_id must be a token id below max_position_embeddings - 1, "
            f"since positions start behind it, not {padding}."
        )
    layers, width = settings["num_hidden_layers"], settings["hidden_size"]
    return build_encoder(
        settings,
        task,
        initializer,
        _HEADS,
        extras=(names.global_mask(settings[MAX_GLOBAL_TOKENS]),),
        offset=padding + 1,
        attentions=window_attentions("longformer", settings, layers, width, initializer),
    )


def _masked_lm(hidden, embedding, settings):
    # Whatever the activation of the blocks.
    return ROBERTA_HEADS["masked_lm"](hidden, embedding, {**settings, "hidden_act": "gelu"})


_HEADS = ROBERTA_HEADS | {"masked_lm": _masked_lm}


def global_rows(checkpoint, variable):
    """The rows of the global projections of an attention.

    Args:
        checkpoint: what their names start with.
        variable: path of the `MultiHeadAttention`.
    """
    names = [f"{name}_global" for name in ("query", "key", "value")]
    pairs = [dense_rows(f"{checkpoint}.{name}", f"{variable}/mechanism/{name}") for name in names]
    return tuple(row for pair in pairs for row in pair)


FAMILY = Family(
    model_type="longformer",
    architectures={
        "embedding": "LongformerModel",
        "sequence_classification": "LongformerForSequenceClassification",
        "token_classification": "LongformerForTokenClassification",
        "question_answering": "LongformerForQuestionAnswering",
        "masked_lm": "LongformerForMaskedLM",
    },
    defaults=DEFAULTS | {"pad_token_id": 1, "attention_window": 512, MAX_GLOBAL_TOKENS: 64},
    fixed=FIXED,
    build=_build,
    table=Table(
        body=(
            *encoder_rows("longformer"),
            *global_rows("longformer.encoder.layer.{i}.attention.self", "layers_{i}/attention"),
        ),
        head=(
            *dense_rows("longformer.pooler.dense", "pooler"),
            *dense_rows("classifier.dense", "classifier_dense"),
            *dense_rows("classifier.out_proj", "classifier_out"),
            *dense_rows("classifier", "classifier"),
            *dense_rows("qa_outputs", "qa_outputs"),
            *dense_rows("lm_head.dense", "masked_lm_dense"),
            *layer_norm_rows("lm_head.layer_norm", "masked_lm_norm"),
            Row("lm_head.bias", "masked_lm_bias/bias"),
            Row("lm_head.decoder.weight", "token_embedding/reverse_embeddings", "v m -> m v"),
            Row("lm_head.decoder.bias", "masked_lm_untied_bias/bias"),
            Row("lm_head.decoder.weight", None),
            Row("lm_head.decoder.bias", None),
            Row("lm_head.bias", None),
        ),
        prefix="longformer.",
    ),
    adapt=adapt_pooler,
    check=check_heads,
    shapes=encoder_shapes("longformer"),
    extent=(*WINDOW_EXTENT, "max_global_tokens * hidden_size"),
)
