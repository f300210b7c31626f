"""Decoders for generations that run at the same time: one each, used again afterwards."""

import collections
import contextlib


class DecoderPool:
    """Lends each generation a decoder of its own, so that no two meet in one cache.

    Any number may be lent at once. Of those that come back the last few are kept with their
    buffers, which is quicker than new memory; the others' memory is given back.

    Args:
        make: callable `() -> decoder` that follows the protocol of `keras_seqattn.generation`.
        most_idle: int, how many decoders are kept while nothing runs.

    Attributes:
        example: a decoder that is never lent: it says what all have in common.
    """

    def __init__(self, make, most_idle=2):
        self.example = make()
        self._make = make
        # A lock would not do: a stream may be collected, and end, while its own thread holds it.
        # Taking from a deque and adding to it are atomic, and a full one drops what is oldest.
        self._idle = collections.deque(maxlen=most_idle)

    @contextlib.contextmanager
    def lend(self):
        """A decoder for the length of a `with` block.

        After an error it is not lent again: its buffers may be half replaced.
        """
        try:
            decoder = self._idle.pop()
        except IndexError:
            decoder = self._make()
        try:
            yield decoder
        except GeneratorExit:  # of a stream that nobody reads any more: between two steps
            self._idle.append(decoder)
            raise
        self._idle.append(decoder)
