"""Drives a decoder graph step by step, its past staying where the session computes."""

import numpy as np
from onnxruntime import OrtValue

from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.generation.steps import (
    LARGEST_CHUNK,
    is_cache,
    is_streaming,
    output_for,
    varies_per_beam,
)
from keras_seqattn.runtime.values import Logits, bind_integers, device_of, empty_past, past_bytes

# Buffers are allocated in multiples of so many positions, so that the next call may reuse them.
_ROOM = 128


class OrtDecoder:
    """The decoder protocol of `keras_seqattn.generation` over an onnxruntime session.

    The outputs of one step that are the past of the next do not leave the device. With a shared
    cache each layer has one buffer (b, g, n, d) bound both as past and as present: the graph writes
    the new positions in place and nothing is copied per token. States have two buffers each, which
    take turns, so that nothing is allocated per token.

    Args:
        session: onnxruntime.InferenceSession of a graph with inputs input_ids int64 (b, t),
            attention_mask int64 (b, total), perhaps position_ids int64 (b, t), and of each layer
            either past_key_values.{i}.key/value (b, g, past, d) or past_states.{i}.{name} of a
            fixed size; outputs logits (b, t, v), present.{i}.key/value, present_states.{i}.{name}.
            With past_states.length (b,) it is streaming: attention_mask is (b, t).
        vocabulary_size: int, ids are below it.
        shared_cache: bool, the graph's attention works in place (GroupQueryAttention).

    Attributes:
        is_streaming: bool, no past grows, so that texts may have any length.
    """

    def __init__(self, session, vocabulary_size, shared_cache):
        self.vocabulary_size = vocabulary_size
        self._session = session
        self._device = device_of(session)
        inputs = {value.name: value for value in session.get_inputs()}
        self._has_positions = "position_ids" in inputs
        self.is_streaming = is_streaming(inputs)
        self._pasts = {n: value for n, value in inputs.items() if varies_per_beam(n)}
        _check_decoder(session, self._pasts)
        caches = [n for n in self._pasts if is_cache(n)]
        self.shared_cache = shared_cache
        self._shared, self._growing = (caches, []) if shared_cache else ([], caches)
        self._states = [n for n in self._pasts if not is_cache(n)]
        self._binding = session.io_binding()
        self._logits = Logits(session)
        self._values, self._next_states = {}, {}
        self._room = (0, 0)

    def room(self, rows, prompt_length, max_length, sources, source_length=0):
        """int, the least bytes that a generation takes: `rows` are the beams of all sources."""
        read = min(prompt_length, LARGEST_CHUNK) if self.is_streaming else prompt_length
        length = _with_room(max_length) if self.shared_cache else max_length
        past = past_bytes(self._pasts.values(), rows, length)
        # What is not written in place is there twice, before a step and after it.
        past *= 1 if self.shared_cache else 2
        if rows > sources:  # beams: reordering reads a buffer and writes its rows anew
            past += 2 * max(past_bytes([value], rows, length) for value in self._pasts.values())
        return self._logits.room(rows, read) + past

    def start(self, batch_size, max_length):
        """Forget the past and make room for `max_length` positions of `batch_size` rows."""
        self._max_length = max_length
        self._length = 0
        for name in self._growing + self._states:
            self._values[name] = self._empty(name, batch_size)
        self._next_states = {name: self._empty(name, batch_size) for name in self._states}
        if self._shared and (batch_size != self._room[0] or max_length > self._room[1]):
            self._bind_buffers(batch_size, _with_room(max_length))

    def __call__(self, input_ids, attention_mask):
        """Run the next tokens; float32 (b, v), the last logits, valid until the next call."""
        batch, steps = input_ids.shape
        before = self._length
        if attention_mask.shape != (batch, before + steps):
            raise InputError(
                f"attention_mask must be {(batch, before + steps)}, the past included, "
                f"not {attention_mask.shape}"
            )
        if before + steps > self._max_length:
            raise InputError(f"the sequence is longer than the {self._max_length} tokens planned")
        chunk = LARGEST_CHUNK if self.is_streaming else steps
        for start in range(0, steps, chunk):
            ids = input_ids[:, start : start + chunk]
            self._run(ids, attention_mask[:, : before + start + ids.shape[1]])
        return self._logits.last()

    def reorder(self, rows):
        """Let row i go on from the past of row `rows[i]`."""
        rows = np.asarray(rows)
        if (rows == np.arange(len(rows))).all():
            return
        for name, value in self._values.items():
            moved = np.ascontiguousarray(value.numpy()[rows])
            if name in self._shared:
                value.update_inplace(moved)
            else:
                self._values[name] = self._value(moved)

    def _run(self, input_ids, attention_mask):
        batch, steps = input_ids.shape
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.is_streaming:
            feeds["attention_mask"] = attention_mask[:, -steps:]
        if self._has_positions:
            positions = np.maximum(attention_mask.cumsum(axis=1) - 1, 0)
            feeds["position_ids"] = positions[:, -steps:]
        for name, value in feeds.items():
            bind_integers(self._binding, name, value)
        self._logits.bind(self._binding, batch, steps)
        self._bind_past()
        self._session.run_with_iobinding(self._binding)
        self._take_presents()
        self._length += steps

    def _bind_past(self):
        for name in self._states:
            self._binding.bind_ortvalue_input(name, self._values[name])
            self._binding.bind_ortvalue_output(output_for(name), self._next_states[name])
        for name in self._growing:
            self._binding.bind_ortvalue_input(name, self._values[name])
            self._binding.bind_output(output_for(name), self._device)

    def _take_presents(self):
        for name in self._states:
            self._values[name], self._next_states[name] = (
                self._next_states[name],
                self._values[name],
            )
        if self._growing:
            # Outputs come in the order in which they were first bound: these are the last.
            presents = self._binding.get_outputs()[-len(self._growing) :]
            self._values.update(zip(self._growing, presents, strict=True))

    def _bind_buffers(self, *room):
        for name in self._shared:
            cache = self._values[name] = self._empty(name, *room)
            self._binding.bind_ortvalue_input(name, cache)
            self._binding.bind_ortvalue_output(output_for(name), cache)
        self._room = room

    def _empty(self, name, *sizes):
        return self._value(empty_past(self._pasts[name], *sizes))

    def _value(self, array):
        return OrtValue.ortvalue_from_numpy(array, self._device)


def _with_room(length):
    """The positions of a buffer for `length`."""
    return -(-length // _ROOM) * _ROOM


def _check_decoder(session, pasts):
    outputs = {value.name for value in session.get_outputs()}
    missing = {"logits", *map(output_for, pasts)} - outputs
    if missing or not pasts:
        lacks = ", ".join(sorted(missing)) or "past_key_values"
        raise BundleError(f"the graph is not a decoder: it lacks {lacks}")
