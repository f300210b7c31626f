"""From token ids to text while it is being made: whole characters, and no stop string."""

# What decoders write for bytes that are no character (yet).
_REPLACEMENT = "\ufffd"
# A UTF-8 character has at most 4 bytes, so at most 3 of them can be waiting for the last.
_MOST_WAITING = 3


class Detokenizer:
    """Turns token ids into text, one at a time, holding back characters that are incomplete.

    Args:
        decode: callable `list of ids -> str`.
        context: ids that come before the first one; they are not part of the text, but decide for
            instance whether it starts with a space.
    """

    def __init__(self, decode, context=()):
        self._decode = decode
        self._ids = list(context)
        self._context = len(self._ids)
        self._given = len(decode(self._ids)) if self._ids else 0

    def push(self, token):
        """Take one more token id; return the text that it completes, perhaps empty."""
        self._ids.append(int(token))
        text = self._decode(self._ids)
        held = len(text) - len(text.rstrip(_REPLACEMENT))
        piece = text[self._given : len(text) - min(held, _MOST_WAITING)]
        self._given += len(piece)
        if piece and not held:
            # Only the tokens of this piece stay, as the context of the next one: the work per
            # token is constant, and the context begins and ends with a whole character.
            self._ids = self._ids[self._context :]
            self._context = len(self._ids)
            self._given = len(self._decode(self._ids))
        return piece

    def finish(self):
        """Return what was held back, incomplete as it is."""
        return self._decode(self._ids)[self._given :]


class StopStrings:
    """Passes text on until one of `stop_strings` occurs, which it never passes on, even in part."""

    def __init__(self, stop_strings):
        self._stop_strings = tuple(stop_strings)
        self._held = ""
        self.found = False

    def push(self, text):
        """Take more text; return what can no longer be part of a stop string."""
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
        """Return the text held back, now that nothing follows it."""
        held, self._held = self._held, ""
        return held

    def _possible(self, text):
        """The length of the longest end of `text` with which a stop string may begin."""
        longest = max((len(stop) for stop in self._stop_strings), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stop_strings):
                return size
        return 0


class TextStream:
    """The text of one row while it is generated: `Detokenizer`, then `StopStrings`."""

    def __init__(self, decode, context=(), stop_strings=()):
        self._detokenizer = Detokenizer(decode, context)
        self._stop = StopStrings(stop_strings)

    @property
    def stopped(self):
        """bool, whether a stop string has occurred."""
        return self._stop.found

    def push(self, token):
        """Take one more token id; return the text that is certain by now."""
        return self._stop.push(self._detokenizer.push(token))

    def finish(self):
        """Return the rest of the text, after the last token."""
        return self._stop.push(self._detokenizer.finish()) + self._stop.finish()
