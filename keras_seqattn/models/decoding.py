"""Driving a Keras decoder: a cache of fixed size, and a step that is compiled once."""

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import InputError
from keras_seqattn.models.config import read_settings
from keras_seqattn.models.registry import get_family

_SMALLEST_BUCKET = 16


class KerasDecoder:
    """A causal language model as `keras_seqattn.generation` drives it.

    Prompts are padded to powers of two, so that the step is compiled for few lengths: one for the
    prompt's, and one for single tokens.

    Args:
        model: a `SequenceModel` for causal_lm.

    Attributes:
        vocabulary_size: number of tokens v.
    """

    def __init__(self, model):
        self.model = model
        self.vocabulary_size = model.output["logits"].shape[-1]
        self._step_model = model.step_model(static=True)
        self._caches = {
            name: tensor
            for name, tensor in self._step_model.input.items()
            if name.startswith("past_key_values.")
        }
        self._run = _COMPILERS[keras.backend.backend()](self._step)

    def start(self, batch_size, max_length):
        """Empty the cache and make room.

        Args:
            batch_size: number of rows b.
            max_length: largest number of tokens of a row, the prompt and its padding included.

        Raises:
            InputError: the model has fewer positions.
        """
        settings = read_settings(self.model.config, get_family(self.model.family))
        positions = settings["max_position_embeddings"]
        if max_length > positions:
            raise InputError(f"{max_length} tokens exceed the {positions} positions of the model.")
        self._slots = _bucket(max_length)
        self._used = 0
        self._cache = {
            name: ops.zeros(
                (batch_size, tensor.shape[1], self._slots, tensor.shape[3]), tensor.dtype
            )
            for name, tensor in self._caches.items()
        }

    def __call__(self, input_ids, attention_mask):
        """The logits that follow the given tokens.

        Args:
            input_ids: int64 (b, t), the tokens after those of the earlier calls.
            attention_mask: int64 (b, total), over all tokens so far; 1 = real.

        Returns:
            float32 (b, v), for the last position.

        Raises:
            InputError: the tokens do not fit the room that `start` made.
        """
        length = input_ids.shape[1]
        if self._used + length > self._slots:
            raise InputError(
                f"{self._used + length} tokens do not fit the {self._slots} of this generation; "
                "start it with a larger max_length."
            )
        width = length if length == 1 else min(_bucket(length), self._slots - self._used)
        ids = np.zeros((len(input_ids), width), "int32")
        ids[:, :length] = input_ids
        mask = np.zeros((len(input_ids), self._slots), "int32")
        mask[:, : attention_mask.shape[1]] = attention_mask
        slot, last = np.array([self._used], "int32"), np.array(length - 1, "int32")
        arrays = [ops.convert_to_tensor(array) for array in (ids, mask, slot, last)]
        logits, self._cache = self._run(self._state(), *arrays, self._cache)
        self._used += length
        return np.asarray(keras.ops.convert_to_numpy(logits), np.float32)

    def reorder(self, rows):
        """Make row i of the cache a copy of row `rows[i]`, as beam search asks.

        Args:
            rows: int (b,).
        """
        rows = ops.convert_to_tensor(np.asarray(rows, "int32"))
        self._cache = {name: ops.take(value, rows, axis=0) for name, value in self._cache.items()}

    def _step(self, state, ids, mask, slot, last, cache):
        inputs = {"input_ids": ids, "attention_mask": mask, "cache_position": slot, **cache}
        if state is None:
            outputs = self._step_model(inputs, training=False)
        else:
            outputs, _ = self._step_model.stateless_call(*state, inputs, training=False)
        logits = ops.take(outputs["logits"], last, axis=1)
        return logits, {name: outputs[_present(name)] for name in cache}

    def _state(self):
        """The weights as arguments, for JAX, which would otherwise compile them in as constants."""
        if keras.backend.backend() != "jax":
            return None
        variables = (self._step_model.trainable_variables, self._step_model.non_trainable_variables)
        return tuple([variable.value for variable in part] for part in variables)


def _present(name):
    return name.replace("past_key_values.", "present.")


def _bucket(length):
    return max(_SMALLEST_BUCKET, 1 << (length - 1).bit_length())


def _compile_jax(step):
    import jax

    return jax.jit(step, donate_argnums=5)


def _compile_tensorflow(step):
    import tensorflow as tf

    return tf.function(step, autograph=False)


def _compile_torch(step):
    import torch

    return torch.no_grad()(step)


_COMPILERS = {"jax": _compile_jax, "tensorflow": _compile_tensorflow, "torch": _compile_torch}
