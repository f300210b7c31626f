"""The families by `model_type`: those of this package, imported on demand, and registered ones."""

import dataclasses
import importlib

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.models.family import Family, check_declaration
from keras_seqattn.models.heads import HEADS
from keras_seqattn.weights.rows import WeightRow

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
_heads = {}


@dataclasses.dataclass(frozen=True)
class _AddedHead:
    """A head of another package: the classes of its families, and its weight rows."""

    architectures: dict
    rows: tuple


def register(family, replace=False):
    """Add a family of another package. From then on it is used like the families of this package.

    `build`, `load`, `save`, .keras files, export, verification and generation find it by its
    `model_type`. A program that loads such a file must register the family first.

    Args:
        family: a `Family`.
        replace: whether the family may replace another registered family with the same name.

    Returns:
        The family.

    Raises:
        ConfigError: it is not a `Family`, its name is already used, or its declaration has a
            mistake, for example a configuration key without a kind of values.
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


def register_head(task, head, architectures, rows=()):
    """Add a task to families of this package or to registered families.

    Args:
        task: name of the task.
        head: function from a `heads.Body` and the settings of the family to a dict of outputs.
        architectures: `model_type` of each family that gets the task -> the name of the class in
            `architectures` of config.json.
        rows: `WeightRow`s for the layers of the head.

    Raises:
        ConfigError: the task exists already, a family is unknown or has the task already, or the
            class means another task. Or an argument has another type. Then nothing was added.
    """
    if not isinstance(task, str) or not task or not callable(head):
        raise ConfigError(f"a head needs the name of its task and a function, not {shown(task)}.")
    if not isinstance(architectures, dict) or not isinstance(rows, list | tuple):
        raise ConfigError(f"the head of {task} needs a dict of architectures and a list of rows.")
    wrong = [row for row in rows if not isinstance(row, WeightRow)]
    wrong += [name for name in architectures.values() if not isinstance(name, str)]
    if wrong:
        raise ConfigError(f"the head of {task} has {shown(wrong[0])} as a row or a class name.")
    if task in HEADS:
        raise ConfigError(f"the task {shown(task)} has a head already; choose another name.")
    for model_type, name in architectures.items():
        family = get_family(model_type)
        if task in family.architectures or family.task_of({"architectures": [name]}):
            raise ConfigError(f"{model_type} has a task {task} or a class {name} already.")
    HEADS[task] = head
    _heads[task] = _AddedHead(dict(architectures), tuple(rows))


def _with_added_heads(family):
    """The family with the tasks that `register_head` added to it."""
    for task, added in _heads.items():
        if family.model_type in added.architectures:
            classes = {**family.architectures, task: added.architectures[family.model_type]}
            rows = (*family.head_rows, *added.rows)
            family = dataclasses.replace(family, architectures=classes, head_rows=rows)
    return family


def get_family(model_type, where="model"):
    """The declaration of a family.

    Args:
        model_type: as in config.json.
        where: start of the message, for example the path of the checkpoint.

    Returns:
        A `Family`.

    Raises:
        ConfigError: the family is not implemented.
    """
    if isinstance(model_type, str) and model_type in _registered:
        return _with_added_heads(_registered[model_type])
    if model_type not in FAMILIES:
        raise ConfigError(
            f"{where}: model_type {shown(model_type)} is not implemented; implemented: "
            f"{', '.join([*FAMILIES, *_registered])}. Others can be added with "
            "keras_seqattn.models.register."
        )
    module = importlib.import_module(f"keras_seqattn.models.{model_type}")
    return _with_added_heads(module.FAMILY)
