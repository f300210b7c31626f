"""What the files of a checkpoint say about generation: settings, and the maximum text length."""

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.generation.settings import FIELDS

# The token ids that are read from config.json, too; generation_config.json comes first.
_TOKEN_IDS = frozenset(
    "eos_token_id pad_token_id decoder_start_token_id forced_bos_token_id "
    "forced_eos_token_id".split()
)


# The keys of the maximum number of positions of a row: for both sides, or for one side.
POSITION_KEYS = (
    "max_position_embeddings",
    "max_encoder_position_embeddings",
    "max_decoder_position_embeddings",
)


def position_limit(config, side="decoder", ports=None):
    """The maximum number of tokens of a row, by the positions of the model, or None if unlimited.

    Args:
        config: dict of config.json.
        side: "encoder" or "decoder", for models that have both.
        ports: the `Ports` of the graph of that side, which may hold a limit too. The lower limit
            is returned.
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

    Token ids of config.json are always read. Other settings of config.json, as in older
    checkpoints, are read only if there is no generation_config.json.

    Args:
        config: dict of config.json.
        generation_config: dict of generation_config.json; it may be empty.
    """
    names = _TOKEN_IDS if generation_config else _TOKEN_IDS | FIELDS
    known = {name: config[name] for name in names if is_set(name, config.get(name))}
    unset = {name for name in _TOKEN_IDS if not is_set(name, generation_config.get(name))}
    return known | {n: value for n, value in generation_config.items() if n not in unset}


def is_set(name, value):
    """Whether a file gives a value. Null is no value, and neither is -1 for a token id, as in the
    files of the first LLaMA."""
    return value is not None and not (name.endswith("_token_id") and value == -1)
