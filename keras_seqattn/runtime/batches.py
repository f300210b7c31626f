"""Puts texts of similar length into one batch, so that there is little padding."""

import numpy as np

from keras_seqattn.arguments import flag, integer
from keras_seqattn.errors import InputError


def length_batches(tokenizer, texts, pairs=None, *, max_length=None, batch_size=32, truncate=True):
    """Yield (indices into texts, their encodings). The longest texts come first.

    Args:
        tokenizer: Tokenizer.
        texts: list of str.
        pairs: None, or a list of str, the second text of each pair.
        max_length: None, or int, the maximum number of tokens for the model.
        batch_size: int, number of texts per batch.
        truncate: bool, cut texts that are too long. With False they are an error.

    Raises:
        InputError: an item is not a str, or it is too long.
    """
    batch_size = integer(batch_size, "batch_size", least=1)
    flag(truncate, "truncate")
    encodings = tokenizer.encode_batch(texts, pairs, max_length=max_length if truncate else None)
    lengths = np.array([len(encoding.ids) for encoding in encodings])
    if (lengths == 0).any():
        raise InputError("a text is empty: it has no token")
    if max_length is not None and lengths.max(initial=0) > max_length:
        raise InputError(
            f"a text has {lengths.max()} tokens, and the model takes {max_length}: "
            "shorten it or pass truncate=True"
        )
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        yield indices, [encodings[i] for i in indices]
