"""The tokenizer of a checkpoint (tokenizer.json), with the tokenizers library."""

import contextlib
import threading

from keras_seqattn import arguments
from keras_seqattn.arguments import flag, integer, shown
from keras_seqattn.errors import BundleError, InputError, first_line
from keras_seqattn.json_objects import parse_object

# Number of lengths for which a truncating backend is kept. A model uses one length.
_MOST_LIMITS = 2
# The library loops over all ids up to the largest one. Vocabularies have at most a million ids.
_MOST_IDS = 1 << 24


class Tokenizer:
    """Texts to token ids and back. Threads may share it.

    Args:
        assets: dict of file name -> bytes: tokenizer.json, and perhaps tokenizer_config.json.

    Raises:
        BundleError: tokenizer.json is missing or cannot be read.
    """

    def __init__(self, assets):
        if "tokenizer.json" not in assets:
            raise BundleError("there is no tokenizer.json: give token ids instead of text")
        with _explained(BundleError, "tokenizer.json cannot be read"):
            self._backend = _backend(bytes(assets["tokenizer.json"]).decode("utf-8"))
            self.vocabulary = self._backend.get_vocab(with_added_tokens=False)
            self.added_tokens = self._backend.get_added_tokens_decoder()
        if self.vocabulary_size > _MOST_IDS:
            raise BundleError(
                f"tokenizer.json gives a token the id {self.vocabulary_size - 1}, and ids must be "
                f"below {_MOST_IDS}"
            )
        self.config = parse_object(
            assets.get("tokenizer_config.json", b"{}"), "tokenizer_config.json"
        )
        self.max_length = _max_length(self.config)
        self._truncating, self._lock = {}, threading.Lock()
        self._pad_id = self._find_pad_id()

    @property
    def vocabulary_size(self):
        """int, one more than the highest token id."""
        return max([*self.vocabulary.values(), *self.added_tokens], default=-1) + 1

    def encode(self, text, special_tokens=True):
        """List of int, the token ids of one text."""
        arguments.text(text)
        flag(special_tokens, "special_tokens")
        with _explained(InputError, "the text cannot be tokenized"):
            return self._backend.encode(text, add_special_tokens=special_tokens).ids

    def encode_batch(self, texts, pairs=None, max_length=None):
        """Encodings of the tokenizers library, unpadded, with special tokens.

        Args:
            texts: list of str.
            pairs: None, or a list of str, the second text of each pair.
            max_length: None, or int; longer texts are cut to it, and special tokens are kept.
        """
        inputs = texts = arguments.texts(texts)
        if pairs is not None:
            pairs = arguments.texts(pairs, "pairs")
            if len(pairs) != len(texts):
                raise InputError(f"there are {len(texts)} texts and {len(pairs)} pairs")
            inputs = list(zip(texts, pairs, strict=True))
        if max_length is not None:
            integer(max_length, "max_length", least=1, most=2**32 - 1)
        backend = self._backend if max_length is None else self._backend_of(max_length)
        with _explained(InputError, "the texts cannot be tokenized"):
            return backend.encode_batch(inputs)

    def _backend_of(self, max_length):
        """A backend that truncates. Each length has its own, so calls do not affect each other."""
        with self._lock:
            if max_length not in self._truncating:
                with _explained(BundleError, f"texts cannot be cut to {max_length} tokens"):
                    backend = _backend(self._backend.to_str())
                    backend.enable_truncation(max_length)
                while len(self._truncating) >= _MOST_LIMITS:
                    del self._truncating[next(iter(self._truncating))]
                self._truncating[max_length] = backend
            return self._truncating[max_length]

    def special_token_id(self, token):
        """int, the id of a special token by its text, or None. Pieces of words do not count."""
        added = self.added_tokens.items()
        found = [i for i, entry in added if entry.special and entry.content == token]
        return found[0] if found else None

    def decode(self, ids, special_tokens=False):
        """The text of a list of token ids. Special tokens are left out unless asked for."""
        flag(special_tokens, "special_tokens")
        with _explained(InputError, "the token ids cannot be decoded"):
            return self._backend.decode(ids, skip_special_tokens=not special_tokens)

    def special_tokens(self):
        """dict of name -> text of the special tokens: bos_token, eos_token, pad_token, ..."""
        found = {}
        for name, value in self.config.items():
            text = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(text, str):
                found[name] = text
        return found

    @property
    def pad_id(self):
        """int, the id for padding. Padding is masked, so any value works."""
        return self._pad_id

    def token_id(self, token):
        """int, the id of a token by its text, or None."""
        return self._backend.token_to_id(token)

    def _find_pad_id(self):
        names = self.special_tokens()
        for name in ("pad_token", "eos_token"):
            identity = self.token_id(names.get(name, ""))
            if identity is not None:
                return identity
        return 0


@contextlib.contextmanager
def _explained(kind, what):
    """Turn all errors of the library into one kind. A panic of its Rust code is no Exception."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise kind(f"{what}: {first_line(error)}") from None


def _max_length(config):
    limit = config.get("model_max_length")
    if limit is None:
        return None
    # `not limit >= 1` below is true for NaN, too.
    is_number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
    if not is_number or not limit >= 1:
        raise BundleError(
            f"tokenizer_config.json: model_max_length is {shown(limit)}, and must be a number of "
            "at least 1"
        )
    # transformers writes 1e30 for "unknown".
    return int(limit) if limit < 1e9 else None


def _backend(content):
    """The tokenizer of the tokenizers library for the content of a tokenizer.json."""
    from tokenizers import Tokenizer as Backend

    backend = Backend.from_str(content)
    # A saved truncation or padding would change the result.
    backend.no_truncation()
    backend.no_padding()
    return backend
