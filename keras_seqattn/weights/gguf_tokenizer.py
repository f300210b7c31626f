"""The tokenizer inside a GGUF file, written as Hugging Face tokenizer files."""

import json
import warnings

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from keras_seqattn.arguments import shown
from keras_seqattn.errors import CheckpointError

_CONTROL, _USER_DEFINED = 3, 4
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_assets(metadata, count):
    """Build tokenizer.json and tokenizer_config.json from GGUF metadata.

    Args:
        metadata: the `Metadata` of the file.
        count: number of token vectors in the model.

    Returns:
        dict of file name -> bytes. If the kind of tokenizer is not implemented, it is empty, and
        there is a warning.

    Raises:
        CheckpointError: an entry has the wrong type, or the vocabulary, the merges and the vectors
            contradict each other.
    """
    kind = metadata.string("tokenizer.ggml.model", None)
    split = metadata.string("tokenizer.ggml.pre", "default")
    if kind is None:
        return {}
    if kind != "gpt2" or split not in _SPLITS:
        warnings.warn(
            f"{metadata.path}: the tokenizer (model {shown(kind)}, pre-tokenizer {shown(split)}) "
            "is not implemented, so the model is loaded without one. Put a tokenizer.json into "
            "model.assets.",
            stacklevel=2,
        )
        return {}
    tokens = metadata.strings("tokenizer.ggml.tokens", [])
    if not tokens or len(set(tokens)) != len(tokens):
        raise CheckpointError(
            f"{metadata.path}: the tokenizer's vocabulary is missing or lists a token twice."
        )
    if len(tokens) > count:
        raise CheckpointError(
            f"{metadata.path}: the tokenizer has {len(tokens)} tokens, and the model vectors for "
            f"{count}."
        )
    return {
        "tokenizer.json": _tokenizer(metadata, tokens, split).to_str(pretty=True).encode("utf-8"),
        "tokenizer_config.json": _tokenizer_config(metadata, tokens),
    }


def _tokenizer(metadata, tokens, split):
    merges = [tuple(merge.split(" ")) for merge in metadata.strings("tokenizer.ggml.merges", [])]
    special, added = _added_tokens(metadata, tokens)
    ignore_merges = split == "llama-bpe"
    # If the file does not say it, llama.cpp puts the token first for Llama 3 only.
    puts_bos = metadata.boolean("tokenizer.ggml.add_bos_token", ignore_merges)
    bos = metadata.token_id("bos", len(tokens)) if puts_bos else None
    vocabulary = {token: index for index, token in enumerate(tokens)}
    try:
        model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges)
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = _SPLITS[split]()
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        tokenizer.add_special_tokens(special)
        tokenizer.add_tokens(added)
        if bos is not None:
            tokenizer.post_processor = _first_token(tokens[bos], bos)
    except Exception as error:  # the library is written in Rust and may raise any error
        raise CheckpointError(
            f"{metadata.path}: the tokenizer's merges or special tokens do not fit its vocabulary "
            f"({shown(str(error))})."
        ) from error
    return tokenizer


def _added_tokens(metadata, tokens):
    """The tokens that are never split: control tokens, and user-defined tokens."""
    key = "tokenizer.ggml.token_type"
    kinds = metadata.get(key, [])
    if not isinstance(kinds, list) or kinds and len(kinds) != len(tokens):
        raise CheckpointError(
            f"{metadata.path}: {key} must be a list with a number for each of the {len(tokens)} "
            "tokens."
        )
    return tuple(
        [
            AddedToken(token, special=kind == _CONTROL, normalized=False)
            for token, own in zip(tokens, kinds, strict=False)
            if own == kind and token
        ]
        for kind in (_CONTROL, _USER_DEFINED)
    )


def _first_token(bos, index):
    return processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, index)]
    )


def _tokenizer_config(metadata, tokens):
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    for name, key in names.items():
        index = metadata.token_id(key, len(tokens))
        if index is not None:
            config[f"{name}_token"] = tokens[index]
    length = metadata.integer("llama.context_length", None)
    if length is not None:
        config["model_max_length"] = length
    template = metadata.string("tokenizer.chat_template", None)
    if template is not None:
        config["chat_template"] = template
    return json.dumps(config, indent=2, ensure_ascii=False).encode("utf-8")


def _gpt2():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm():
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _llama3():
    split = pre_tokenizers.Split(Regex(_LLAMA3_SPLIT), behavior="isolated")
    return pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


# Values of tokenizer.ggml.pre.
_SPLITS = {"gpt-2": _gpt2, "default": _gpt2, "smollm": _smollm, "llama-bpe": _llama3}
