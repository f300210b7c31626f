"""What a family of models declares: its settings, its tasks, its builder and its weight table."""

import dataclasses
from collections.abc import Callable

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.weights.table import Table


@dataclasses.dataclass(frozen=True)
class Family:
    """One value of `model_type` in config.json.

    Attributes:
        model_type: the name.
        architectures: task -> Hugging Face class; the first task is the default.
        defaults: every configuration key that the family reads -> its value when absent.
        fixed: key -> the values that are implemented, for keys that the family does not read but
            that change what a model computes. Other keys change nothing and are ignored.
        build: (settings, task, initializer) -> (inputs, outputs) of the functional model. The
            initializer is a function that makes a new one for each layer.
        table: the rows between checkpoint names and variables; or a function from the settings to
            them, where names depend on these.
        aliases: other Hugging Face classes -> the task that their weights serve.
        adapt: (config, tensor names) -> config, where the weights say what the configuration does
            not; None where it says all.
        step: (model, static) -> the model of one decoding step; None for models without a cache.
        encoder: (model, static) -> the model of the encoder; None for models that have one stack.
        layer_counts: pattern of layer names -> the configuration keys that give their number, the
            first that is not null.
        shapes: checkpoint name, or names of which one is stored -> the shape of that tensor, an
            expression of configuration keys for each axis (`sizes.py`). Such weights that every
            size of the configuration is in one.
        check: (settings) -> None, which raises ConfigError where values contradict each other.
        extent: expressions of the numbers that a model holds or computes with beside its weights:
            tables of positions, windows, memories.
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
    layer_counts: dict[str, tuple[str, ...]] = dataclasses.field(
        default_factory=lambda: {"layers_{i}": ("num_hidden_layers",)}
    )
    shapes: dict = dataclasses.field(default_factory=dict)
    extent: tuple[str, ...] = ()
    check: Callable | None = None

    def table_of(self, settings):
        """The weight table of a model with these settings."""
        return self.table(settings) if callable(self.table) else self.table

    def task_of(self, config):
        """The task that a configuration's `architectures` names, or None.

        Raises:
            ConfigError: they are not a list of names.
        """
        tasks = {name: task for task, name in self.architectures.items()} | self.aliases
        names = config.get("architectures") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError(
                f"{self.model_type}: architectures must be a list of names, not {shown(names)}."
            )
        return next((tasks[name] for name in names if name in tasks), None)
