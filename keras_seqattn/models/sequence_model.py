"""The functional model that every family builds."""

from pathlib import Path

import keras

from keras_seqattn.errors import ConfigError
from keras_seqattn.models.functional import PortModel


@keras.saving.register_keras_serializable(package="keras_seqattn")
class SequenceModel(PortModel):
    """A functional Keras model, dict in and dict out, with its family, task and configuration.

    Its `.keras` file holds these three, the weights and the assets; the family builds it anew from
    them.

    Args:
        inputs: dict of name -> symbolic input, made by `symbolic` of a `Port`.
        outputs: dict of name -> symbolic output.
        family: the `model_type` of config.json.
        task: what the outputs are for, as "causal_lm".
        config: dict as in config.json.
        assets: dict of file name -> bytes: tokenizer, generation settings and the like.
        limits: as in `Ports`.
        name: name of the model; None is the family's.
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
        """The model of one decoding step, over the same layers and weights.

        Args:
            static: the caches are buffers of a fixed size that are written in place.

        Returns:
            A functional model. Inputs: input_ids int32 (b, t), attention_mask int32 (b, p + t), and
            for every layer i `past_key_values.{i}.key` and `.value`, float (b, g, p, d). Outputs:
            logits float (b, t, v), `present.{i}.key` and `present.{i}.value`, float (b, g, p+t, d).
            With `static` the caches are (b, g, n, d), the mask is (b, n), and one more input,
            cache_position int32 (1,), is the slot of the first token. Layers whose past has a fixed
            size have states in place of caches, `past_states.{i}.{name}` (b, ...), zeros at first,
            and `present_states.{i}.{name}`. If all layers have, the mask is (b, t), over the new
            tokens alone, there is no cache_position, and `past_states.length` int32 (b,), the real
            tokens so far, and `present_states.length` go with the states.

            Of an encoder-decoder with attention, inputs: encoder_attention_mask int32 (b, s),
            input_ids, encoder_hidden_states float (b, s, m), and for every layer i
            `past_key_values.{i}.decoder.key` and `.value` (b, h, p, d), `.encoder.key` and `.value`
            (b, h, c, d), with c = 0 at first and c = s afterwards. Outputs: logits, and `present.`
            for all four, those of the encoder (b, h, s, d). With `static` the decoder's caches are
            buffers, those of the encoder what `encoder_model(static=True)` returns, and
            encoder_hidden_states is not an input, `present.{i}.encoder` no output.

            Of a recurrent one, inputs: input_ids, `past_states.{i}.hidden` float (b, n) (of an LSTM
            `.cell` too), and what of the encoder's outputs its attention reads, with
            encoder_attention_mask. Outputs: logits and `present_states.{i}`.

        Raises:
            ConfigError: the model does not generate text.
        """
        family = self._family()
        if family.step is None or self.task not in ("causal_lm", "seq2seq_lm"):
            raise ConfigError(
                f"{self.family} for {self.task} has no decoding step; load it for causal_lm or "
                "seq2seq_lm."
            )
        return family.step(self, static)

    def encoder_model(self, static=False):
        """The encoder of an encoder-decoder, over the same layers and weights.

        Args:
            static: return what a static step reads in place of the hidden states.

        Returns:
            A functional model. Inputs: input_ids, attention_mask and, where the model has it,
            global_attention_mask, int32 (b, s). Output with attention: last_hidden_state float
            (b, s, m); with `static` the cross-attention's `present.{i}.encoder.key` and `.value`
            instead, float (b, h, s, d) for every layer of the decoder. Outputs of a recurrent
            model: `present_states.{i}.hidden` float (b, n) (of an LSTM `.cell` too), with which its
            decoder starts, and what its attention reads.

        Raises:
            ConfigError: the model has no encoder of its own.
        """
        family = self._family()
        if family.encoder is None:
            raise ConfigError(f"{self.family} is not an encoder-decoder, so it has no encoder.")
        return family.encoder(self, static)

    def _family(self):
        from keras_seqattn.models.registry import get_family

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
