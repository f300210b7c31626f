"""Drives a decoder graph step by step, its key/value cache staying where the session computes."""

import math

import numpy as np
from onnxruntime import OrtValue

from keras_seqattn.errors import BundleError, InputError

_PAST, _PRESENT = "past_key_values.", "present."
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
# Buffers are allocated in multiples of so many positions, so that the next call may reuse them.
_CHUNK = 128


class OrtDecoder:
    """The decoder protocol of `keras_seqattn.generation` over an onnxruntime session.

    With a shared cache each layer has one buffer (b, g, n, d) bound both as past and as present:
    the graph writes the new positions in place and nothing is copied per token. Otherwise the
    present outputs of one step are the past inputs of the next, without leaving the device.

    Args:
        session: onnxruntime.InferenceSession of a graph with inputs input_ids int64 (b, t),
            attention_mask int64 (b, total), perhaps position_ids int64 (b, t), and
            past_key_values.{i}.key/value (b, g, past, d); outputs logits (b, t, v) and
            present.{i}.key/value.
        vocabulary_size: int, ids are below it.
        shared_cache: bool, the graph's attention works in place (GroupQueryAttention).
    """

    def __init__(self, session, vocabulary_size, shared_cache):
        self.vocabulary_size = vocabulary_size
        self.shared_cache = shared_cache
        self._session = session
        self._device = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"
        inputs = {value.name: value for value in session.get_inputs()}
        self._has_positions = "position_ids" in inputs
        self._pasts = [value for name, value in inputs.items() if name.startswith(_PAST)]
        logits = _check_decoder(session, self._pasts)
        self._logits_type = _dtype(logits)
        self._logits_width = logits.shape[-1]
        self._binding = session.io_binding()
        self._logits = None
        self._logits_buffer = np.empty(0, self._logits_type)
        self._caches = {}
        self._room = (0, 0)

    def start(self, batch_size, max_length):
        """Forget the past and make room for `max_length` positions of `batch_size` rows."""
        self._max_length = max_length
        self._length = 0
        if not self.shared_cache:
            self._caches = self._allocate(batch_size, 0)
        elif batch_size != self._room[0] or max_length > self._room[1]:
            self._room = (batch_size, -(-max_length // _CHUNK) * _CHUNK)
            self._caches = self._allocate(*self._room)
            self._bind_buffers()

    def __call__(self, input_ids, attention_mask):
        """Run the next tokens; float32 (b, v), the last logits, valid until the next call."""
        batch, steps = input_ids.shape
        if attention_mask.shape != (batch, self._length + steps):
            raise InputError(
                f"attention_mask must be {(batch, self._length + steps)}, the past included, "
                f"not {attention_mask.shape}"
            )
        if self._length + steps > self._max_length:
            raise InputError(f"the sequence is longer than the {self._max_length} tokens planned")
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self._has_positions:
            positions = np.maximum(attention_mask.cumsum(axis=1) - 1, 0)
            feeds["position_ids"] = positions[:, -steps:]
        for name, value in feeds.items():
            # The binding points into the array, and keeps it alive, until the next one.
            self._binding.bind_cpu_input(name, np.ascontiguousarray(value, np.int64))
        logits = self._bind_logits(batch, steps)
        if not self.shared_cache:
            self._bind_growing()
        self._session.run_with_iobinding(self._binding)
        if not self.shared_cache:
            self._take_presents()
        self._length += steps
        return logits[:, -1].astype(np.float32, copy=False)

    def reorder(self, rows):
        """Let row i go on from the past of row `rows[i]`."""
        rows = np.asarray(rows)
        if (rows == np.arange(len(rows))).all():
            return
        for name, cache in self._caches.items():
            moved = np.ascontiguousarray(cache.numpy()[rows])
            if self.shared_cache:
                cache.update_inplace(moved)
            else:
                self._caches[name] = OrtValue.ortvalue_from_numpy(moved, self._device)

    def _allocate(self, batch_size, length):
        return {
            past.name: OrtValue.ortvalue_from_numpy(
                np.zeros((batch_size, past.shape[1], length, past.shape[3]), _dtype(past)),
                self._device,
            )
            for past in self._pasts
        }

    def _bind_buffers(self):
        for name, cache in self._caches.items():
            self._binding.bind_ortvalue_input(name, cache)
            self._binding.bind_ortvalue_output(_present(name), cache)

    def _bind_growing(self):
        for name, cache in self._caches.items():
            self._binding.bind_ortvalue_input(name, cache)
            self._binding.bind_output(_present(name), self._device)

    def _take_presents(self):
        # Outputs come in the order in which they were first bound: the logits are first.
        presents = self._binding.get_outputs()[1:]
        self._caches = dict(zip(self._caches, presents, strict=True))

    def _bind_logits(self, batch, steps):
        shape = (batch, steps, self._logits_width)
        if self._logits is None or self._logits.shape != shape:
            size = math.prod(shape)
            # The logits of a prompt are large, and fresh memory costs time page by page.
            if self._logits_buffer.size < size:
                self._logits_buffer = np.empty(size, self._logits_type)
            self._logits = self._logits_buffer[:size].reshape(shape)
            pointer = self._logits.ctypes.data
            self._binding.bind_output("logits", "cpu", 0, self._logits_type, shape, pointer)
        return self._logits


def _check_decoder(session, pasts):
    """The logits output, if the graph is a decoder that can be driven."""
    outputs = {value.name: value for value in session.get_outputs()}
    missing = {"logits", *(_present(past.name) for past in pasts)} - set(outputs)
    if missing or not pasts:
        raise BundleError(
            f"the graph is no decoder: it lacks {', '.join(sorted(missing)) or _PAST}"
        )
    sizes = [past.shape[axis] for past in pasts for axis in (1, 3)]
    if not all(isinstance(size, int) for size in [*sizes, outputs["logits"].shape[-1]]):
        raise BundleError("the heads, head size and vocabulary of a decoder graph must be static")
    return outputs["logits"]


def _present(past_name):
    return past_name.replace(_PAST, _PRESENT)


def _dtype(value):
    if value.type not in _FLOATS:
        raise BundleError(f"{value.name} is {value.type}; float and float16 are supported")
    return _FLOATS[value.type]
