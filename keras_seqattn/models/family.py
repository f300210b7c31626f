"""The declaration of a family of models: its settings, tasks, builder and weight table."""

import dataclasses
import re
from collections.abc import Callable

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.models.keys import KEYS
from keras_seqattn.weights.table import Table


def position_rows(settings, side):
    """For `Family.longest`: the number of positions in the configuration, or None."""
    own = settings.get(f"max_{side}_position_embeddings")
    return settings.get("max_position_embeddings") if own is None else own


@dataclasses.dataclass(frozen=True)
class Family:
    """One value of `model_type` in config.json.

    Attributes:
        model_type: the name.
        architectures: task -> Hugging Face class; the first task is the default.
        defaults: every configuration key that the family reads -> its value if it is absent.
        fixed: key -> the implemented values, for keys that the family does not read but that change
            the results of a model. Other keys change nothing and are ignored.
        build: (settings, task, initializer) -> (inputs, outputs) of the functional model. The
            initializer is a function that makes a new initializer for each layer.
        table: the `Table` of the weights; or a function from the settings to the table, if names
            depend on the settings.
        aliases: other Hugging Face classes -> the task of their weights.
        adapt: (config, tensor names) -> config, if a setting follows from the weights and not from
            the configuration; otherwise None.
        step: (model, static) -> the model of one decoding step; None for models without a cache.
        encoder: (model, static) -> the model of the encoder; None for models with one stack.
        layer_counts: pattern of layer names -> the configuration keys for the number of layers. The
            first key that is not null counts. None means num_hidden_layers for `layers_{i}`, if the
            family reads that key.
        shapes: checkpoint name, or a tuple of names of which one is stored -> the shape of that
            tensor: for each axis an expression of configuration keys (`sizes.py`). Every size in
            the configuration must be in one of these shapes or in `extent`.
        check: (settings) -> None; raises ConfigError if values contradict each other.
        extent: expressions for the number of values that a model needs beside its weights: tables
            of positions, windows, memories.
        keys: key -> the values that it may have (`values.py`), for keys that are not in
            `keys.KEYS`.
        keras_names: name of a setting in Keras -> the keys that it means, in addition to
            `config.KERAS_NAMES`.
        unsaved: keys that only this library reads and that follow from the weights. `save` does not
            write them.
        head_rows: additional rows of heads, which `register_head` added.
        longest: (settings, side) -> the maximum number of tokens per row of the "encoder" or the
            "decoder" (the same for models with one stack); None if there is no limit.
        source_multiple: (settings) -> the length of a source should be a multiple of this number;
            or None.
        equal_steps: (settings) -> up to this number of tokens per row, cached steps from an empty
            past give the same results as the full pass; None if they always do.
        most_global_tokens: (settings) -> the maximum number of global tokens per row, or None.
    """

    model_type: str
    architectures: dict[str, str]
    defaults: dict
    fixed: dict
    build: Callable
    table: Table | Callable
    aliases: dict[str, str] = dataclasses.field(default_factory=dict)
    adapt: Callable | None = None
    step: Callable | None = None
    encoder: Callable | None = None
    layer_counts: dict[str, tuple[str, ...]] | None = None
    shapes: dict = dataclasses.field(default_factory=dict)
    extent: tuple[str, ...] = ()
    check: Callable | None = None
    keys: dict = dataclasses.field(default_factory=dict)
    keras_names: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    unsaved: tuple[str, ...] = ()
    head_rows: tuple = ()
    longest: Callable = position_rows
    source_multiple: Callable = lambda settings: None
    equal_steps: Callable = lambda settings: None
    most_global_tokens: Callable = lambda settings: None

    def __post_init__(self):
        if self.layer_counts is None:
            key = "num_hidden_layers"
            counts = {"layers_{i}": (key,)} if key in self.defaults else {}
            object.__setattr__(self, "layer_counts", counts)

    def kind(self, key):
        """The values that a key may have, a kind of `values.py`."""
        return self.keys[key] if key in self.keys else KEYS[key]

    def table_of(self, settings):
        """The weight table of a model with these settings."""
        table = self.table(settings) if callable(self.table) else self.table
        return dataclasses.replace(table, head=(*table.head, *self.head_rows))

    def task_of(self, config):
        """The task for the `architectures` of a configuration, or None.

        Raises:
            ConfigError: `architectures` is not a list of names.
        """
        tasks = {name: task for task, name in self.architectures.items()} | self.aliases
        names = config.get("architectures") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError(
                f"{self.model_type}: architectures must be a list of names, not {shown(names)}."
            )
        return next((tasks[name] for name in names if name in tasks), None)


def check_declaration(family):
    """Check that the parts of a declaration fit together.

    Args:
        family: a `Family`.

    Raises:
        ConfigError: a key of `defaults` has no kind of values, or its default is not such a value;
            a key of `layer_counts`, `shapes` or `extent` is not in `defaults`; or a name has
            another number than `{i}`.
    """
    name = family.model_type
    if not isinstance(name, str) or not name or not family.architectures:
        raise ConfigError(f"a family needs a model_type and architectures, not {shown(name)}.")
    for key, value in family.defaults.items():
        if key not in family.keys and key not in KEYS:
            raise ConfigError(
                f"{name}: nothing says what values {key} may have; add it to Family.keys, with a "
                "kind of keras_seqattn.models.values."
            )
        if value is not None and not family.kind(key).accepts(value):
            raise ConfigError(f"{name}: the default of {key} must be {family.kind(key)}.")
    counted = {key for keys in family.layer_counts.values() for key in keys}
    unknown = sorted((counted | _expression_keys(family)) - set(family.defaults))
    if unknown:
        raise ConfigError(
            f"{name}: layer_counts, shapes or extent name {', '.join(unknown)}, which are not in "
            "Family.defaults."
        )
    patterns = [names for names in family.shapes if isinstance(names, str)]
    patterns += [name for names in family.shapes if not isinstance(names, str) for name in names]
    for pattern in (*patterns, *family.layer_counts):
        numbers = re.findall(r"\{(.*?)\}", pattern)
        if set(numbers) - {"i"} or (pattern in family.layer_counts and not numbers):
            raise ConfigError(
                f"{name}: {pattern!r} in shapes or layer_counts: write {{i}} for the number of a "
                "layer, and no other."
            )


def _expression_keys(family):
    """The keys in the size expressions of a family, without the expressions that are functions."""
    expressions = [size for shape in family.shapes.values() for size in shape]
    texts = [text for text in (*expressions, *family.extent) if isinstance(text, str)]
    return {name for text in texts for name in re.findall(r"[A-Za-z]\w*", text)}
