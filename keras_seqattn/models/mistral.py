"""Mistral (https://arxiv.org/abs/2310.06825): LLaMA with a sliding window."""

from keras_seqattn.errors import ConfigError
from keras_seqattn.models.llama_like import DEFAULTS, llama_like, window_layer


def _layers(settings):
    window = settings["sliding_window"]
    if window is None and settings["rolling_cache"]:
        raise ConfigError("mistral: rolling_cache=True needs a sliding_window.")
    return (window_layer(settings, window),) * settings["num_hidden_layers"]


FAMILY = llama_like(
    "mistral",
    "Mistral",
    defaults={
        **DEFAULTS,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
        "rolling_cache": False,
    },
    fixed={"layer_types": (None,), "attention_bias": (False,), "mlp_bias": (False,)},
    layers=_layers,
)
