"""The functional model that every family builds, and how to build it from a configuration."""

from pathlib import Path

import keras

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.generation.checkpoint import POSITION_KEYS
from keras_seqattn.models.config import read_settings, written_defaults
from keras_seqattn.models.functional import PortModel, port_of
from keras_seqattn.models.registry import get_family
from keras_seqattn.models.sizes import check_model_memory
from keras_seqattn.ports import names
from keras_seqattn.tasks import task_of_model


@keras.saving.register_keras_serializable(package="keras_seqattn")
class SequenceModel(PortModel):
    """A functional Keras model with dicts of inputs and outputs, a family, task and configuration.

    Its `.keras` file holds these three, the weights and the assets. The family builds the model
    again from them.

    Args:
        inputs: dict of name -> symbolic input, as in `PortModel`.
        outputs: dict of name -> symbolic output.
        family: the `model_type` of config.json.
        task: purpose of the outputs, such as "causal_lm".
        config: dict as in config.json.
        assets: dict of file name -> bytes: tokenizer, generation settings and similar files.
        limits: as in `Ports`.
        name: name of the model. None takes the name of the family.
    """

    def __init__(
        self, inputs, outputs, *, family, task, config, assets=None, limits=None, name=None
    ):
        super().__init__(inputs, outputs, limits, name=name or family)
        self.family = family
        self.task = task
        self.config = config
        self.assets = assets or {}

    def step_model(self, static=False):
        """The model of one decoding step, with the same layers and weights.

        Args:
            static: the caches are buffers of a fixed size, and the step writes them in place.

        Returns:
            A functional model. Inputs: input_ids int32 (b, t), attention_mask int32 (b, p + t), and
            for every layer i `past_key_values.{i}.key` and `.value`, float (b, g, p, d). Outputs:
            logits float (b, t, v), `present.{i}.key` and `present.{i}.value`, float (b, g, p+t, d).

            With `static` the caches are (b, g, n, d) and the mask is (b, n). One more input,
            cache_position int32 (1,), is the place of the first token.

            Layers whose past has a fixed size have states, no caches: `past_states.{i}.{name}`
            (b, ...), zeros at first, and `present_states.{i}.{name}`. If all layers have states,
            the mask is (b, t), for the new tokens only, and there is no cache_position. Then there
            are also `past_states.length` int32 (b,), the number of real tokens so far, and
            `present_states.length`.

            The step of an encoder-decoder with attention has these inputs: encoder_attention_mask
            int32 (b, s), input_ids, encoder_hidden_states float (b, s, m), and for every layer i
            `past_key_values.{i}.decoder.key` and `.value` (b, h, p, d), `.encoder.key` and `.value`
            (b, h, c, d), with c = 0 at first and c = s later. Outputs: logits, and `present.` for
            all four; those of the encoder are (b, h, s, d). With `static` the caches of the decoder
            are buffers, and those of the encoder are the outputs of `encoder_model(static=True)`.
            Then there is no input encoder_hidden_states and no output `present.{i}.encoder`.

            The step of a recurrent encoder-decoder has these inputs: input_ids,
            `past_states.{i}.hidden` float (b, n) (for an LSTM also `.cell`), and the outputs of the
            encoder that its attention reads, with encoder_attention_mask. Outputs: logits and
            `present_states.{i}`.

        Raises:
            ConfigError: the model does not generate text.
        """
        family = self._family()
        if family.step is None or not task_of_model(self).generates:
            raise ConfigError(
                f"{self.family} for {self.task} has no decoding step; load it for causal_lm or "
                "seq2seq_lm."
            )
        return family.step(self, static)

    def encoder_model(self, static=False):
        """The encoder of an encoder-decoder, with the same layers and weights.

        Args:
            static: return the inputs of a static step, and not the hidden states.

        Returns:
            A functional model. Inputs: input_ids, attention_mask and, if the model has it,
            global_attention_mask, int32 (b, s). A model with attention has the output
            last_hidden_state float (b, s, m). With `static` it has, for every layer of the decoder,
            `present.{i}.encoder.key` and `.value` of the cross-attention, float (b, h, s, d). A
            recurrent model has `present_states.{i}.hidden` float (b, n) (for an LSTM also `.cell`),
            which are the first states of its decoder, and the tensors that its attention reads.

        Raises:
            ConfigError: the model has no encoder of its own.
        """
        family = self._family()
        if family.encoder is None:
            raise ConfigError(f"{self.family} is not an encoder-decoder, so it has no encoder.")
        return family.encoder(self, static)

    def parts(self):
        """The models that become files: file name without suffix -> `PortModel`.

        A model that reads a source has an encoder and a step. Another model that generates has a
        step. Any other model is one file itself.
        """
        task = task_of_model(self)
        models = (self,)
        if task.reads_source:
            models = self.encoder_model(), self.step_model()
        elif task.generates:
            models = (self.step_model(),)
        return dict(zip(task.graphs, models, strict=True))

    @property
    def settings(self):
        """dict with the value of every configuration key that the family reads."""
        defaults = self._family().defaults
        return defaults | {key: self.config[key] for key in defaults if key in self.config}

    def _family(self):
        return get_family(self.family)

    def get_config(self):
        return {
            "name": self.name,
            "family": self.family,
            "task": self.task,
            "config": dict(self.config),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return assemble(config["family"], config["task"], config["config"], name=config["name"])

    def save_assets(self, directory):
        for name, content in self.assets.items():
            path = Path(directory) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def load_assets(self, directory):
        directory = Path(directory)
        self.assets = {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.is_file()
        }


def assemble(family, task, config, assets=None, blank=False, name=None):
    """Build a model from a complete configuration.

    Args:
        family: the `model_type`.
        task: None takes the first task of the family.
        config: dict as in config.json. Keys that change nothing are ignored.
        assets: file name -> bytes.
        blank: start the body from zeros, because weights are loaded next.
        name: name of the model.

    Returns:
        A `SequenceModel`.

    Raises:
        ConfigError: the family, the task or a value is not implemented.
    """
    declared = get_family(family)
    task = next(iter(declared.architectures)) if task is None else task
    if not isinstance(task, str) or task not in declared.architectures:
        raise ConfigError(
            f"{family} has no task {shown(task)}; it has {', '.join(declared.architectures)}."
        )
    settings = read_settings(config, declared)
    check_model_memory(declared, settings)

    def initializer():
        if blank:
            return keras.initializers.Zeros()
        spread = settings.get("init_std", settings["initializer_range"])
        if spread is None:
            return keras.initializers.GlorotUniform()
        return keras.initializers.RandomNormal(stddev=spread)

    inputs, outputs = declared.build(settings, task, initializer)
    # Keys of other families change nothing here, but they would limit texts when a bundle runs.
    foreign = set(POSITION_KEYS) - set(declared.defaults)
    config = {key: value for key, value in config.items() if key not in foreign}
    # All values are written, so that a reader of the configuration needs no table of defaults.
    config = {**written_defaults(declared, settings), **config}
    return SequenceModel(
        inputs,
        outputs,
        family=family,
        task=task,
        config=config,
        assets=assets,
        limits=_limits(inputs, declared, settings),
        name=name,
    )


def _limits(inputs, family, settings):
    """The maximum number of tokens of each side, for `Ports.limits`."""
    sides = {names.TOKENS: "decoder", names.SOURCE: "encoder", names.TARGET: "decoder"}
    known = {axis for name, tensor in inputs.items() for axis in port_of(name, tensor).axes}
    limits = {name: family.longest(settings, side) for name, side in sides.items()}
    return {name: size for name, size in limits.items() if size and name in known}
