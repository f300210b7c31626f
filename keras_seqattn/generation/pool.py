"""Decoders for generations that run at the same time: each has its own, and they are reused."""

import collections
import contextlib


class DecoderPool:
    """Lends each generation its own decoder, so that two generations never share a cache.

    Any number of decoders may be lent at once. When decoders come back, the last few are kept with
    their buffers, because that is faster than new memory. The memory of the others is freed.

    Args:
        make: callable `() -> decoder`. The decoder follows the protocol of
            `keras_seqattn.generation`.
        most_idle: int, the maximum number of decoders that are kept while nothing runs.

    Attributes:
        example: a decoder that is never lent. It says what all decoders have in common.
    """

    def __init__(self, make, most_idle=2):
        self.example = make()
        self._make = make
        # A lock would not work: the garbage collector may end a stream while the thread of that
        # stream holds the lock. To take from a deque and to add to it is atomic, and a full deque
        # drops its oldest item.
        self._idle = collections.deque(maxlen=most_idle)

    @contextlib.contextmanager
    def lend(self):
        """A decoder for the time of a `with` block.

        After an error the decoder is not lent again: perhaps only some of its buffers were
        replaced.
        """
        try:
            decoder = self._idle.pop()
        except IndexError:
            decoder = self._make()
        try:
            yield decoder
        except GeneratorExit:  # nobody reads the stream any more; it is between two steps
            self._idle.append(decoder)
            raise
        self._idle.append(decoder)
