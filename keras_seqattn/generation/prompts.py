"""Makes one checked batch, padded on one side, of the prompts that users give."""

import dataclasses

import numpy as np

from keras_seqattn import arguments
from keras_seqattn.arguments import shown
from keras_seqattn.errors import InputError
from keras_seqattn.memory import check_memory


@dataclasses.dataclass(frozen=True)
class Prompts:
    """A batch of prompts.

    Args:
        input_ids: int64 (b, t), padded on one side; or features, float32 (b, t, f).
        attention_mask: int64 (b, t), 1 = real token.
        kind: "text", "list" or "array", the form of the answers.
        single: bool, the user gave one prompt, not a batch.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    kind: str
    single: bool

    def rows(self):
        """List of lists of int, the ids of each prompt without padding."""
        pairs = zip(self.input_ids, self.attention_mask, strict=True)
        return [ids[mask != 0].tolist() for ids, mask in pairs]


def prepare_prompts(inputs, attention_mask, *, encode, vocabulary_size, padding, side="left"):
    """Make a batch of the prompts that the user gave.

    Args:
        inputs: a text, a list of texts, a list of token ids, a list of such lists, or an integer
            array (t,) or (b, t).
        attention_mask: None, or int (b, t) with an array: 1 = real token, padded on the left (with
            side "right", padded on either side).
        encode: callable `text -> list of int`, or None if there is no tokenizer.
        vocabulary_size: int, ids must be below it.
        padding: int, the id that fills rows which are shorter than the longest.
        side: "left" for the prompts of a decoder, or "right" for those of an encoder.

    Raises:
        InputError: prompts are empty, have a wrong type, or hold ids out of range.
    """
    if isinstance(inputs, str) or _is_list_of(inputs, str):
        if attention_mask is not None:
            raise InputError(
                "attention_mask goes with token ids only; for texts, it follows from the texts"
            )
        if encode is None:
            raise InputError("text was given, but there is no tokenizer: pass token ids")
        texts = arguments.texts(inputs, "the prompt")
        ids, mask = pad([encode(text) for text in texts], padding, side)
        kind, single = "text", isinstance(inputs, str)
    elif isinstance(inputs, (list, tuple)) or hasattr(inputs, "__array__"):
        ids, mask, kind, single = _from_ids(inputs, attention_mask, padding, side)
    else:
        raise InputError(
            "the prompt must be a text, a list of texts, a list of token ids, a list of such lists "
            f"or an integer array, not {shown(inputs)}"
        )
    check_token_ids(ids, vocabulary_size)
    return Prompts(ids, mask, kind, single)


def prepare_features(inputs, attention_mask, count):
    """Make a batch of the features that the user gave.

    Args:
        inputs: float (t, f) or (b, t, f), or something that NumPy makes into such an array.
        attention_mask: None, or int (b, t): 1 = real, padded on the right.
        count: int f, the number of features.

    Raises:
        InputError: the features have a wrong type or shape, or are not finite.
    """
    if isinstance(inputs, str):
        raise InputError(f"the model reads features, float (b, t, {count}), and no text")
    array = as_array(inputs, "the features")
    single = array.ndim == 2
    array = array[None] if single else array
    if array.dtype.kind not in "fiu" or array.ndim != 3 or array.shape[2] != count:
        raise InputError(
            f"the features must be numbers (b, t, {count}), not {array.dtype} {array.shape}"
        )
    if not array.size or not np.isfinite(array).all():
        raise InputError("the features must be finite numbers, and at least one row of them")
    mask = np.ones(array.shape[:2], np.int64)
    if attention_mask is not None:
        mask = np.atleast_2d(as_integers(attention_mask, _MASK))
        if mask.shape != array.shape[:2]:
            raise InputError(f"{_MASK} is {mask.shape}, but the features are {array.shape}")
        _check_mask(mask, "right")
        if (mask[:, 0] == 0).any():
            raise InputError(f"{_MASK} must be padded on the right: ones first, then zeros")
    return Prompts(array.astype(np.float32), mask, "array", single)


def first_tokens(attention_mask):
    """The default global tokens: int64 (b, t), 1 for the first real token of each row.

    Args:
        attention_mask: int (b, t), 1 = real token.
    """
    counts = np.cumsum(attention_mask, axis=1)
    return ((counts == 1) & (np.asarray(attention_mask) == 1)).astype(np.int64)


def check_token_ids(ids, vocabulary_size, name="input_ids"):
    """Raise InputError unless all of `ids` are token ids below `vocabulary_size`."""
    wrong = ids[(ids < 0) | (ids >= vocabulary_size)]
    if wrong.size:
        raise InputError(
            f"{name} holds the token id {int(wrong[0])}, and the vocabulary has ids "
            f"0 to {vocabulary_size - 1}"
        )


def as_integers(values, name="input_ids"):
    """`values` as an int64 array; InputError if they are not whole numbers."""
    array = as_array(values, name)
    if array.dtype.kind not in "iu":
        raise InputError(f"{name} must hold integers, not {array.dtype}")
    # Numbers that int64 cannot hold would become negative.
    if array.dtype == np.uint64 and array.size and array.max() > _LARGEST:
        raise InputError(f"{name} must hold integers below 2**63, not {int(array.max())}")
    return array.astype(np.int64, copy=False)


def as_array(values, name="input_ids"):
    """`values` as a NumPy array; InputError if that is not possible."""
    try:
        array = np.asarray(values)
    except Exception as error:  # other libraries raise any error; NumPy raises ValueError
        ragged = isinstance(error, ValueError) and isinstance(values, (list, tuple))
        reason = "ragged: give rows of one length" if ragged else f"not an array: {shown(error)}"
        raise InputError(f"{name} is {reason}") from None
    # A broadcast array needs little memory, but its copies may need very much.
    size = 2 * array.size * max(8, array.itemsize)
    check_memory(size, f"copies of {name} {array.shape}", "give fewer elements")
    return array


def _is_list_of(inputs, kind):
    return (
        isinstance(inputs, (list, tuple))
        and bool(inputs)
        and all(isinstance(x, kind) for x in inputs)
    )


def _from_ids(inputs, attention_mask, padding, side):
    if _is_list_of(inputs, (list, tuple)):
        if attention_mask is None:
            rows = [as_integers(row) if row else np.empty(0, np.int64) for row in inputs]
            if any(row.ndim != 1 for row in rows):
                raise InputError("input_ids is nested too deep: give a list of lists of token ids")
            return *pad(rows, padding, side), "list", False
        kind = "list"
    elif isinstance(inputs, (list, tuple)):
        kind = "list"
    else:
        kind = "array"
    is_empty = kind == "list" and not inputs
    ids = as_integers(np.empty(0, np.int64) if is_empty else inputs)
    if ids.ndim not in (1, 2) or ids.size == 0:
        raise InputError(
            f"input_ids must be (t,) or (b, t) with at least one token, not {ids.shape}"
        )
    single = ids.ndim == 1
    mask = np.ones_like(ids) if attention_mask is None else as_integers(attention_mask, _MASK)
    if mask.shape != ids.shape:
        raise InputError(f"{_MASK} is {mask.shape}, but input_ids is {ids.shape}")
    ids, mask = np.atleast_2d(ids), np.atleast_2d(mask)
    _check_mask(mask, side)
    if side == "right":
        rows = [row[kept == 1] for row, kept in zip(ids, mask, strict=True)]
        return *pad(rows, padding, side), kind, single
    return np.where(mask == 1, ids, padding), mask, kind, single


_MASK = "attention_mask"
_LARGEST = np.iinfo(np.int64).max


def _check_mask(mask, side):
    if not np.isin(mask, (0, 1)).all():
        raise InputError("attention_mask must hold 0 and 1 only")
    runs = (np.diff(mask, axis=1, prepend=0) > 0).sum(axis=1)
    if side == "right":
        if (runs != 1).any():
            raise InputError(
                "attention_mask must be padded on one side: each row needs at least one 1, and no "
                "0 between ones"
            )
    elif (runs != 1).any() or (mask[:, -1] == 0).any():
        raise InputError("attention_mask must be padded on the left: zeros first, then ones")


def pad(rows, padding, side):
    """Make a batch of rows of ids.

    Args:
        rows: list of int sequences, none empty.
        padding: int, the id that fills rows which are shorter than the longest.
        side: "left" or "right".

    Returns:
        input_ids int64 (b, t) and attention_mask int64 (b, t), 1 = real token.

    Raises:
        InputError: a row is empty.
    """
    if not all(len(row) for row in rows):
        raise InputError("a prompt is empty: it needs at least one token")
    length = max(map(len, rows))
    ids = np.full((len(rows), length), padding, np.int64)
    mask = np.zeros((len(rows), length), np.int64)
    for i, row in enumerate(rows):
        place = slice(length - len(row), None) if side == "left" else slice(len(row))
        ids[i, place] = row
        mask[i, place] = 1
    return ids, mask
