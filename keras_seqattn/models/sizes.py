"""Checks of the sizes in a configuration, by the stored weights and the memory, before building.

Families declare the shapes of their main weights (`Family.shapes`) and other large values
(`Family.extent`). They are expressions of configuration keys: "num_attention_heads * head_dim", or
"4 * hidden_size + 2". A key that is null counts as the value that it stands for.
"""

import math
import re

from keras_seqattn.arguments import shown
from keras_seqattn.errors import CheckpointError, ConfigError
from keras_seqattn.memory import available_memory, size_text
from keras_seqattn.weights.table import count_layers

# The limit for tables, windows and memories of the past if the weights are smaller than this.
_SMALL_BYTES = 64 << 20
# The Keras objects of one layer take at least this.
_LAYER_BYTES = 100_000
# The name and the number of a label are in config.json twice.
_COMMON_EXTENT = ("64 * num_labels",)
_STANDS_FOR = {
    "num_key_value_heads": ("num_attention_heads",),
}
_WIDTH_AND_HEADS = {
    "head_dim": ("hidden_size", "num_attention_heads"),
}


def check_stored_sizes(checkpoint, family, settings):
    """Compare a configuration with its weights.

    Args:
        checkpoint: a `Checkpoint`.
        family: a `Family`.
        settings: the result of `read_settings`.

    Raises:
        CheckpointError: the configuration needs other shapes or another number of layers.
        ConfigError: the configuration needs much more than is stored.
    """
    # No more layers than tensors, so that loops over the layers end soon.
    clipped = _clip_layers(family, settings, len(checkpoint.shapes))
    table = family.table_of(clipped)
    for names, dimensions in family.shapes.items():
        stored = _find(checkpoint, _tuple(names), table.prefix, _most_layers(family, clipped))
        if stored is not None:
            _compare(checkpoint, *stored, dimensions, settings)
    held = 4 * sum(math.prod(shape) for shape in checkpoint.shapes.values())
    available = available_memory()
    if held > available:
        raise CheckpointError(
            f"{checkpoint.path}: the weights are {size_text(held)} as float32, and "
            f"{size_text(available)} of memory are available."
        )
    # Twice, because a table that is stored once may be two tables in the model.
    _check_total(family, clipped, 2 * held + _SMALL_BYTES, f"the weights are {size_text(held)}")
    _check_layers(checkpoint, family, settings, table)
    _check_extent(family, settings, held)


def check_model_memory(family, settings):
    """Refuse a configuration if its model does not fit into memory.

    Args:
        family: a `Family`.
        settings: the result of `read_settings`.

    Raises:
        ConfigError: the model is too large; the message names its largest part.
    """
    available = available_memory()
    total = _check_total(
        family, settings, available, f"{size_text(available)} of memory are available"
    )
    _check_extent(family, settings, total)


def evaluate(expression, settings):
    """The value of a sum of products of numbers and configuration keys.

    Args:
        expression: str; or a pair of a str with the names of the keys and a function of the
            settings.
        settings: dict.
    """
    if isinstance(expression, tuple):
        return expression[1](settings)
    terms = (term.split(" * ") for term in expression.split(" + "))
    return sum(math.prod(_value(factor, settings) for factor in term) for term in terms)


def _value(factor, settings):
    if factor.isdigit():
        return int(factor)
    value = settings[factor]
    if isinstance(value, list):
        return max(value)
    if value is None and factor in _WIDTH_AND_HEADS:
        width, heads = (settings[key] for key in _WIDTH_AND_HEADS[factor])
        return max(1, width // heads)
    if value is None:
        return next((settings[key] for key in _STANDS_FOR.get(factor, ())), 0)
    return int(value)


def _clip_layers(family, settings, most):
    keys = (key for keys in family.layer_counts.values() for key in keys)
    return settings | {key: min(settings[key], most) for key in keys if settings[key] is not None}


def _check_layers(checkpoint, family, settings, table):
    for pattern, keys in family.layer_counts.items():
        key = _layer_key(keys, settings)
        stored = count_layers(checkpoint, table, pattern)
        if settings[key] != stored:
            raise CheckpointError(
                f"{checkpoint.path}: {key}={settings[key]}, but the weights have {stored} layers; "
                "check that config.json belongs to them."
            )


def _find(checkpoint, names, prefix, layers):
    """The name and the shape of the first stored tensor of some names, or None."""
    for name in names:
        for index in range(layers if "{i}" in name else 1):
            full = name.format(i=index)
            for key in (full, full.removeprefix(prefix)):
                if checkpoint.shape(key) is not None:
                    return key, checkpoint.shape(key)
    return None


def _compare(checkpoint, name, stored, dimensions, settings):
    asked = tuple(evaluate(dimension, settings) for dimension in dimensions)
    if asked == stored:
        return
    differ = [
        dimension
        for index, dimension in enumerate(dimensions)
        if len(stored) != len(asked) or asked[index] != stored[index]
    ]
    raise CheckpointError(
        f"{checkpoint.path}: {_settings(differ, settings)}, which makes {shown(name)} {asked}, but "
        f"the weights have {shown(stored)}; check that config.json belongs to them."
    )


def _check_total(family, settings, limit, reason):
    """Compare the main weights and the Keras objects with a limit; return the weights' bytes."""
    layers = tuple(_layer_key(keys, settings) for keys in family.layer_counts.values())
    parts = {}
    for names, dimensions in family.shapes.items():
        count, of_layers = 1, ()
        if "{i}" in _tuple(names)[0]:
            count, of_layers = _fewest_layers(family, settings), layers
        size = 4 * count * math.prod(evaluate(dimension, settings) for dimension in dimensions)
        key = (*of_layers, *dimensions)
        parts[key] = parts.get(key, 0) + size
    total, objects = sum(parts.values()), _LAYER_BYTES * sum(settings[key] for key in layers)
    if max(total, objects) > limit:
        largest = max(parts, key=parts.get) if total > limit else layers
        raise ConfigError(
            f"{family.model_type}: {_settings(largest, settings)} make a model of "
            f"{size_text(max(total, objects))} or more, but {reason}."
        )
    return total


def _check_extent(family, settings, weights):
    limit = max(weights, _SMALL_BYTES)
    for expression in (*_COMMON_EXTENT, *family.extent):
        size = 4 * evaluate(expression, settings)
        if size > limit:
            raise ConfigError(
                f"{family.model_type}: {_settings([expression], settings)} would take "
                f"{size_text(size)} beside weights of {size_text(weights)}; at most "
                f"{size_text(limit)} are accepted."
            )


def _layer_key(keys, settings):
    return next(key for key in keys if settings[key] is not None)


def _layer_counts(family, settings):
    return [settings[_layer_key(keys, settings)] for keys in family.layer_counts.values()]


def _fewest_layers(family, settings):
    return min(_layer_counts(family, settings), default=1)


def _most_layers(family, settings):
    return max(_layer_counts(family, settings), default=1)


def _settings(expressions, settings):
    """The keys in some expressions with their values: "hidden_size=48 and num_labels=3"."""
    names = []
    for expression in expressions:
        text = expression[0] if isinstance(expression, tuple) else expression
        names += [name for name in re.findall(r"[A-Za-z]\w+", text) if name in settings]
    parts = [f"{name}={shown(settings[name])}" for name in dict.fromkeys(names)]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _tuple(names):
    return (names,) if isinstance(names, str) else names
