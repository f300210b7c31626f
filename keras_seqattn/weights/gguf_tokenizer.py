"""The tokenizer inside a GGUF file, written as Hugging Face tokenizer files."""

import json
import warnings

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from keras_seqattn.errors import CheckpointError

_CONTROL, _USER_DEFINED = 3, 4
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_assets(path, metadata):
    """Build tokenizer.json and tokenizer_config.json from GGUF metadata.

    Args:
        path: the file, for messages.
        metadata: the metadata of the file.

    Returns:
        dict of file name -> bytes; empty, with a warning, for a kind of tokenizer that is not
        implemented.

    Raises:
        CheckpointError: the vocabulary and the merges contradict each other.
    """
    kind, split = (
        metadata.get("tokenizer.ggml.model"),
        metadata.get("tokenizer.ggml.pre", "default"),
    )
    if kind is None:
        return {}
    if kind != "gpt2" or split not in _SPLITS:
        warnings.warn(
            f"{path}: the tokenizer (model {kind!r}, pre-tokenizer {split!r}) is not implemented, "
            f"so the model is "
            "loaded without one. Put a tokenizer.json into model.assets.",
            stacklevel=2,
        )
        return {}
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or len(set(tokens)) != len(tokens):
        raise CheckpointError(
            f"{path}: the tokenizer's vocabulary is missing or lists a token twice."
        )
    tokenizer = _tokenizer(path, metadata, tokens, _SPLITS[split]())
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode("utf-8"),
        "tokenizer_config.json": _tokenizer_config(path, metadata, tokens),
    }


def _tokenizer(path, metadata, tokens, split):
    merges = [tuple(merge.split(" ", 1)) for merge in metadata.get("tokenizer.ggml.merges", [])]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    ignore_merges = metadata.get("tokenizer.ggml.pre") == "llama-bpe"
    try:
        model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges)
    except Exception as error:
        raise CheckpointError(
            f"{path}: the tokenizer's merges do not fit its vocabulary ({error})."
        ) from error
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    kinds = metadata.get("tokenizer.ggml.token_type", [])
    for token, kind in zip(tokens, kinds, strict=False):
        if kind == _CONTROL:
            tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif kind == _USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, special=False, normalized=False)])
    # llama.cpp puts the token first for Llama 3 where the file does not say.
    if metadata.get("tokenizer.ggml.add_bos_token", ignore_merges):
        bos = _token(path, metadata, tokens, "bos_token_id")
        if bos is not None:
            bos_id = vocabulary[bos]
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, bos_id)]
            )
    return tokenizer


def _tokenizer_config(path, metadata, tokens):
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    names = {
        "bos": "bos_token_id",
        "eos": "eos_token_id",
        "pad": "padding_token_id",
        "unk": "unknown_token_id",
    }
    for name, key in names.items():
        token = _token(path, metadata, tokens, key)
        if token is not None:
            config[f"{name}_token"] = token
    if "llama.context_length" in metadata:
        config["model_max_length"] = metadata["llama.context_length"]
    if "tokenizer.chat_template" in metadata:
        config["chat_template"] = metadata["tokenizer.chat_template"]
    return json.dumps(config, indent=2, ensure_ascii=False).encode("utf-8")


def _token(path, metadata, tokens, key):
    index = metadata.get(f"tokenizer.ggml.{key}")
    if index is None:
        return None
    if not 0 <= index < len(tokens):
        raise CheckpointError(
            f"{path}: tokenizer.ggml.{key} is {index}, outside the {len(tokens)} tokens."
        )
    return tokens[index]


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
