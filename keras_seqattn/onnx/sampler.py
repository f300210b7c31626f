"""Inputs to compare a file and a Keras model on: random, valid for the model, reproducible."""

import sys

import keras
import numpy as np

from keras_seqattn.errors import InputError
from keras_seqattn.generation.settings import position_limit

# Above this many parameters a long batch costs minutes in Keras and shows nothing that a short one
# does not.
_LARGE = 50_000_000


class Sampler:
    """Draws inputs for a model by the names, shapes and ranges that the model declares.

    Args:
        model: the Keras model.
        lengths: of the inputs of full passes; None chooses them.
        seed: of the generator.
    """

    def __init__(self, model, lengths=None, seed=0):
        self.model = model
        self._lengths = lengths
        self.random = np.random.default_rng(seed)
        struct = model.input
        self.tensors = (
            dict(struct)
            if isinstance(struct, dict)
            else {t.name: t for t in keras.tree.flatten(struct)}
        )
        self.large = model.count_params() > _LARGE
        self.config = getattr(model, "config", None) or {}

    def cases(self):
        """(batch size, length, padding side) of the full passes."""
        lengths = self.lengths([1, 7, 33] if self.large else [1, 7, 33, 130])
        cases = [(1, n, None) for n in lengths]
        if "attention_mask" not in self.tensors:
            return cases + [(3, n, None) for n in lengths]
        return cases + [(3, n, side) for n in lengths for side in ("left", "right")]

    def lengths(self, default):
        """The lengths that were asked for, or else those of `default` that the model takes.

        Raises:
            InputError: one that was asked for is longer than the model takes.
        """
        longest = self.max_length()
        if self._lengths is None:
            return [n for n in default if n <= longest]
        if not self._lengths or min(self._lengths) < 1 or max(self._lengths) > longest:
            raise InputError(
                f"lengths to verify must be from 1 to the model's {longest}, not {self._lengths}"
            )
        return list(self._lengths)

    def targets(self, batch, length):
        """int64 (b, t), the tokens that an encoder-decoder's decoder is given."""
        return self._array("decoder_input_ids", self.tensors["decoder_input_ids"], (batch, length))

    def steps(self):
        """How many cached steps to run after 7 tokens.

        A Transformer-XL's steps equal a full pass for as long as its memory has all that was
        before, unless every query sees equally far.
        """
        limits = [20, self.max_length("decoder") - 7]
        if "mem_len" in self.config and not self.config.get("same_length"):
            limits.append(self.config["mem_len"] - 6)
        return max(0, min(limits))

    def max_length(self, side="encoder"):
        """The longest input, of an encoder-decoder that of one side.

        Dynamic rotary scaling is about what lies beyond the table.
        """
        rope = self.config.get("rope_parameters") or self.config.get("rope_scaling") or {}
        if rope.get("rope_type") == "dynamic":
            return sys.maxsize
        names = ("max_sequence_length", "sequence_length", "max_length")
        layers = list(_layers(self.model))
        if "decoder_input_ids" in self.tensors:
            other = "decoder_" if side == "encoder" else "encoder_"
            layers = [layer for layer in layers if not layer.name.startswith(other)]
        limits = [getattr(layer, name, None) for layer in layers for name in names]
        limits.append(position_limit(self.config, side))
        return min([n for n in limits if isinstance(n, int)], default=sys.maxsize)

    def inputs(self, batch, length, side):
        """Arrays by input name, int64 where Keras has integers."""
        arrays = {}
        for name, tensor in self.tensors.items():
            shape = [
                batch if i == 0 else length if n is None else n for i, n in enumerate(tensor.shape)
            ]
            arrays[name] = self._array(name, tensor, shape, side)
        return arrays

    def mask(self, inputs):
        """int or bool (b, t), nonzero where outputs count; None if everywhere.

        At masked positions Keras's backends do not agree with each other, so there is nothing to
        compare with.
        """
        if "attention_mask" in inputs:
            return inputs["attention_mask"]
        ids = [n for n, tensor in self.tensors.items() if "int" in tensor.dtype]
        embeddings = [x for x in _layers(self.model) if isinstance(x, keras.layers.Embedding)]
        if len(ids) == 1 and any(layer.mask_zero for layer in embeddings):
            return inputs[ids[0]] != 0
        return None

    def _array(self, name, tensor, shape, side=None):
        if name == "attention_mask":
            return padding_mask(shape, side)
        if name == "global_attention_mask":
            return self._global_mask(shape)
        if "int" in tensor.dtype:
            return self.random.integers(0, self._limit(name), shape).astype(np.int64)
        if tensor.dtype == "bool":
            return self.random.random(shape) < 0.7
        return self.random.normal(size=shape).astype(tensor.dtype)

    def _global_mask(self, shape):
        """Up to three tokens of each row, which may be padding."""
        count = min(3, shape[1], self.config.get("max_global_tokens", 1))
        mask = np.zeros(shape, np.int64)
        for row in mask:
            row[self.random.choice(shape[1], count, replace=False)] = 1
        return mask

    def _limit(self, name):
        keys = {"token_type_ids": "type_vocab_size"}
        keys |= dict.fromkeys(("input_ids", "decoder_input_ids"), "vocab_size")
        key = keys.get(name)
        if key in self.config:
            return self.config[key]
        sizes = [
            layer.input_dim
            for layer in _layers(self.model)
            if isinstance(layer, keras.layers.Embedding)
        ]
        return min(sizes, default=2)

    def for_keras(self, inputs):
        """The same inputs in the structure and widths that the Keras model takes."""
        arrays = [inputs[n].astype(t.dtype) for n, t in self.tensors.items()]
        struct = self.model.input
        if isinstance(struct, dict):
            return dict(zip(self.tensors, arrays, strict=True))
        return keras.tree.pack_sequence_as(struct, arrays)


def padding_mask(shape, side):
    """int64 (b, t): row r has about r/4 of its positions padded, and at least one real."""
    mask = np.ones(shape, np.int64)
    for row in range(shape[0]) if side else ():
        padded = min(row * shape[1] // 4 + (row > 0), shape[1] - 1)
        if side == "left":
            mask[row, :padded] = 0
        else:
            mask[row, shape[1] - padded :] = 0
    return mask


def _layers(layer):
    yield layer
    for child in getattr(layer, "layers", ()):
        yield from _layers(child)
