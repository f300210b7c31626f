"""Inputs to compare a file with a Keras model: random, valid for the model, reproducible."""

import itertools
import sys

import keras
import numpy as np

from keras_seqattn.errors import InputError
from keras_seqattn.models.registry import get_family
from keras_seqattn.models.sequence_model import SequenceModel
from keras_seqattn.onnx import draws
from keras_seqattn.onnx.declared import input_ports, is_dict_of_tensors, named_inputs
from keras_seqattn.onnx.keras_internals import all_layers
from keras_seqattn.onnx.lengths import lengths_taken

# With more parameters than this, a long batch takes minutes in Keras, and shows no more than a
# short one.
_LARGE = 50_000_000
# The maximum length that may be asked for, whatever the model says. It limits the memory.
_LONGEST = 1 << 20
# The sizes that dynamic dimensions have independently of each other.
_SIZES = (1, 2, 7)


class InputGenerator:
    """Draws inputs for a model. Its ports declare their roles, shapes and ranges.

    Args:
        model: the Keras model.
        lengths: lengths of the inputs of full passes. None chooses them.
        ports: `Ports` of its inputs. None takes those that the model declares.
        seed: of the random generator.

    Attributes:
        spread: (least, below) of integers that no port limits.
        turn: int, how many inputs were drawn. Integers that nothing limits take turns: they are
            flags after an odd number of draws, as the model may use them as a mask.
    """

    def __init__(self, model, lengths=None, ports=None, seed=0):
        self.model = model
        self._lengths = lengths
        self.random = np.random.default_rng(seed)
        self.tensors = named_inputs(model)
        self.ports = input_ports(model) if ports is None else ports
        self.large = model.count_params() > _LARGE
        ours = isinstance(model, SequenceModel)
        self._family = get_family(model.family) if ours else None
        self.config = model.settings if ours else {}
        tables = [x for x in all_layers(model) if isinstance(x, keras.layers.Embedding)]
        self.spread = (0, min([x.input_dim for x in tables], default=2))
        self.turn = 0
        self._masks_zero = any(x.mask_zero for x in tables)

    def cases(self, takes=None):
        """(batch size, length, padding side) of the full passes. The length is None if the shapes
        are fixed.

        Args:
            takes: None, or a function of a batch size and a length -> whether the model runs on
                them. It decides if no lengths were given.

        Raises:
            InputError: the model accepts no length, or not one of the given lengths.
        """
        batches = self.batches()
        if not self.is_long():
            return [(n, None, None) for n in batches]
        lengths = self.wanted_lengths()
        if takes is not None and self._lengths is None:
            lengths = lengths_taken(lengths, lambda n: takes(batches[0], n))
        cases = [(batches[0], n, None) for n in lengths]
        sides = ("left", "right") if self.ports.first("mask") else (None,)
        return cases + [(b, n, side) for b in batches[1:] for n in lengths for side in sides]

    def wanted_lengths(self):
        """The lengths to try, ascending. Pictures of 130 x 130 would take long in Keras."""
        long = self.large or any(t.shape[1:].count(None) > 1 for t in self.tensors.values())
        return self.lengths([1, 7, 33] if long else [1, 7, 33, 130])

    def independent_sizes(self, lengths):
        """Sizes of the dynamic dimensions in which each has another one, as dicts. There is none if
        there are fewer than two dimensions beside the batch.

        Args:
            lengths: ascending ints that the model accepts. They are used besides 1, 2 and 7.
        """
        axes = (axis for port in self.ports.inputs for axis in port.axes[1:])
        names = list(dict.fromkeys(n for n in axes if isinstance(n, str)))
        names = [n for n in names if n not in self.ports.totals]
        if len(names) < 2:
            return []
        return [
            [dict(zip(names, itertools.cycle((*sizes[k:], *sizes[:k])))) for k in range(len(sizes))]
            for sizes in (_SIZES, lengths[:2])
        ]

    @property
    def has_given_lengths(self):
        """Whether the lengths were given by the user."""
        return self._lengths is not None

    @property
    def has_free_integers(self):
        """Whether there is an integer input that no port limits."""
        return any(p.is_integer and p.role != "mask" and p.below is None for p in self.ports.inputs)

    @property
    def has_mask(self):
        """Whether a row can be without any key."""
        has_flags = any(port.dtype == "bool" for port in self.ports.inputs)
        return has_flags or self._masks_zero or self.ports.first("mask") is not None

    def lengths(self, default):
        """The given lengths. If none were given, those of `default` that the model accepts.

        Raises:
            InputError: a given length is longer than the maximum of the model.
        """
        longest = self.max_length()
        if self._lengths is None:
            return [n for n in default if n <= longest]
        if max(self._lengths) > longest:
            raise InputError(
                f"lengths to verify must be from 1 to the model's {longest}, not {self._lengths}"
            )
        return list(self._lengths)

    def batches(self):
        """The batch sizes to try. If an input has a fixed batch size, only this one."""
        fixed = {t.shape[0] for t in self.tensors.values() if len(t.shape) and t.shape[0] != 1}
        fixed.discard(None)
        free = any(len(t.shape) and t.shape[0] is None for t in self.tensors.values())
        return [1, 3] if free and not fixed else [min(fixed, default=1)]

    def is_long(self):
        """Whether an axis other than the batch is dynamic."""
        return any(None in t.shape[1:] for t in self.tensors.values())

    def targets(self, batch, length):
        """int64 (b, t), the tokens for the decoder of an encoder-decoder."""
        return self._array(self.ports.first("targets"), (batch, length))

    def steps(self):
        """The number of cached steps after 7 tokens.

        In some families, more steps may give another result than a full pass.
        """
        role = "targets" if self.ports.first("targets") else "tokens"
        limits = [20, self.max_length(role) - 7]
        equal = self._family and self._family.equal_steps(self.config)
        if equal is not None:
            limits.append(equal - 7)
        return max(0, min(limits))

    def max_length(self, role=None):
        """The maximum length of the input of a role, or of the first input that has a length.

        With dynamic rotary scaling, the declared maximum is no limit: the scaling begins there.
        """
        return min(_LONGEST, self._declared_length(role))

    def _declared_length(self, role):
        rope = self.config.get("rope_parameters") or self.config.get("rope_scaling") or {}
        if rope.get("rope_type") == "dynamic":
            return sys.maxsize
        names = ("max_sequence_length", "sequence_length", "max_length")
        layers = all_layers(self.model)
        if self.ports.first("targets"):
            other = "encoder_" if role == "targets" else "decoder_"
            layers = [layer for layer in layers if not layer.name.startswith(other)]
        limits = [getattr(layer, name, None) for layer in layers for name in names]
        port = self.ports.first(role) if role else self.ports.inputs[0]
        limits += [self.ports.limits.get(axis) for axis in port.axes]
        return min([n for n in limits if isinstance(n, int)], default=sys.maxsize)

    def inputs(self, batch, length, side=None, sizes=None, keyless=False):
        """Arrays by input name, int64 for the integers of Keras.

        Args:
            batch, length, side: as in `cases`.
            sizes: dict of dimension -> its size, if that is not `length`.
            keyless: whether the last row has no key: masks, or ids if 0 is padding, are zeros.
        """
        arrays, sizes = {}, dict(sizes or {})
        self.turn += 1
        for name, tensor in self.tensors.items():
            port = self.ports[name]
            shape = [
                self._size(port.axes[axis], length, sizes) if axis and n is None else n
                for axis, n in enumerate(tensor.shape)
            ]
            if shape and shape[0] is None:
                shape[0] = batch
            array = np.asarray(self._array(port, shape, side))
            if keyless and array.ndim > 1 and self._may_mask(port):
                array[-1] = 0
            arrays[name] = array.astype(_file_dtype(tensor.dtype), copy=False)
        return arrays

    def _size(self, dimension, length, sizes):
        """The size of a dimension."""
        if dimension in self.ports.totals:
            return sum(self._size(part, length, sizes) for part in self.ports.totals[dimension])
        return sizes.get(dimension, length)

    def _may_mask(self, port):
        is_ids = self._masks_zero and port.is_integer
        return port.role == "mask" or port.dtype == "bool" or is_ids

    def masks(self, inputs):
        """list of int or bool (b, t), nonzero where outputs (b, t, ...) are compared.

        At masked positions the results of Keras differ between backends, so there is nothing to
        compare with.
        """
        mask = self.ports.first("mask")
        if mask is not None:
            return [inputs[mask.name]]
        ids = [n for n, tensor in self.tensors.items() if "int" in tensor.dtype]
        return [inputs[n] != 0 for n in ids] if self._masks_zero else []

    def _array(self, port, shape, side=None):
        if port.role == "mask":
            return draws.padding_mask(shape, side)
        if port.role == "global_mask":
            return draws.global_mask(self.random, shape, port.most_ones or 1)
        if port.dtype == "bool":
            return draws.flags(self.random, shape, self.turn - 1)
        if port.dtype == "string":
            return self.random.choice(self._words(), shape).astype(object)
        if not port.is_integer:
            return self.random.normal(size=shape)
        ids = self._integers(port, shape)
        if self._masks_zero:
            # If 0 is padding, a row of zeros only would see no token.
            ids[..., :1] = np.maximum(ids[..., :1], 1)
        return ids

    def _integers(self, port, shape):
        least, below = port.least or 0, port.below
        if below is not None:
            if (least, below) == (0, 2):
                return draws.flags(self.random, shape).astype(np.int64)
            return self.random.integers(least, max(below, least + 1), shape)
        if self.spread == (0, 2) or self.turn % 2 == 0:
            return draws.flags(self.random, shape, self.turn // 2).astype(np.int64)
        type_ = np.iinfo(self.tensors[port.name].dtype)
        least = max(self.spread[0], type_.min if port.least is None else port.least)
        return draws.integers(self.random, shape, least, min(self.spread[1], type_.max + 1))

    def _words(self):
        """The words that the model knows, and one that it does not know."""
        lookups = [x for x in all_layers(self.model) if isinstance(x, keras.layers.StringLookup)]
        return ["?!", *(word for lookup in lookups for word in lookup.get_vocabulary())]

    def for_keras(self, inputs):
        """The same inputs with the structure and the types that the Keras model needs."""
        arrays = [
            inputs[n] if t.dtype == "string" else inputs[n].astype(t.dtype)
            for n, t in self.tensors.items()
        ]
        struct = self.model.input
        if is_dict_of_tensors(struct):
            return dict(zip(self.tensors, arrays, strict=True))
        return keras.tree.pack_sequence_as(struct, arrays)


def _file_dtype(dtype):
    """The NumPy type of an input in the file. All integers in the file are int64."""
    if dtype == "string":
        return "object"
    return "int64" if "int" in dtype else "float32" if dtype == "bfloat16" else dtype
