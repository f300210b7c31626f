"""The metadata of a GGUF file. Each method checks the type of the entry that it returns."""

import numpy as np

from keras_seqattn.arguments import shown
from keras_seqattn.errors import CheckpointError

# The default of an entry that must be there.
REQUIRED = object()


class Metadata:
    """The entries of a GGUF file, with checks.

    A method raises `CheckpointError` if an entry has another type, or if it is missing and there is
    no default.

    Args:
        path: the file, for messages.
        entries: dict, as in `GGUFFile.metadata`.
        prefix: the methods put this before each key.
    """

    def __init__(self, path, entries, prefix=""):
        self.path = path
        self._entries = entries
        self._prefix = prefix

    def get(self, key, default=None):
        """An entry without a check, or the default."""
        return self._entries.get(self._prefix + key, default)

    def integer(self, key, default=REQUIRED, least=1):
        """A whole number of at least `least`, below 2**31."""
        return self._checked(
            key,
            default,
            lambda value: type(value) is int and least <= value < 2**31,
            f"a whole number from {least} to 2**31 - 1",
        )

    def positive_float(self, key, default=REQUIRED):
        """A float above 0: the shortest decimal number that is equal in float32.

        A file stores 1e-5 as 9.99999975e-06; the result is 1e-5.
        """
        value = self._checked(
            key,
            default,
            lambda value: type(value) in (int, float) and 0 < value < 3e38,
            "a number above 0",
        )
        return float(str(np.float32(value)))

    def string(self, key, default=REQUIRED):
        """A str."""
        return self._checked(key, default, lambda value: isinstance(value, str), "a text")

    def boolean(self, key, default=REQUIRED):
        """True or false."""
        return self._checked(key, default, lambda value: isinstance(value, bool), "true or false")

    def strings(self, key, default=REQUIRED):
        """A list of str."""
        return self._checked(
            key,
            default,
            lambda value: isinstance(value, list) and all(isinstance(x, str) for x in value),
            "a list of texts",
        )

    def token_id(self, name, count):
        """The id of a special token, such as "bos"; None if the file has none.

        Args:
            name: the key is `tokenizer.ggml.<name>_token_id`.
            count: number of tokens; the id must be smaller.
        """
        key = f"tokenizer.ggml.{name}_token_id"
        if self.get(key) is None:
            return None
        token = self.integer(key, least=0)
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
