"""Makes text of token ids step by step: only whole characters, and no stop string."""

# Decoders write this character for bytes that are no (complete) character.
_REPLACEMENT = "\ufffd"
# A UTF-8 character has at most 4 bytes, so at most 3 of them can wait for the last one.
_MOST_WAITING = 3


class Detokenizer:
    """Turns token ids into text, one at a time. It holds back incomplete characters.

    Args:
        decode: callable `list of ids -> str`.
        context: ids that come before the first one. They are not part of the text, but they may
            decide, for example, whether it starts with a space.
    """

    def __init__(self, decode, context=()):
        self._decode = decode
        self._ids = list(context)
        self._context = len(self._ids)
        self._given = len(decode(self._ids)) if self._ids else 0

    def push(self, token):
        """Take one more token id. Return the text that it completes; it may be empty."""
        self._ids.append(int(token))
        text = self._decode(self._ids)
        held = len(text) - len(text.rstrip(_REPLACEMENT))
        piece = text[self._given : len(text) - min(held, _MOST_WAITING)]
        self._given += len(piece)
        if piece and not held:
            # Only the tokens of this piece stay, as the context of the next piece. So the work per
            # token is constant, and the context begins and ends with a whole character.
            self._ids = self._ids[self._context :]
            self._context = len(self._ids)
            self._given = len(self._decode(self._ids))
        return piece

    def finish(self):
        """Return the text that was held back, even if it is incomplete."""
        return self._decode(self._ids)[self._given :]


class StopStrings:
    """Passes text on until a stop string occurs. No part of a stop string is passed on."""

    def __init__(self, stop_strings):
        self._stop_strings = tuple(stop_strings)
        self._held = ""
        self.found = False

    def push(self, text):
        """Take more text. Return the text that cannot become part of a stop string any more."""
        if self.found:
            return ""
        text = self._held + text
        ends = [at for stop in self._stop_strings if (at := text.find(stop)) >= 0]
        if ends:
            self.found, self._held = True, ""
            return text[: min(ends)]
        cut = len(text) - self._possible(text)
        self._held = text[cut:]
        return text[:cut]

    def finish(self):
        """Return the text that was held back, because nothing follows it."""
        held, self._held = self._held, ""
        return held

    def _possible(self, text):
        """The length of the longest end of `text` that may be the start of a stop string."""
        longest = max((len(stop) for stop in self._stop_strings), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stop_strings):
                return size
        return 0


class TextStream:
    """The text of one row while it is generated: first `Detokenizer`, then `StopStrings`."""

    def __init__(self, decode, context=(), stop_strings=()):
        self._detokenizer = Detokenizer(decode, context)
        self._stop = StopStrings(stop_strings)

    @property
    def stopped(self):
        """bool, whether a stop string has occurred."""
        return self._stop.found

    def push(self, token):
        """Take one more token id. Return the text that can be passed on now."""
        return self._stop.push(self._detokenizer.push(token))

    def finish(self):
        """Return the rest of the text, after the last token."""
        return self._stop.push(self._detokenizer.finish()) + self._stop.finish()
