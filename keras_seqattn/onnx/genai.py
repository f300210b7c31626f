"""genai_config.json, through which onnxruntime-genai runs a decoder bundle."""

from keras_seqattn.generation.checkpoint import checkpoint_defaults, is_set
from keras_seqattn.generation.settings import GenerationConfig
from keras_seqattn.generation.steps import is_cache, varies_per_beam
from keras_seqattn.onnx.graph import shares_caches


def special_tokens(config):
    """The special token ids that a configuration names, for generation_config.json."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    names += ("forced_bos_token_id", "forced_eos_token_id")
    return {n: config[n] for n in names if is_set(n, config.get(n))}


def runs(graph):
    """Whether onnxruntime-genai can run a decoder: its past is keys and values of one shape alone.

    Args:
        graph: the `onnx_ir.Graph`.
    """
    pasts = [i for i in graph.inputs if varies_per_beam(i.name)]
    return all(is_cache(i.name) for i in pasts) and len({_heads(i) for i in pasts}) == 1


def config(model_config, generation, graph):
    """The configuration of a decoder bundle that `runs`.

    Args:
        model_config: the HF configuration.
        generation: the content of generation_config.json.
        graph: the `onnx_ir.Graph`, which says whether past and present share one buffer.

    Raises:
        InputError: the generation settings are not valid.
    """
    tokens = {**special_tokens(model_config), **special_tokens(generation)}
    settings = GenerationConfig.from_settings(checkpoint_defaults(model_config, generation), False)
    eos = tokens.get("eos_token_id") or 0
    context = model_config.get("max_position_embeddings") or 2048
    return {
        "model": {
            "bos_token_id": tokens.get("bos_token_id", 0),
            "context_length": context,
            "decoder": _decoder(model_config, graph),
            "eos_token_id": eos,
            "pad_token_id": tokens.get("pad_token_id", eos[0] if isinstance(eos, list) else eos),
            "type": "decoder",
            "vocab_size": model_config["vocab_size"],
        },
        "search": {
            "do_sample": settings.do_sample,
            "max_length": context,
            "num_beams": 1,
            "past_present_share_buffer": shares_caches(graph),
            "repetition_penalty": settings.repetition_penalty,
            "temperature": settings.temperature,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
        },
    }


def _decoder(model_config, graph):
    pasts = [i for i in graph.inputs if is_cache(i.name)]
    groups, head_size = _heads(pasts[0])
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
        "num_attention_heads": model_config["num_attention_heads"],
        "num_hidden_layers": len(pasts) // 2,
        "num_key_value_heads": groups,
    }


def _heads(past):
    """The number of heads of a cache (b, g, past, d), and their size."""
    return past.shape[1], past.shape[3]
