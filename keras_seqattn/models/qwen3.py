"""Qwen3 (https://arxiv.org/abs/2505.09388): LLaMA with RMS norms over each query and key head."""

from keras_seqattn.models.config import check_layer_types
from keras_seqattn.models.llama_like import DEFAULTS, llama_like, window_layer
from keras_seqattn.models.values import FLAG, Whole


def _layers(settings):
    """layer_types says which layers have the window; without it, all from max_window_layers on."""
    window = settings["sliding_window"] if settings["use_sliding_window"] else None
    count, first = settings["num_hidden_layers"], settings["max_window_layers"]
    kinds = settings["layer_types"]
    if kinds is None:
        kinds = ["sliding_attention" if i >= first else "full_attention" for i in range(count)]
    check_layer_types("qwen3", kinds, ("sliding_attention", "full_attention"), count)
    slides = [window and kind == "sliding_attention" for kind in kinds]
    return tuple(window_layer(settings, window if slide else None) for slide in slides)


FAMILY = llama_like(
    "qwen3",
    "Qwen3",
    defaults={
        **DEFAULTS,
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "max_position_embeddings": 32768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "rolling_cache": False,
        "max_window_layers": 28,
        "layer_types": None,
    },
    fixed={"mlp_bias": (False,)},
    layers=_layers,
    keys={"use_sliding_window": FLAG, "max_window_layers": Whole(0)},
    block={"query_norm": "rms_norm", "key_norm": "rms_norm"},
)
