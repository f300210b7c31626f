"""genai_config.json, the configuration with which onnxruntime-genai runs a decoder bundle."""

from keras_seqattn.generation.checkpoint import checkpoint_defaults, is_set, position_limit
from keras_seqattn.generation.settings import GenerationConfig
from keras_seqattn.onnx.graph import shares_caches
from keras_seqattn.onnx.passes.matching import inputs_of_role, port_of
from keras_seqattn.ports.names import CACHE_FORMS

# The inputs that onnxruntime-genai gives a decoder besides its past.
_INPUTS = {"tokens": "input_ids", "mask": "attention_mask", "positions": "position_ids"}
# The attributes of attention nodes with the number of heads.
_HEADS = ("num_heads", "q_num_heads")


def special_tokens(config):
    """The special token ids in a configuration, for generation_config.json."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    names += ("forced_bos_token_id", "forced_eos_token_id")
    return {n: config[n] for n in names if is_set(n, config.get(n))}


def config(model_config, generation, graph):
    """The configuration of a decoder bundle.

    Args:
        model_config: the Hugging Face configuration.
        generation: the content of generation_config.json.
        graph: the `onnx_ir.Graph`. It has the sizes, and says whether past and present share one
            buffer.

    Returns:
        dict, or None if onnxruntime-genai cannot run the graph. It needs a past of only keys and
        values of one shape, and the inputs tokens, mask and positions.

    Raises:
        InputError: the generation settings are not valid.
    """
    decoder, logits = _decoder(model_config, graph), _last(_output(graph, "logits"))
    if decoder is None or logits is None:
        return None
    tokens = {**special_tokens(model_config), **special_tokens(generation)}
    settings = GenerationConfig.from_settings(checkpoint_defaults(model_config, generation), False)
    eos = tokens.get("eos_token_id") or 0
    context = position_limit(model_config) or 2048
    return {
        "model": {
            "bos_token_id": tokens.get("bos_token_id", 0),
            "context_length": context,
            "decoder": decoder,
            "eos_token_id": eos,
            "pad_token_id": tokens.get("pad_token_id", eos[0] if isinstance(eos, list) else eos),
            "type": "decoder",
            "vocab_size": logits,
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
    """The section for the graph, or None."""
    caches = inputs_of_role(graph, "cache")
    shapes = {_heads(value) for value in caches}
    others = {port_of(value).role: value.name for value in graph.inputs if value not in caches}
    heads, width = _query_heads(graph), _width(graph)
    heads = heads or _known(model_config, "num_attention_heads", "n_head")
    width = width or _known(model_config, "hidden_size", "n_embd", "d_model")
    fits = others.items() <= _INPUTS.items() and len(shapes) == 1
    groups, head_size = shapes.pop() if fits else (None, None)
    if not all(isinstance(n, int) for n in (groups, head_size, heads, width)):
        return None
    return {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": "model.onnx",
        "head_size": head_size,
        "hidden_size": width,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": CACHE_FORMS["past_key"],
            "past_value_names": CACHE_FORMS["past_value"],
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": CACHE_FORMS["present_key"],
            "present_value_names": CACHE_FORMS["present_value"],
        },
        "num_attention_heads": heads,
        "num_hidden_layers": len(caches) // 2,
        "num_key_value_heads": groups,
    }


def _heads(past):
    """The number of heads of a cache (b, g, past, d), and their size."""
    return past.shape[1], past.shape[3]


def _query_heads(graph):
    """The number of heads of the attention nodes, or None if it is not the same in all."""
    nodes = [node for node in graph if node.op_type in ("Attention", "GroupQueryAttention")]
    attributes = [node.attributes for node in nodes]
    found = {a[name].value for a in attributes for name in _HEADS if name in a}
    return found.pop() if len(found) == 1 else None


def _width(graph):
    """The width of the input of the last product, which makes the logits, or None."""
    value = _output(graph, "logits")
    while value is not None and value.producer() is not None:
        node = value.producer()
        value = node.inputs[0] if node.inputs else None
        if "MatMul" in node.op_type:
            return _last(value)
    return None


def _output(graph, name):
    return next((value for value in graph.outputs if value.name == name), None)


def _last(value):
    """The size of the last axis, or None if it is not known."""
    size = None if value is None or value.shape is None else value.shape[-1]
    return size if isinstance(size, int) else None


def _known(model_config, *names):
    return next((model_config[name] for name in names if name in model_config), None)
