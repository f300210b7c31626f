"""Reading config.json: defaults, checks, and errors for everything that is not implemented.

There are three kinds of keys. The family reads the keys of its `defaults`; `keys.py` says what
values they may have. Keys of `fixed` change the maths and are accepted with some values only. Other
keys are ignored: the files have many keys for training, tokenizers and bookkeeping.
"""

import difflib

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.models.keys import KEYS
from keras_seqattn.models.values import Activation

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "tanh": "tanh",
}
# Names of settings in Keras -> names in configurations; `build` accepts both. If a name is itself a
# key of the family, it means only that key. Otherwise it means all its keys that the family has.
# `Family.keras_names` has more names.
KERAS_NAMES = {
    "vocabulary_size": ("vocab_size",),
    "hidden_dim": ("hidden_size", "d_model"),
    "intermediate_dim": ("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim"),
    "num_layers": ("num_hidden_layers", "encoder_layers", "decoder_layers"),
    "num_heads": ("num_attention_heads", "encoder_attention_heads", "decoder_attention_heads"),
    "max_sequence_length": ("max_position_embeddings",),
    "activation": ("hidden_act", "activation_function"),
    "layer_norm_epsilon": ("layer_norm_eps", "rms_norm_eps", "norm_eps"),
    "dropout": ("hidden_dropout_prob", "attention_dropout"),
}
# Every family reads these: number of labels of classifiers, the dropout before them, and the
# standard deviation of new weights.
_COMMON = {"num_labels": 2, "classifier_dropout": None, "initializer_range": 0.02}
_LABELS = ("id2label", "label2id")
_COMMON_FIXED = {
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
}
# These keys do not change the maths of a model, but `build` accepts them.
_TOKENS = {f"{name}_token_id" for name in ("pad", "bos", "eos", "decoder_start")}
_TOKENS |= {f"forced_{name}_token_id" for name in ("bos", "eos")}
_NEUTRAL = {"id2label", "label2id", "is_encoder_decoder", *_TOKENS}


def read_settings(config, family):
    """The settings of a model: the checked configuration with defaults.

    Args:
        config: dict as in config.json.
        family: a `Family`.

    Returns:
        dict with every key of the family's defaults.

    Raises:
        ConfigError: a value has the wrong type, is not implemented, or contradicts another.
    """
    for key, accepted in _fixed(family).items():
        if key in config and not any(_same(config[key], value) for value in accepted):
            raise ConfigError(
                f"{family.model_type}: {key}={shown(config[key])} is not implemented; "
                f"implemented: {', '.join(repr(value) for value in accepted)}."
            )
    defaults = {**_COMMON, **family.defaults}
    settings = {key: config.get(key, default) for key, default in defaults.items()}
    for key in (*settings, *_LABELS):
        value = config.get(key) if key in _LABELS else settings[key]
        if not family.kind(key).accepts(value):
            raise ConfigError(
                f"{family.model_type}: {key} must be {family.kind(key)}, not {shown(value)}."
            )
    _check_unread_tokens(family, config)
    if config.get("id2label"):
        settings["num_labels"] = len(config["id2label"])
    _check_tokens(family, config, settings)
    for key, value in settings.items():
        if isinstance(family.kind(key), Activation):
            settings[key] = _activation(family, key, value)
    if family.check is not None:
        family.check(settings)
    return settings


def written_defaults(family, settings):
    """The defaults for a written configuration, without nulls and tokens outside the vocabulary.

    Args:
        family: a `Family`.
        settings: the result of `read_settings`.

    Returns:
        dict, some of the family's defaults.
    """
    count = _vocabulary(settings)
    return {
        key: value
        for key, value in family.defaults.items()
        if value is not None and not (key.endswith("_token_id") and 0 < count <= value)
    }


def complete_keys(config, family):
    """Replace the names of Keras in a configuration, and refuse unknown keys.

    Args:
        config: dict with names of Keras or of config.json.
        family: a `Family`.

    Returns:
        dict with the names of config.json.

    Raises:
        ConfigError: a key is unknown, or it is given with both names.
    """
    known = {*_COMMON, *family.defaults, *family.fixed, *_NEUTRAL}
    renamed = {
        name: (*KERAS_NAMES.get(name, ()), *family.keras_names.get(name, ()))
        for name in (*KERAS_NAMES, *family.keras_names)
    }
    named = {}
    for key, value in config.items():
        names = (key,) if key in known else renamed.get(key, ())
        names = [name for name in names if name in known]
        if not names:
            close = difflib.get_close_matches(key[:80], [*known, *renamed], 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{family.model_type}: unknown setting {shown(key)}.{hint}")
        for name in names:
            if name in named:
                raise ConfigError(f"{family.model_type}: {name!r} is given twice.")
            named[name] = value
    return named


def check_layer_types(model_type, kinds, known, count):
    """Check that there is a known kind of layer for each layer.

    Args:
        model_type: str, for the message.
        kinds: list of str, from config.json.
        known: tuple of str, the kinds of the family.
        count: number of layers.

    Raises:
        ConfigError: a kind is unknown, or their number is wrong.
    """
    unknown = sorted(set(kinds) - set(known))
    if unknown or len(kinds) != count:
        others = f", with {', '.join(map(shown, unknown[:4]))}" if unknown else ""
        raise ConfigError(
            f"{model_type}: layer_types must name {count} layers, each {' or '.join(known)}; it "
            f"names {len(kinds)}{others}."
        )


def _fixed(family):
    """Key -> the implemented values, for keys that the family does not read."""
    both = (None, True) if family.encoder else (None, False)
    return {**_COMMON_FIXED, "is_encoder_decoder": both, **family.fixed}


def _same(value, accepted):
    """Equal values of the same kind: True is not 1, and False is not 0."""
    return value == accepted and isinstance(value, bool) == isinstance(accepted, bool)


def _vocabulary(settings):
    """The larger vocabulary of encoder and decoder; 0 if the configuration has none."""
    return max(settings.get(key) or 0 for key in ("vocab_size", "decoder_vocab_size"))


def _check_unread_tokens(family, config):
    """Check tokens that only generation reads; some checkpoints write -1 for no token."""
    for key in _TOKENS - family.defaults.keys():
        value = config.get(key)
        if value != -1 and not KEYS[key].accepts(value):
            raise ConfigError(
                f"{family.model_type}: {key} must be {KEYS[key]}, not {shown(value)}."
            )


def _check_tokens(family, config, settings):
    """Check that the tokens in the configuration are in its vocabulary."""
    count = _vocabulary(settings)
    for key in family.defaults:
        # A separator outside the vocabulary does no harm: it is in no input.
        if key.endswith("_token_id") and key != "sep_token_id" and config.get(key) is not None:
            ids = config[key] if isinstance(config[key], list) else [config[key]]
            if 0 < count <= max(ids):
                raise ConfigError(
                    f"{family.model_type}: {key}={shown(config[key])} is not a token id: "
                    f"vocab_size is {count}."
                )


def _activation(family, key, name):
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"{family.model_type}: {key}={shown(name)} is not implemented; implemented: "
            f"{', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name]
