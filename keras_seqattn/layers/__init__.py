"""Keras layers over the operations: attention, positions, feed-forward and blocks.

Every layer accepts empty inputs on every backend: no rows give no rows, and no tokens give no
tokens. A query without keys gets zeros. No tokens do not change a state. In a file, this is true if
the operators of onnxruntime accept such shapes; its LSTM and GRU do not. An invalid argument raises
a ValueError when the layer is made.
"""

from keras_seqattn.layers.additive_attention import AdditiveAttention, LuongAttention
from keras_seqattn.layers.attention import MultiHeadAttention
from keras_seqattn.layers.blocks import DecoderBlock, EncoderBlock
from keras_seqattn.layers.embedding import Scale, TokenEmbedding
from keras_seqattn.layers.feed_forward import FeedForward
from keras_seqattn.layers.gated_delta import GatedDelta
from keras_seqattn.layers.gated_linear import GatedLinearAttention
from keras_seqattn.layers.latent_attention import LatentAttention
from keras_seqattn.layers.maxout import Maxout
from keras_seqattn.layers.patches import PatchEmbedding
from keras_seqattn.layers.position_bias import RelativePositionBias
from keras_seqattn.layers.positions import (
    ALiBi,
    PositionEmbedding,
    RotaryPositions,
    SinusoidalPositions,
)
from keras_seqattn.layers.recurrent import AttentiveDecoder, ReverseTime
from keras_seqattn.layers.residuals import Residual
from keras_seqattn.layers.short_convolution import CausalConv1D, ShortConvolution
from keras_seqattn.layers.state_space import StateSpace
from keras_seqattn.layers.transformer_xl import TransformerXLAttention

__all__ = [
    "ALiBi",
    "AdditiveAttention",
    "AttentiveDecoder",
    "CausalConv1D",
    "DecoderBlock",
    "EncoderBlock",
    "FeedForward",
    "GatedDelta",
    "GatedLinearAttention",
    "LatentAttention",
    "LuongAttention",
    "Maxout",
    "MultiHeadAttention",
    "PatchEmbedding",
    "PositionEmbedding",
    "RelativePositionBias",
    "Residual",
    "ReverseTime",
    "RotaryPositions",
    "Scale",
    "ShortConvolution",
    "SinusoidalPositions",
    "StateSpace",
    "TokenEmbedding",
    "TransformerXLAttention",
]
