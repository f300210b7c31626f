"""genai_config.json, through which onnxruntime-genai runs a decoder bundle."""


def special_tokens(config):
    """The special token ids that a configuration names, for generation_config.json."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    names += ("forced_bos_token_id", "forced_eos_token_id")
    return {n: config[n] for n in names if config.get(n) is not None}


def config(model_config, generation, target):
    """The configuration of a decoder bundle.

    Args:
        model_config: the HF configuration.
        generation: the content of generation_config.json.
        target: the export target; with GroupQueryAttention past and present share one buffer.
    """
    tokens = {**special_tokens(model_config), **special_tokens(generation)}
    eos = tokens.get("eos_token_id", 0)
    heads = model_config["num_attention_heads"]
    context = model_config.get("max_position_embeddings", 2048)
    return {
        "model": {
            "bos_token_id": tokens.get("bos_token_id", 0),
            "context_length": context,
            "decoder": _decoder(model_config, heads),
            "eos_token_id": eos,
            "pad_token_id": tokens.get("pad_token_id", eos[0] if isinstance(eos, list) else eos),
            "type": "decoder",
            "vocab_size": model_config["vocab_size"],
        },
        "search": {
            "do_sample": bool(generation.get("do_sample", False)),
            "max_length": context,
            "num_beams": 1,
            "past_present_share_buffer": target.supports("GroupQueryAttention"),
            "repetition_penalty": float(generation.get("repetition_penalty", 1.0)),
            "temperature": float(generation.get("temperature", 1.0)),
            "top_k": int(generation.get("top_k", 50)),
            "top_p": float(generation.get("top_p", 1.0)),
        },
    }


def _decoder(model_config, heads):
    head_size = model_config.get("head_dim") or model_config["hidden_size"] // heads
    return {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": "model.onnx",
        "head_size": head_size,
        "hidden_size": model_config["hidden_size"],
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
        "num_attention_heads": heads,
        "num_hidden_layers": model_config["num_hidden_layers"],
        "num_key_value_heads": model_config.get("num_key_value_heads") or heads,
    }
