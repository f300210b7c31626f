"""The metadata of a GGUF file, read by kind: a caller gets what it asks for or an error."""

import numpy as np

from keras_seqattn.arguments import shown
from keras_seqattn.errors import CheckpointError

# What an entry is where there must be one.
REQUIRED = object()


class Metadata:
    """The entries of a GGUF file, with checks.

    Args:
        path: the file, for messages.
        entries: dict, as of `GGUFFile.metadata`.
        prefix: what the keys start with that are asked for.
    """

    def __init__(self, path, entries, prefix=""):
        self.path = path
        self._entries = entries
        self._prefix = prefix

    def get(self, key, default=None):
        """An entry as it is, or the default."""
        return self._entries.get(self._prefix + key, default)

    def whole(self, key, default=REQUIRED, least=1):
        """A whole number of at least `least`, below 2**31."""
        return self._checked(
            key,
            default,
            lambda value: type(value) is int and least <= value < 2**31,
            f"a whole number from {least} to 2**31 - 1",
        )

    def number(self, key, default=REQUIRED):
        """A float above 0: the shortest decimal that is the same float32, as 1e-5 is stored as
        9.99999975e-06."""
        value = self._checked(
            key,
            default,
            lambda value: type(value) in (int, float) and 0 < value < 3e38,
            "a number above 0",
        )
        return float(str(np.float32(value)))

    def text(self, key, default=REQUIRED):
        """A text."""
        return self._checked(key, default, lambda value: isinstance(value, str), "a text")

    def flag(self, key, default=REQUIRED):
        """True or false."""
        return self._checked(key, default, lambda value: isinstance(value, bool), "true or false")

    def texts(self, key, default=REQUIRED):
        """A list of texts."""
        return self._checked(
            key,
            default,
            lambda value: isinstance(value, list) and all(isinstance(x, str) for x in value),
            "a list of texts",
        )

    def token(self, name, count):
        """The number of a special token, such as "bos", or None.

        Args:
            name: what `tokenizer.ggml.` and `_token_id` stand around.
            count: of tokens, which it must be below.
        """
        key = f"tokenizer.ggml.{name}_token_id"
        if self.get(key) is None:
            return None
        token = self.whole(key, least=0)
        if token >= count:
            raise CheckpointError(f"{self.path}: {key} is {token}, outside the {count} tokens.")
        return token

    def _checked(self, key, default, accepts, kind):
        value = self.get(key, default)
        if value is REQUIRED:
            raise CheckpointError(f"{self.path}: the metadata lacks {self._prefix + key!r}.")
        if value is not default and not accepts(value):
            raise CheckpointError(
                f"{self.path}: {self._prefix + key} must be {kind}, not {shown(value)}."
            )
        return value
