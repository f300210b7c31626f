"""One small layer of each kind that works on a sequence, for what all of them have to keep."""

from keras_seqattn import layers
from keras_seqattn.layers import mechanisms

WIDTH = 24
# As many as `POSITIONS` says are the most.
POSITIONS = 64


def _attention(mechanism=None, **settings):
    def make(dtype="float32"):
        template = mechanism and mechanism()
        return layers.MultiHeadAttention(2, 6, attention=template, dtype=dtype, **settings)

    return make


def _layer(kind, *arguments, **settings):
    return lambda dtype="float32": getattr(layers, kind)(*arguments, dtype=dtype, **settings)


LAYERS = {
    "attention": _attention(),
    "causal": _attention(causal=True),
    "window": _attention(causal=True, window=(3, 0)),
    "sinks": _attention(sinks=True),
    "softcap": _attention(softcap=5.0),
    "rotary": _attention(positions=layers.RotaryPositions(6)),
    "alibi": _attention(positions=layers.ALiBi(2)),
    "norms": _attention(query_norm="rms_norm", key_norm="layer_norm"),
    "gate": _attention(output_gate=True),
    "grouped": _layer("MultiHeadAttention", 4, 6, 2),
    "block_sparse": _attention(lambda: mechanisms.BlockSparse(4, 1)),
    "strided": _attention(lambda: mechanisms.Strided(3), causal=True),
    "fixed": _attention(lambda: mechanisms.Fixed(4, 1)),
    "global_local": _attention(lambda: mechanisms.GlobalLocal(3, 2, 2)),
    "hierarchical": _attention(lambda: mechanisms.Hierarchical(4)),
    "hierarchical_causal": _attention(lambda: mechanisms.Hierarchical(4), causal=True),
    "linear": _attention(mechanisms.Linearized),
    "linear_causal": _attention(mechanisms.Linearized, causal=True),
    "linformer": _attention(lambda: mechanisms.Linformer(4, POSITIONS)),
    "local": _attention(lambda: mechanisms.Local(3, 3)),
    "dilated": _attention(lambda: mechanisms.Local(3, 3, 2)),
    "performer": _attention(lambda: mechanisms.Performer(16)),
    "performer_causal": _attention(lambda: mechanisms.Performer(16), causal=True),
    "sink_local": _attention(lambda: mechanisms.SinkLocal(2, 4), causal=True),
    "gated_linear": _layer("GatedLinearAttention", 2, 6),
    "gated_delta": _layer("GatedDelta", 2, 6),
    "state_space": _layer("StateSpace", 2, 6, 8),
    "short_convolution": _layer("ShortConvolution", 3),
    "transformer_xl": _layer("TransformerXLAttention", 2, 6, 12),
    "latent": _layer("LatentAttention", 2, 6, 4, 8),
    "encoder_block": _layer("EncoderBlock", 2, 6, 31),
    "decoder_block": _layer("DecoderBlock", 2, 6, 31),
    "feed_forward": _layer("FeedForward", 31),
    "maxout": _layer("Maxout", 7),
    "reverse_time": _layer("ReverseTime"),
}
# Those that take a state: the number of tokens before is not part of their shapes.
STATES = (
    "hierarchical_causal",
    "linear_causal",
    "performer_causal",
    "sink_local",
    "gated_linear",
    "gated_delta",
    "state_space",
    "short_convolution",
)


def takes_mask(layer):
    """Whether the layer's call takes an `attention_mask`."""
    return not isinstance(layer, layers.FeedForward | layers.Maxout | layers.ReverseTime)


def zero_state(layer, batch):
    """A state of no tokens, by what the layer says of it."""
    import numpy as np

    shapes = layer.state_shapes().values()
    return tuple(np.zeros((batch, *shape), dtype or "float32") for shape, dtype in shapes)
