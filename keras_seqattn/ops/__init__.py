"""Tensor maths of sequence models: operations that a backend computes and ONNX has a node for."""

from keras_seqattn.ops.attention import Attention, attention
from keras_seqattn.ops.block_sparse import BlockSparseAttention, block_sparse_attention
from keras_seqattn.ops.cache import CacheWrite, UncachedContext, cache_write, uncached_context
from keras_seqattn.ops.chunked_scan import ChunkedScan, chunked_scan
from keras_seqattn.ops.global_local import (
    GlobalLocalAttention,
    GlobalTokens,
    global_local_attention,
    global_tokens,
)
from keras_seqattn.ops.hierarchical import HierarchicalAttention, hierarchical_attention
from keras_seqattn.ops.linear import LinearAttention, linear_attention
from keras_seqattn.ops.linformer import LinformerAttention, linformer_attention
from keras_seqattn.ops.local import LocalAttention, local_attention
from keras_seqattn.ops.performer import (
    PerformerAttention,
    orthogonal_features,
    performer_attention,
)
from keras_seqattn.ops.position_bias import (
    alibi_bias,
    alibi_slopes,
    distance_buckets,
    relative_position_bias,
)
from keras_seqattn.ops.positions import (
    NewTokens,
    PositionIds,
    SlotPositions,
    StreamPositions,
    new_tokens,
    position_ids,
    slot_positions,
    stream_positions,
)
from keras_seqattn.ops.relative_shift import RelativeShift, distance_sinusoids, relative_shift
from keras_seqattn.ops.rotary import RotaryEmbedding, rotary_embedding
from keras_seqattn.ops.short_convolution import CausalConvolution, causal_convolution
from keras_seqattn.ops.sink_local import SinkLocalAttention, sink_local_attention
from keras_seqattn.ops.sparse import (
    FixedAttention,
    StridedAttention,
    fixed_attention,
    strided_attention,
)

__all__ = [
    "Attention",
    "BlockSparseAttention",
    "CacheWrite",
    "CausalConvolution",
    "ChunkedScan",
    "FixedAttention",
    "GlobalLocalAttention",
    "GlobalTokens",
    "HierarchicalAttention",
    "LinearAttention",
    "LinformerAttention",
    "LocalAttention",
    "NewTokens",
    "PerformerAttention",
    "PositionIds",
    "RelativeShift",
    "RotaryEmbedding",
    "SinkLocalAttention",
    "SlotPositions",
    "StreamPositions",
    "StridedAttention",
    "UncachedContext",
    "alibi_bias",
    "alibi_slopes",
    "attention",
    "block_sparse_attention",
    "cache_write",
    "causal_convolution",
    "chunked_scan",
    "distance_buckets",
    "distance_sinusoids",
    "fixed_attention",
    "global_local_attention",
    "global_tokens",
    "hierarchical_attention",
    "linear_attention",
    "linformer_attention",
    "local_attention",
    "new_tokens",
    "orthogonal_features",
    "performer_attention",
    "position_ids",
    "relative_position_bias",
    "relative_shift",
    "rotary_embedding",
    "sink_local_attention",
    "slot_positions",
    "stream_positions",
    "strided_attention",
    "uncached_context",
]
