"""Mistral (https://arxiv.org/abs/2310.06825): LLaMA with a sliding window."""

from keras_seqattn.models.llama import DEFAULTS, llama_like


def _layers(settings):
    """A window of W keys counts the query's own."""
    window = settings["sliding_window"]
    return ({"window": window and (window - 1, 0)},) * settings["num_hidden_layers"]


FAMILY = llama_like(
    "mistral",
    "Mistral",
    defaults={
        **DEFAULTS,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    fixed={"layer_types": (None,), "attention_bias": (False,), "mlp_bias": (False,)},
    layers=_layers,
)
