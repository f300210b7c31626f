"""The families by `model_type`: those of this package, imported on demand, and registered ones."""

import importlib

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.models.family import Family, check_declaration

FAMILIES = (
    "bahdanau",
    "bart",
    "bert",
    "big_bird",
    "bigbird_pegasus",
    "led",
    "lfm2",
    "linformer",
    "llama",
    "longformer",
    "marian",
    "mbart",
    "mistral",
    "pegasus",
    "performer",
    "qwen3",
    "qwen3_next",
    "rnn_seq2seq",
    "t5",
    "transfo_xl",
    "transformer",
    "xlnet",
)


_registered = {}


def register(family, replace=False):
    """Add a family of another package, which from then on takes part in everything.

    `build`, `load`, `save`, .keras files, export, verification and generation find it by its
    `model_type`. Whoever loads such a file must register the family first.

    Args:
        family: a `Family`.
        replace: whether it may take the place of a family that was registered by that name.

    Returns:
        The family.

    Raises:
        ConfigError: it is no `Family`, its name is taken, or it names configuration keys of which
            nothing says what values they may have.
    """
    if not isinstance(family, Family):
        raise ConfigError(f"register takes a Family, not {shown(family)}.")
    name = family.model_type
    if name in FAMILIES:
        raise ConfigError(f"model_type {shown(name)} is a family of this package; choose another.")
    if not replace and _registered.get(name, family) is not family:
        raise ConfigError(
            f"model_type {shown(name)} is registered already; replace=True replaces it."
        )
    check_declaration(family)
    _registered[name] = family
    return family


def get_family(model_type, where="model"):
    """The declaration of a family.

    Args:
        model_type: as in config.json.
        where: what asks for it, for the message.

    Returns:
        A `Family`.

    Raises:
        ConfigError: it is not implemented.
    """
    if isinstance(model_type, str) and model_type in _registered:
        return _registered[model_type]
    if model_type not in FAMILIES:
        raise ConfigError(
            f"{where}: model_type {shown(model_type)} is not implemented; implemented: "
            f"{', '.join([*FAMILIES, *_registered])}. Others can be added with "
            "keras_seqattn.models.register."
        )
    return importlib.import_module(f"keras_seqattn.models.{model_type}").FAMILY
