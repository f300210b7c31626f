"""The inputs of a model, made from arrays or texts, and their tokens."""

import dataclasses

import numpy as np

from keras_seqattn import arguments
from keras_seqattn.errors import InputError
from keras_seqattn.models.functional import port_of


@dataclasses.dataclass(frozen=True)
class PreparedInputs:
    """The arrays for a call of a model, and their tokens as in `AttentionScores`."""

    arrays: dict
    tokens: list | None = None
    decoder_tokens: list | None = None
    target_tokens: list | None = None


def prepare_inputs(model, inputs, targets, settings):
    """Make the inputs with which `analysis.attention` calls the model.

    Args:
        model: a Keras model whose inputs are a dict.
        inputs, targets, settings: as in `analysis.attention`.

    Returns:
        PreparedInputs.

    Raises:
        InputError: inputs are missing or have another kind, or there is no tokenizer.
    """
    if not isinstance(getattr(model, "input", None), dict) and not hasattr(model, "layers"):
        raise InputError(f"attention needs a Keras model, not {type(model).__name__}")
    tokenizer = _tokenizer(model)
    if isinstance(inputs, dict):
        if targets is not None or settings:
            raise InputError("arrays hold everything: put decoder_input_ids among the inputs")
        return _from_arrays(model, inputs, tokenizer)
    if tokenizer is None:
        raise InputError("texts need tokenizer.json in model.assets: give arrays of token ids")
    encodings, names = tokenizer.encode_batch(_texts(inputs)), _names(model)
    sources = [encoding.ids for encoding in encodings]
    pad = tokenizer.pad_id
    given = {
        "tokens": _pad(sources, pad),
        "mask": _mask(sources),
        "token_types": _pad([encoding.type_ids for encoding in encodings], 0),
    }
    arrays = {names[role]: array for role, array in given.items() if role in names}
    if "targets" not in names:
        if targets is not None or settings:
            raise InputError(f"{model.name} has no decoder that could take or make targets")
        return PreparedInputs(arrays, _pieces(tokenizer, sources))
    decoded = _decoder_ids(model, sources, targets, settings, tokenizer)
    arrays[names["targets"]] = _pad([ids[:-1] for ids in decoded], pad)
    pieces = _pieces(tokenizer, decoded)
    return PreparedInputs(
        arrays,
        _pieces(tokenizer, sources),
        [row[:-1] for row in pieces],
        [row[1:] for row in pieces],
    )


def _names(model):
    """dict of role -> the name of the first input of that role."""
    names = {}
    for name, tensor in model.input.items():
        names.setdefault(port_of(name, tensor).role, name)
    return names


def _from_arrays(model, inputs, tokenizer):
    missing = sorted(set(model.input) - set(inputs))
    if missing:
        raise InputError(f"{model.name} also needs {', '.join(missing)}")
    arrays, names = {name: np.asarray(inputs[name]) for name in model.input}, _names(model)
    if tokenizer is None or "tokens" not in names:
        return PreparedInputs(arrays)
    ids = arrays[names["tokens"]]
    mask = arrays[names["mask"]] if "mask" in names else np.ones_like(ids)
    tokens = _pieces(tokenizer, [row[real != 0] for row, real in zip(ids, mask, strict=True)])
    decoder_tokens = None
    if "targets" in names:
        decoder_tokens = _pieces(tokenizer, arrays[names["targets"]])
    return PreparedInputs(arrays, tokens, decoder_tokens)


def _decoder_ids(model, sources, targets, settings, tokenizer):
    """For every row: the start token, the target, and the tokens after its last token."""
    start, end = model.config["decoder_start_token_id"], model.config["eos_token_id"]
    if targets is None:
        from keras_seqattn.generation.api import generate

        rows = generate(model, sources, tokenizer=tokenizer, **settings)
    else:
        rows = [encoding.ids for encoding in tokenizer.encode_batch(_texts(targets))]
        if len(rows) != len(sources):
            raise InputError(f"there are {len(sources)} inputs and {len(rows)} targets")
    return [[start, *row] if row and row[-1] == end else [start, *row, end] for row in rows]


def _tokenizer(model):
    assets = getattr(model, "assets", None) or {}
    if "tokenizer.json" not in assets:
        return None
    from keras_seqattn.runtime.tokenizer import Tokenizer

    return Tokenizer(assets)


def _texts(texts):
    is_list = isinstance(texts, list | tuple) and texts and all(isinstance(x, str) for x in texts)
    if not is_list and not isinstance(texts, str):
        raise InputError("give a text, a list of texts, or a dict of arrays")
    return arguments.texts(texts)


def _pieces(tokenizer, rows):
    return [[tokenizer.decode([int(i)], special_tokens=True) for i in row] for row in rows]


def _pad(rows, value):
    array = np.full((len(rows), max(map(len, rows))), value, "int32")
    for row, ids in zip(array, rows, strict=True):
        row[: len(ids)] = ids
    return array


def _mask(rows):
    return (np.arange(max(map(len, rows))) < [[len(ids)] for ids in rows]).astype("int32")
