"""LLaMA (https://arxiv.org/abs/2302.13971): pre-norm, rotary positions, gated feed-forward."""

from keras_seqattn.models.llama_like import DEFAULTS, llama_like

FAMILY = llama_like("llama", "Llama", DEFAULTS, {"sliding_window": (None,), "layer_types": (None,)})
