"""Drives a decoder graph step by step, its key/value cache staying where the session computes."""

import numpy as np
from onnxruntime import OrtValue

from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.generation.steps import is_cache, output_for
from keras_seqattn.runtime.values import Logits, bind_integers, device_of, empty_cache

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
        self._device = device_of(session)
        inputs = {value.name: value for value in session.get_inputs()}
        self._has_positions = "position_ids" in inputs
        self._pasts = [value for name, value in inputs.items() if is_cache(name)]
        _check_decoder(session, self._pasts)
        self._binding = session.io_binding()
        self._logits = Logits(session)
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
            bind_integers(self._binding, name, value)
        self._logits.bind(self._binding, batch, steps)
        if not self.shared_cache:
            self._bind_growing()
        self._session.run_with_iobinding(self._binding)
        if not self.shared_cache:
            self._take_presents()
        self._length += steps
        return self._logits.last()

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
            past.name: empty_cache(past, batch_size, length, self._device) for past in self._pasts
        }

    def _bind_buffers(self):
        for name, cache in self._caches.items():
            self._binding.bind_ortvalue_input(name, cache)
            self._binding.bind_ortvalue_output(output_for(name), cache)

    def _bind_growing(self):
        for name, cache in self._caches.items():
            self._binding.bind_ortvalue_input(name, cache)
            self._binding.bind_output(output_for(name), self._device)

    def _take_presents(self):
        # Outputs come in the order in which they were first bound: the logits are first.
        presents = self._binding.get_outputs()[1:]
        self._caches = dict(zip(self._caches, presents, strict=True))


def _check_decoder(session, pasts):
    outputs = {value.name for value in session.get_outputs()}
    missing = {"logits", *(output_for(past.name) for past in pasts)} - outputs
    if missing or not pasts:
        raise BundleError(
            f"the graph is no decoder: it lacks {', '.join(sorted(missing)) or 'past_key_values'}"
        )
