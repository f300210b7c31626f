"""The functional model that every family builds."""

from pathlib import Path

import keras

from keras_seqattn.errors import ConfigError


@keras.saving.register_keras_serializable(package="keras_seqattn")
class SequenceModel(keras.Model):
    """A functional Keras model, dict in and dict out, with its family, task and configuration.

    Its `.keras` file holds these three, the weights and the assets; the family builds it anew from
    them.

    Args:
        inputs: dict of name -> symbolic input.
        outputs: dict of name -> symbolic output.
        family: the `model_type` of config.json.
        task: what the outputs are for, as "causal_lm".
        config: dict as in config.json.
        assets: dict of file name -> bytes: tokenizer, generation settings and the like.
        name: name of the model; None is the family's.
    """

    def __init__(self, inputs, outputs, *, family, task, config, assets=None, name=None):
        super().__init__(inputs=inputs, outputs=outputs, name=name or family)
        self.family = family
        self.task = task
        self.config = config
        self.assets = assets or {}

    def step_model(self, static=False):
        """The model of one decoding step, over the same layers and weights.

        Args:
            static: the caches are buffers of a fixed size that are written in place.

        Returns:
            A functional model. Inputs: input_ids int32 (b, t), attention_mask int32 (b, p + t), and
            for every layer i `past_key_values.{i}.key` and `.value`, float (b, g, p, d). Outputs:
            logits float (b, t, v), `present.{i}.key` and `present.{i}.value`, float (b, g, p+t, d).
            With `static` the caches are (b, g, n, d), the mask is (b, n), and one more input,
            cache_position int32 (1,), is the slot of the first token.

        Raises:
            ConfigError: the model is not a causal language model.
        """
        from keras_seqattn.models.registry import get_family

        family = get_family(self.family)
        if family.step is None or self.task != "causal_lm":
            raise ConfigError(
                f"{self.family} for {self.task} has no decoding step; load it for causal_lm."
            )
        return family.step(self, static)

    def get_config(self):
        return {
            "name": self.name,
            "family": self.family,
            "task": self.task,
            "config": dict(self.config),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        from keras_seqattn.models.registry import assemble

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
