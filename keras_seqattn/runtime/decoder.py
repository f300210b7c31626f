"""Runs a decoder graph step by step. Its past stays on the device of the session."""

import numpy as np
from onnxruntime import OrtValue

from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.generation.room import LARGEST_CHUNK
from keras_seqattn.runtime.values import (
    Logits,
    bind_array,
    check_pasts,
    device_of,
    empty_past,
    past_bytes,
)

# The size of a buffer is a multiple of this number, so that the next call may reuse the buffer.
_ROOM = 128


class OrtDecoder:
    """The decoder protocol of `keras_seqattn.generation` with an onnxruntime session.

    Outputs of one step that are the past of the next step stay on the device. With a shared cache,
    each layer has one buffer (b, g, n, d), which is bound both as past and as present. The graph
    writes new positions in place, and nothing is copied per token. Each state has two buffers, used
    in turns, so that nothing is allocated per token.

    Args:
        session: Session of a graph. The roles of its `Ports` are: inputs tokens int (b, t), a mask
            int (b, total) and perhaps positions int (b, t); for each layer either caches
            (b, g, past, d) or states of a fixed size, each with an output that follows it; an
            output logits (b, t, v). With an input length (b,), the graph is streaming, and the
            mask is (b, t).
        vocabulary_size: int, ids are below it.
        shared_cache: bool, whether the attention works in place (GroupQueryAttention).

    Attributes:
        is_streaming: bool, whether no past grows. Texts may then have any length.
    """

    def __init__(self, session, vocabulary_size, shared_cache):
        self.vocabulary_size = vocabulary_size
        self._session = session
        self._device = device_of(session)
        ports = session.ports
        _check_decoder(ports)
        self._tokens, self._mask = ports.first("tokens"), ports.first("mask")
        self._positions = ports.first("positions")
        self.is_streaming = ports.is_streaming
        self._pasts = {port.name: port for port in ports.pasts}
        caches = [port.name for port in ports.of_role("cache")]
        self.shared_cache = shared_cache
        self._shared, self._growing = (caches, []) if shared_cache else ([], caches)
        self._states = [name for name in self._pasts if name not in caches]
        self._binding = session.io_binding()
        self._logits = Logits(ports)
        self._values, self._next_states = {}, {}
        self._room = (0, 0)

    def room(self, rows, prompt_length, max_length, sources, source_length=0):
        """int, the minimum number of bytes of a generation. `rows` are the beams of all sources."""
        read = min(prompt_length, LARGEST_CHUNK) if self.is_streaming else prompt_length
        length = _with_room(max_length) if self.shared_cache else max_length
        past = past_bytes(self._pasts.values(), rows, length)
        # Values that are not written in place exist twice: before a step and after it.
        past *= 1 if self.shared_cache else 2
        if rows > sources:  # beams: `reorder` reads a buffer and writes its rows to a new one
            past += 2 * max(past_bytes([port], rows, length) for port in self._pasts.values())
        return self._logits.room(rows, read) + past

    def start(self, batch_size, max_length):
        """Forget the past, and make room for `max_length` positions of `batch_size` rows."""
        self._max_length = max_length
        self._length = 0
        for name in self._growing + self._states:
            self._values[name] = self._empty(name, batch_size)
        self._next_states = {name: self._empty(name, batch_size) for name in self._states}
        if self._shared and (batch_size != self._room[0] or max_length > self._room[1]):
            self._bind_buffers(batch_size, _with_room(max_length))

    def __call__(self, input_ids, attention_mask):
        """Run the next tokens. float32 (b, v), the last logits, valid until the next call."""
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
        """Continue row i from the past of row `rows[i]`."""
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
        mask = attention_mask[:, -steps:] if self.is_streaming else attention_mask
        bind_array(self._binding, self._tokens, input_ids)
        bind_array(self._binding, self._mask, mask)
        if self._positions is not None:
            positions = np.maximum(attention_mask.cumsum(axis=1) - 1, 0)
            bind_array(self._binding, self._positions, positions[:, -steps:])
        self._logits.bind(self._binding, batch, steps)
        self._bind_past()
        self._session.run_with_iobinding(self._binding)
        self._take_presents()
        self._length += steps

    def _bind_past(self):
        for name in self._states:
            self._binding.bind_ortvalue_input(name, self._values[name])
            self._binding.bind_ortvalue_output(self._pasts[name].follows, self._next_states[name])
        for name in self._growing:
            self._binding.bind_ortvalue_input(name, self._values[name])
            self._binding.bind_output(self._pasts[name].follows, self._device)

    def _take_presents(self):
        for name in self._states:
            self._values[name], self._next_states[name] = (
                self._next_states[name],
                self._values[name],
            )
        if self._growing:
            # The outputs are in the order in which they were first bound. These are the last ones.
            presents = self._binding.get_outputs()[-len(self._growing) :]
            self._values.update(zip(self._growing, presents, strict=True))

    def _bind_buffers(self, *room):
        for name in self._shared:
            cache = self._values[name] = self._empty(name, *room)
            self._binding.bind_ortvalue_input(name, cache)
            self._binding.bind_ortvalue_output(self._pasts[name].follows, cache)
        self._room = room

    def _empty(self, name, *sizes):
        return self._value(empty_past(self._pasts[name], *sizes))

    def _value(self, array):
        return OrtValue.ortvalue_from_numpy(array, self._device)


def _with_room(length):
    """The number of positions of a buffer for `length` tokens."""
    return -(-length // _ROOM) * _ROOM


def _check_decoder(ports):
    missing = [role for role in ("tokens", "mask") if ports.first(role) is None]
    if ports.given("logits") is None:
        missing.append("logits")
    if not ports.pasts:
        missing.append("a past (caches or states)")
    if missing:
        raise BundleError(f"the graph is not a decoder: it lacks {', '.join(missing)}")
    check_pasts(ports)
