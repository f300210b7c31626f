"""config.json and the other files of a bundle, from a causal language model of keras-hub."""

import json

# The class of a backbone -> model_type and architecture of Hugging Face. Other runtimes take the
# sizes of the caches from a configuration of a known type.
_TYPES = {
    "GPT2Backbone": ("gpt2", "GPT2LMHeadModel"),
    "LlamaBackbone": ("llama", "LlamaForCausalLM"),
    "Llama3Backbone": ("llama", "LlamaForCausalLM"),
    "GemmaBackbone": ("gemma", "GemmaForCausalLM"),
    "Gemma3Backbone": ("gemma3_text", "Gemma3ForCausalLM"),
    "MistralBackbone": ("mistral", "MistralForCausalLM"),
    "MixtralBackbone": ("mixtral", "MixtralForCausalLM"),
    "QwenBackbone": ("qwen2", "Qwen2ForCausalLM"),
    "QwenMoeBackbone": ("qwen2_moe", "Qwen2MoeForCausalLM"),
    "Qwen3Backbone": ("qwen3", "Qwen3ForCausalLM"),
    "Qwen3MoeBackbone": ("qwen3_moe", "Qwen3MoeForCausalLM"),
    "Phi3Backbone": ("phi3", "Phi3ForCausalLM"),
    "FalconBackbone": ("falcon", "FalconForCausalLM"),
    "OPTBackbone": ("opt", "OPTForCausalLM"),
    "BloomBackbone": ("bloom", "BloomForCausalLM"),
    "GPTNeoXBackbone": ("gpt_neox", "GPTNeoXForCausalLM"),
    "GptOssBackbone": ("gpt_oss", "GptOssForCausalLM"),
    "SmolLM3Backbone": ("smollm3", "SmolLM3ForCausalLM"),
}
# The same, and the first token of a decoder whose model has no preprocessor.
_SEQ2SEQ_TYPES = {
    "BartBackbone": ("bart", "BartForConditionalGeneration", 2),
    "T5Backbone": ("t5", "T5ForConditionalGeneration", 0),
}
# Keys of config.json -> names of the same number in backbones of keras-hub, the usual one first.
_NUMBERS = {
    "hidden_size": ("hidden_dim",),
    "intermediate_size": ("intermediate_dim",),
    "num_attention_heads": ("num_query_heads", "num_attention_heads", "num_heads"),
}
_LIMITS = ("max_sequence_length", "max_position_embeddings")
_WINDOWS = ("sliding_window", "sliding_window_size")
# Families whose Hugging Face configuration has other names than most.
_RENAMED = {
    "gpt2": {
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "n_inner",
        "max_position_embeddings": "n_positions",
    },
    "bloom": {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
}


def hub_limit(source):
    """The maximum number of tokens of a row, or None."""
    backbone = source.backbone
    # Rotary positions have no table. These numbers only say how the model was trained.
    tables = [
        layer.sequence_length
        for layer in backbone._flatten_layers()
        if type(layer).__name__ == "PositionEmbedding"
    ]
    return min(tables, default=None)


def has_window(source):
    """Whether some attention sees only the nearest tokens."""
    return _window(source.backbone) is not None


def hub_config(source, cache_shape):
    """dict, the content of config.json.

    Args:
        source: a `keras_hub.models.CausalLM`.
        cache_shape: (number of layers, number of heads, size of a head) of keys and values.
    """
    backbone = source.backbone
    layers, heads, size = cache_shape
    family, architecture = _TYPES.get(type(backbone).__name__, (None, None))
    config = {
        "vocab_size": backbone.vocabulary_size,
        "num_hidden_layers": layers,
        "num_key_value_heads": heads,
        "head_dim": size,
        "is_encoder_decoder": False,
    }
    numbers = {key: _first(backbone, names) for key, names in _NUMBERS.items()}
    longest = hub_limit(source) or _first(backbone, _LIMITS)
    numbers |= {"max_position_embeddings": longest, "sliding_window": _window(backbone)}
    config |= {key: number for key, number in numbers.items() if number is not None}
    config |= _special_tokens(source)
    for key, other in _RENAMED.get(family, {}).items():
        if key in config:
            config[other] = config.pop(key)
    if family is not None:
        config |= {"model_type": family, "architectures": [architecture]}
    return config


def hub_seq2seq_config(source, cache_shape):
    """dict, the content of config.json of an encoder-decoder. Arguments as for `hub_config`."""
    backbone = source.backbone
    layers, heads, size = cache_shape
    family, architecture, start = _SEQ2SEQ_TYPES.get(type(backbone).__name__, (None, None, None))
    config = {"vocab_size": backbone.vocabulary_size, "is_encoder_decoder": True}
    config |= {"d_model": int(backbone.hidden_dim)} | _special_tokens(source)
    if start is not None:
        config.setdefault("decoder_start_token_id", start)
    if family == "bart":
        for side in ("encoder", "decoder"):
            config |= {f"{side}_layers": layers, f"{side}_attention_heads": heads}
            config[f"{side}_ffn_dim"] = int(backbone.intermediate_dim)
    else:
        config |= {"num_layers": layers, "num_decoder_layers": layers}
        config |= {
            "num_heads": heads,
            "d_kv": size,
            "d_ff": _first(backbone, ("intermediate_dim",)),
        }
    longest = hub_limit(source)
    if longest is not None:
        config["max_position_embeddings"] = longest
    if family is not None:
        config |= {"model_type": family, "architectures": [architecture]}
    return config


def hub_assets(source):
    """dict of file name -> bytes: generation settings, and the tokenizer if it is byte-level BPE.

    A SentencePiece tokenizer has no tokenizer.json in keras-hub. For such a model give the folder
    of a tokenizer to `export`.
    """
    files = {"generation_config.json": _json(_sampling(source) | _special_tokens(source))}
    tokenizer = _tokenizer(source)
    merges = getattr(tokenizer, "merges", None)
    if merges is not None and getattr(tokenizer, "vocabulary", None):
        files["tokenizer.json"] = _byte_level(tokenizer, source.preprocessor).encode()
        files["tokenizer_config.json"] = _json(_token_names(tokenizer))
    return files


def _sampling(source):
    """The settings of generation that have the same effect as the sampler of the model."""
    sampler = getattr(source, "sampler", None)
    kind = type(sampler).__name__
    settings = {"do_sample": False}
    if kind in ("TopKSampler", "TopPSampler", "RandomSampler"):
        settings = {"do_sample": True, "temperature": float(sampler.temperature), "top_k": 0}
        settings["top_k"] = int(getattr(sampler, "k", None) or 0)
        settings["top_p"] = float(getattr(sampler, "p", 1.0))
    elif kind == "BeamSampler":
        settings["num_beams"] = int(sampler.num_beams)
    return settings


def _special_tokens(source):
    tokenizer = _tokenizer(source)
    ids = {
        "bos_token_id": getattr(tokenizer, "start_token_id", None),
        "eos_token_id": getattr(tokenizer, "end_token_id", None),
        "pad_token_id": getattr(tokenizer, "pad_token_id", None),
    }
    # The decoder of a sequence-to-sequence model begins with these tokens.
    first = getattr(getattr(source, "preprocessor", None), "decoder_packer", None)
    start = getattr(first, "start_value", None)
    starts = list(start) if isinstance(start, (list, tuple)) else [start]
    ids["decoder_start_token_id"] = starts[0]
    ids["forced_bos_token_id"] = starts[1] if len(starts) == 2 else None
    return {name: int(number) for name, number in ids.items() if number is not None}


def _tokenizer(source):
    return getattr(getattr(source, "preprocessor", None), "tokenizer", None)


def _token_names(tokenizer):
    names = {"bos_token": "start_token", "eos_token": "end_token", "pad_token": "pad_token"}
    found = {name: getattr(tokenizer, other, None) for name, other in names.items()}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    return kind | {name: token for name, token in found.items() if isinstance(token, str)}


def _byte_level(tokenizer, preprocessor):
    """tokenizer.json of a byte-level BPE tokenizer."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors

    merges = [tuple(merge.split(" ")) for merge in tokenizer.merges if "#version:" not in merge]
    made = tokenizers.Tokenizer(models.BPE(vocab=dict(tokenizer.vocabulary), merges=merges))
    special = [t for t in tokenizer.unsplittable_tokens or () if t in tokenizer.vocabulary]
    names = [name for name in _token_names(tokenizer).values() if name in tokenizer.vocabulary]
    made.add_special_tokens(sorted({*special, *names}))
    known = getattr(tokenizer, "_tokenizer", None)
    if known is not None:
        made.pre_tokenizer = known.pre_tokenizer
    else:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(tokenizer.add_prefix_space)
    made.decoder = decoders.ByteLevel()
    start = getattr(tokenizer, "start_token", None)
    if getattr(preprocessor, "add_start_token", False) and start is not None:
        made.post_processor = processors.TemplateProcessing(
            single=f"{start} $A",
            pair=f"{start} $A $B",
            special_tokens=[(start, tokenizer.start_token_id)],
        )
    return made.to_str()


def _window(backbone):
    uses = getattr(backbone, "use_sliding_window_attention", True)
    return _first(backbone, _WINDOWS) if uses else None


def _first(backbone, names):
    found = (getattr(backbone, name, None) for name in names)
    return next((int(n) for n in found if n is not None), None)


def _json(content):
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
