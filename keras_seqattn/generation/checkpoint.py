"""What a checkpoint's files say of generation: its settings, and how long its texts may be."""

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.generation.settings import FIELDS

# What config.json may name besides generation_config.json.
_TOKEN_IDS = frozenset(
    "eos_token_id pad_token_id decoder_start_token_id forced_bos_token_id "
    "forced_eos_token_id".split()
)


# Where the most positions of a row stand: of both sides, or of each.
POSITION_KEYS = (
    "max_position_embeddings",
    "max_encoder_position_embeddings",
    "max_decoder_position_embeddings",
)


def position_limit(config, side="decoder", ports=None):
    """The most tokens of a row that a model has positions for, or None if it knows no such limit.

    Args:
        config: dict of config.json.
        side: "encoder" or "decoder", of those that have both.
        ports: the `Ports` of the graph of that side, which may say it too. The lower limit counts.
    """
    name = f"max_{side}_position_embeddings"
    name = name if name in config else "max_position_embeddings"
    limits = {None if config.get(name) is None else _count(config, name)}
    limits.add(ports and ports.longest)
    return min(limits - {None}, default=None)


def _count(config, name):
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"config.json holds {name}={shown(value)}: it must be an integer")
    return value


def checkpoint_defaults(config, generation_config):
    """The generation settings of a checkpoint: generation_config.json over config.json.

    Of config.json the token ids count always; other settings, where older checkpoints keep them,
    count where there is no generation_config.json.

    Args:
        config: dict of config.json.
        generation_config: dict of generation_config.json, perhaps empty.
    """
    names = _TOKEN_IDS if generation_config else _TOKEN_IDS | FIELDS
    known = {name: config[name] for name in names if is_set(name, config.get(name))}
    unset = {name for name in _TOKEN_IDS if not is_set(name, generation_config.get(name))}
    return known | {n: value for n, value in generation_config.items() if n not in unset}


def is_set(name, value):
    """Whether a file gives a value: null means none, and so does -1 for a token id, as in the
    first LLaMA's files."""
    return value is not None and not (name.endswith("_token_id") and value == -1)
