"""What is compared: one line for each mechanism."""

import dataclasses
import math
from collections.abc import Callable

from attention_study.settings import HEAD_DIM
from keras_seqattn import layers
from keras_seqattn.layers import mechanisms
from keras_seqattn.layers.mixer import Mixer

BOTH, CAUSAL, BIDIRECTIONAL = "both", "causal", "bidirectional"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a mechanism is made for.

    Attributes:
        num_heads, head_dim: of the layer.
        size: keys to which a query attends, or numbers for each channel in which all keys are
            summed up; each mechanism comes as near to it as it can.
        max_length: of the texts.
        causal: whether a query looks back only.
    """

    num_heads: int
    head_dim: int
    size: int
    max_length: int
    causal: bool = False

    @property
    def window(self):
        """Inclusive (left, right) distances."""
        return (self.size, 0) if self.causal else (self.size // 2, self.size // 2)

    @property
    def hierarchy(self):
        """(block_size, levels) that reach from end to end."""
        block = self.size // 16
        return block, math.ceil(math.log2(self.max_length / block))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the tables.

    Attributes:
        title: str.
        make: function of Sizes -> a Mechanism, a Mixer, or None for attention to every key.
        direction: whether a layer may look ahead: BOTH (as asked), CAUSAL or BIDIRECTIONAL only.
        linear: whether its cost is claimed to be linear in the length.
        causal_cost: whether its cost is that of the causal form.
        inputs: names of masks int32 (b, t) that it takes beside x.
    """

    title: str
    make: Callable
    direction: str = BOTH
    linear: bool = False
    causal_cost: bool = False
    inputs: tuple = ()


MECHANISMS = {
    "dense": Entry("dense", lambda s: None),
    "local": Entry("local window", lambda s: mechanisms.Local(*s.window), linear=True),
    "sinks": Entry(
        "sinks and window",
        lambda s: mechanisms.SinkLocal(4, s.size - 4),
        CAUSAL,
        linear=True,
    ),
    "longformer": Entry(
        "Longformer",
        lambda s: mechanisms.GlobalLocal(*s.window, max_global_tokens=1),
        BIDIRECTIONAL,
        linear=True,
        inputs=("global_attention_mask",),
    ),
    "big_bird": Entry(
        "BigBird", lambda s: mechanisms.BlockSparse(s.size // 8, 3), BIDIRECTIONAL, linear=True
    ),
    "strided": Entry("strided", lambda s: mechanisms.Strided(s.size)),
    "fixed": Entry("fixed", lambda s: mechanisms.Fixed(s.size, max(1, s.size // 32))),
    "linear": Entry("linear", lambda s: mechanisms.Linearized(), linear=True),
    "linear_causal": Entry(
        "linear, causal", lambda s: mechanisms.Linearized(), linear=True, causal_cost=True
    ),
    "performer": Entry("Performer", lambda s: mechanisms.Performer(s.size), linear=True),
    "performer_causal": Entry(
        "Performer, causal", lambda s: mechanisms.Performer(s.size), linear=True, causal_cost=True
    ),
    "linformer": Entry(
        "Linformer",
        lambda s: mechanisms.Linformer(s.size, s.max_length),
        BIDIRECTIONAL,
        linear=True,
    ),
    "hierarchical": Entry("hierarchical", lambda s: mechanisms.Hierarchical(*s.hierarchy)),
    "gated_linear": Entry(
        "gated linear attention",
        lambda s: layers.GatedLinearAttention(s.num_heads, s.head_dim, name="mixer"),
        CAUSAL,
        linear=True,
    ),
    "gated_delta": Entry(
        "gated delta rule",
        lambda s: layers.GatedDelta(s.num_heads, s.head_dim, name="mixer"),
        CAUSAL,
        linear=True,
    ),
    "state_space": Entry(
        "Mamba-2",
        lambda s: layers.StateSpace(s.num_heads, s.head_dim, s.head_dim, name="mixer"),
        CAUSAL,
        linear=True,
    ),
    "transformer_xl": Entry(
        "Transformer-XL",
        lambda s: layers.TransformerXLAttention(s.num_heads, s.head_dim, s.size, name="mixer"),
        CAUSAL,
    ),
    "latent": Entry(
        "multi-head latent",
        lambda s: layers.LatentAttention(
            s.num_heads, s.head_dim, s.head_dim // 2, s.head_dim, name="mixer"
        ),
        CAUSAL,
    ),
}


def is_causal(name, wanted):
    """Whether a layer is causal where `wanted` says what the task would like.

    Args:
        name: str, of MECHANISMS.
        wanted: bool.
    """
    direction = MECHANISMS[name].direction
    return direction == CAUSAL or (direction == BOTH and wanted)


def block_arguments(name, sizes):
    """What a block or a MultiHeadAttention takes to have a mechanism: `attention` or `mixer`.

    Args:
        name: str, of MECHANISMS.
        sizes: Sizes.

    Returns:
        dict.
    """
    made = MECHANISMS[name].make(sizes)
    return {"mixer" if isinstance(made, Mixer) else "attention": made}


def attention_layer(name, num_heads, size, max_length):
    """The layer from (b, t, m) to (b, t, m) whose cost is measured: attention with its projections,
    or a mixer.

    Args:
        name: str, of MECHANISMS.
        num_heads, size, max_length: as in `Sizes`.
    """
    causal = is_causal(name, MECHANISMS[name].causal_cost)
    arguments = block_arguments(name, Sizes(num_heads, HEAD_DIM, size, max_length, causal))
    if "mixer" in arguments:
        return arguments["mixer"]
    return layers.MultiHeadAttention(
        num_heads, HEAD_DIM, causal=causal, name="attention", **arguments
    )
