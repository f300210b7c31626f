"""Checks the values of a config.json that the runtime reads, when the file is opened."""

from keras_seqattn.arguments import shown
from keras_seqattn.errors import BundleError
from keras_seqattn.json_objects import parse_object

_MOST = 2**31 - 1
_PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")
# More labels than any classifier has. Each label becomes a Python string.
_MOST_LABELS = 10**6


def check_config(config, name="config.json"):
    """Check the values of a config.json that the runtime uses. Null means no value.

    Args:
        config: dict of the file.
        name: name of the file, for messages.

    Raises:
        BundleError: a value has a wrong type or is out of range.
    """
    for key, (test, wanted) in _KEYS.items():
        value = config.get(key)
        if value is not None and not test(value):
            raise BundleError(f"{name}: {key} is {shown(value)}, and must be {wanted}")


def label_names(config, count):
    """list of str, the names of `count` classes, from the id2label of a config.json.

    Raises:
        BundleError: id2label has other classes than these.
    """
    names = {int(key): label for key, label in (config.get("id2label") or {}).items()}
    if not names:
        return [f"LABEL_{i}" for i in range(count)]
    if sorted(names) != list(range(count)):
        raise BundleError(
            f"config.json: id2label names {len(names)} labels, and the graph has {count}: its keys "
            f'must be "0" to "{count - 1}"'
        )
    return [names[i] for i in range(count)]


def max_sequence_length(assets):
    """int, the maximum number of tokens for sentence-transformers, or None."""
    file = "sentence_bert_config.json"
    limit = parse_object(assets.get(file, b"{}"), file).get("max_seq_length")
    if limit is not None and not _is_count(limit):
        raise BundleError(f"{file}: max_seq_length is {shown(limit)}, and must be {_COUNT[1]}")
    return limit


def _is_count(value, least=1):
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _MOST


def _is_labels(value):
    if not isinstance(value, dict) or len(value) > _MOST_LABELS:
        return False
    keys = [key for key in value if key.isascii() and key.isdigit() and len(key) <= 10]
    return len({int(key) for key in keys}) == len(value) and all(
        isinstance(label, str) for label in value.values()
    )


def _is_tasks(value):
    """Whether this is a dict of tasks, each with settings and perhaps a prefix."""
    return isinstance(value, dict) and all(
        isinstance(settings, dict) and isinstance(settings.get("prefix") or "", str)
        for settings in value.values()
    )


_COUNT = (_is_count, "an integer of at least 1 and below 2**31")
_KEYS = {
    "model_type": (lambda value: isinstance(value, str), "a text"),
    "vocab_size": _COUNT,
    "max_position_embeddings": _COUNT,
    "max_encoder_position_embeddings": _COUNT,
    "max_decoder_position_embeddings": _COUNT,
    "id2label": (_is_labels, 'an object of texts with keys "0", "1", ...'),
    "problem_type": (lambda value: value in _PROBLEMS, " or ".join(_PROBLEMS)),
    "task_specific_params": (_is_tasks, "an object of objects, whose prefix is a text"),
}
