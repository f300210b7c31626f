"""Random layers: arguments right and wrong, shapes down to nothing, masks, dtypes, states."""

import inspect

import keras
import numpy as np

from keras_seqattn import layers
from keras_seqattn.layers import mechanisms
from tests.fuzz.harness import attempt
from tests.helpers import to_numpy
from tests.layers.zoo import takes_mask, zero_state

# What else than right arguments is given. Of each, a refusal in words or a layer that works.
HOSTILE = (
    0, -1, 1, 3, 2.5, 10**30, -(10**30), True, False, None, "x", "", "relu", b"x", [], [1], (3,),
    (1, 2), (-1, 0), (None, None), ("a", "b"), {}, {"a": 1}, float("nan"), float("inf"), 1e-300,
    1e308, object(), np.array([1, 2]), np.int64(2), np.float32(0.5), "\ud800", "a" * 1000,
    keras.layers.Dense, lambda x: 2 * x,
)  # fmt: skip
# A layer that is built belongs to one case.
HOSTILE_LAYERS = (
    lambda: keras.layers.Dense(2),
    lambda: keras.layers.LeakyReLU(0.2),
    lambda: layers.FeedForward(3, activation=keras.layers.ReLU(6.0)),
)
# Else Keras makes no lambda from a configuration.
keras.config.enable_unsafe_deserialization()


def case(random, folder):
    """Make a layer; call it, if it can be made; make it again from its configuration."""
    choose = _Chooser(random)
    kind, settings = choose(*KINDS)(choose)
    hostile = random.random() < 0.5
    if hostile:
        for _ in range(int(random.integers(1, 3))):
            settings[choose(*[*settings, *_optional(kind)])] = choose(
                *HOSTILE, *(make() for make in HOSTILE_LAYERS)
            )
    layer = attempt(kind, **settings)
    if isinstance(layer, mechanisms.Mechanism):
        layer = attempt(layers.MultiHeadAttention, 4, 4, 2, causal=choose(True, False),
                        attention=layer)  # fmt: skip
    if not isinstance(layer, keras.Layer):
        return "made"
    dtype = choose("float32", "float32", "mixed_float16", "mixed_bfloat16", "float16")
    config = layer.get_config() | {"dtype": dtype}
    layer = type(layer).from_config(config)
    _call(layer, choose)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    return "odd, works" if hostile else "works"


def _call(layer, choose):
    batch, length = choose(0, 1, 2, 3), choose(0, 1, 2, 5, 7, 13)
    width = 12
    # The product of three projections leaves float16 sooner.
    deviation = 1 if isinstance(layer, layers.ShortConvolution) else choose(1, 1, 30)
    x = (deviation * choose.random.standard_normal((batch, length, width))).astype("float32")
    call = {}
    if isinstance(layer, layers.TokenEmbedding | layers.RelativePositionBias):
        return
    if takes_mask(layer) and not isinstance(layer, _NO_MASK) and choose(True, False):
        call["attention_mask"] = (choose.random.random((batch, length)) < 0.6).astype(
            choose("int32", "bool")
        )
    if isinstance(layer, layers.LuongAttention | layers.AdditiveAttention):
        call["value"] = x[:, :3]
        call.pop("attention_mask", None)
    outputs = attempt(layer, x, **call)
    for y in keras.tree.flatten(outputs):
        assert np.isfinite(to_numpy(y)).all(), f"not finite: {layer.get_config()}"
    first = keras.tree.flatten(outputs)[0]
    if not isinstance(layer, layers.SinusoidalPositions):
        assert first.shape[0] in (batch, 1) and first.shape[1] in (length, batch)
    _decode(layer, x, call)


def _decode(layer, x, call):
    """In two parts with a state, where the layer has one."""
    shapes = getattr(layer, "state_shapes", None)
    if shapes is None or not len(x) or x.shape[1] < 2:
        return
    if isinstance(layer, layers.MultiHeadAttention) and layer.mechanism is None:
        return
    if attempt(shapes) is None:
        return
    state = zero_state(layer, len(x))
    positions = np.arange(x.shape[1])[None]
    for part in (slice(0, 1), slice(1, None)):
        cut = {name: value[:, part] for name, value in call.items()}
        y, state = attempt(layer, x[:, part], cache=state, position_ids=positions[:, part], **cut)
        assert np.isfinite(to_numpy(y)).all()


def _optional(kind):
    names = {name for rule in _SETTINGS for name in rule.split()}
    return [n for n in inspect.signature(kind.__init__).parameters if n in names]


_SETTINGS = (
    "num_key_value_heads value_dim output_dim use_bias use_output_bias causal window scale softcap",
    "sinks positions query_norm key_norm output_gate layer_norm_epsilon attention dropout",
    "kernel_initializer bias_initializer activation gated norm normalize_first residual mixer",
    "attention_dropout activation_dropout embeddings_initializer fraction base interleaved",
    "max_position scaling unbounded gate_rank gate_temperature chunk_size kernel_size num_groups",
    "feed_forward",
    "use_conv_bias time_step_limit same_length clamp_distance position_dropout query_latent_dim",
    "seed mode dilation shared feature_map levels num_random_blocks right tied score units",
)
_NO_MASK = (
    layers.CausalConv1D,
    layers.PositionEmbedding,
    layers.SinusoidalPositions,
    layers.Scale,
    layers.AttentiveDecoder,
)


class _Chooser:
    def __init__(self, random):
        self.random = random

    def __call__(self, *options):
        return options[int(self.random.integers(len(options)))]


def _attention(choose):
    heads = choose(1, 2, 4, 6)
    return layers.MultiHeadAttention, {
        "num_heads": heads,
        "head_dim": choose(2, 4),
        "num_key_value_heads": choose(None, heads, 1),
        "value_dim": choose(None, 1, 5),
        "causal": choose(True, False),
        "window": choose(None, None, (2, 0), (None, 1), (1, None)),
        "softcap": choose(None, 5.0),
        "sinks": choose(True, False),
        "output_gate": choose(True, False),
        "positions": choose(None, layers.ALiBi(heads)),
        "query_norm": choose(None, "rms_norm", "layer_norm", "zero_centered_rms_norm"),
    }


def _mechanism(choose):
    return choose(
        (mechanisms.Local, {"left": choose(0, 3), "right": choose(0, 2), "dilation": choose(1, 2)}),
        (mechanisms.BlockSparse, {"block_size": choose(1, 4), "num_random_blocks": choose(0, 1)}),
        (mechanisms.Strided, {"stride": choose(1, 3)}),
        (mechanisms.Fixed, {"block_size": 4, "summary": choose(1, 4)}),
        (mechanisms.GlobalLocal, {"left": 2, "right": choose(0, 2), "max_global_tokens": 2}),
        (mechanisms.Hierarchical, {"block_size": choose(2, 4), "levels": choose(1, 3)}),
        (mechanisms.Linearized, {"feature_map": choose("elu", "relu")}),
        (mechanisms.Linformer, {"num_features": choose(1, 4), "max_length": 20}),
        (mechanisms.Performer, {"num_features": choose(1, 8)}),
        (mechanisms.SinkLocal, {"num_sinks": choose(1, 2), "left": choose(0, 3)}),
    )


def _mixer(choose):
    heads, dim = choose(1, 2, 4), choose(1, 4)
    sizes, chunk = {"num_heads": heads, "head_dim": dim}, {"chunk_size": choose(1, 4, 32)}
    return choose(
        (layers.GatedLinearAttention, sizes | chunk | {"gate_rank": choose(1, 3)}),
        (layers.GatedDelta, sizes | chunk | {"value_dim": choose(None, 3)}),
        (layers.StateSpace, sizes | chunk | {"state_dim": 5, "num_groups": choose(1, heads)}),
        (layers.ShortConvolution, {"kernel_size": choose(1, 3)}),
        (layers.TransformerXLAttention, sizes | {"memory_length": choose(1, 4)}),
        (layers.LatentAttention, sizes | {"rotary_dim": 2, "latent_dim": choose(1, 5)}),
    )  # fmt: skip


def _other(choose):
    sizes = {"num_heads": 2, "head_dim": 4, "intermediate_dim": choose(1, 9)}
    return choose(
        (layers.EncoderBlock, sizes | {"norm": "rms_norm", "normalize_first": True}),
        (layers.EncoderBlock, sizes | {"residual": choose("both", "output", "parallel_shared")}),
        (layers.DecoderBlock, sizes | {"gated": choose(True, False), "sinks": choose(True, False)}),
        (layers.FeedForward, {"intermediate_dim": 5, "activation": choose("gelu", "silu", None)}),
        (layers.Maxout, {"units": choose(1, 5), "pool_size": choose(1, 2)}),
        (layers.CausalConv1D, {"kernel_size": choose(1, 4)}),
        (layers.PositionEmbedding, {"max_sequence_length": 20, "output_dim": 12}),
        (layers.SinusoidalPositions, {"output_dim": 12}),
        (layers.RotaryPositions, {"head_dim": choose(2, 8)}),
        (layers.ALiBi, {"num_heads": choose(1, 3)}),
        (layers.TokenEmbedding, {"vocabulary_size": 9, "hidden_dim": 4}),
        (layers.RelativePositionBias, {"num_heads": 2}),
        (layers.Scale, {"factor": choose(0.5, 2)}),
        (layers.LuongAttention, {"score": choose("dot", "general", "concat")}),
        (layers.AdditiveAttention, {"units": choose(None, 3)}),
    )


KINDS = (_attention, _mechanism, _mixer, _other)
