"""Attention and rotary positions as single nodes. If no node fits, the definition is traced."""

import ml_dtypes
import numpy as np
from keras import ops

from keras_seqattn.onnx.lower.elementwise import as_int32, cast, int32
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape, transpose
from keras_seqattn.onnx.passes.matching import inputs_of_role, port_of
from keras_seqattn.onnx.sizes import is_dynamic
from keras_seqattn.ops.attention import Attention
from keras_seqattn.ops.masks import band_mask, combine_masks, expand_mask
from keras_seqattn.ops.rotary import RotaryEmbedding


def merge_heads(tracer, x):
    """(b, t, h, d) -> (b, t, h*d). If a reshape made x, this takes the value before the reshape."""
    b, t, h, d = x.sizes
    return reshape(tracer, x, (b, t, h * d))


def _for_batch(tracer, rows, x):
    """Repeat a tensor (1, t, ...) for all rows, because the nodes do not broadcast."""
    if rows.sizes[0] == x.sizes[0] or rows.sizes[0] != 1:
        return rows

    def spread():
        shape = [tracer.size(rows, axis) for axis in range(len(rows.sizes))]
        return ops.broadcast_to(rows, [tracer.size(x, 0), *shape[1:]])

    return tracer.once(("rows", rows.value, x.sizes[0]), spread)


@lowers(RotaryEmbedding)
def rotary_embedding(tracer, operation, x, cos, sin, position_ids=None):
    cos, sin = tracer.symbol(cos, x.dtype), tracer.symbol(sin, x.dtype)
    heads, head_dim = x.sizes[2:]
    rotary_dim = 2 * cos.sizes[-1]
    attributes = {
        "interleaved": int(operation.interleaved),
        "num_heads": heads,
        "rotary_embedding_dim": rotary_dim if rotary_dim < head_dim else None,
    }
    flat = merge_heads(tracer, x)
    if position_ids is None:
        cos, sin = (_for_batch(tracer, table, x) for table in (cos, sin))
    else:
        position_ids = _for_batch(tracer, tracer.symbol(position_ids), x)
    inputs = [flat, cos, sin, position_ids]
    rotated = tracer.emit("RotaryEmbedding", inputs, attributes, sizes=flat.sizes, dtype=x.dtype)
    return reshape(tracer, rotated, x.sizes)


@lowers(Attention)
def attention(
    tracer,
    operation,
    query,
    key=None,
    value=None,
    mask=None,
    bias=None,
    sinks=None,
    past_key=None,
    past_value=None,
):
    call = _Call(tracer, operation, query, key, value, mask, bias, sinks, past_key, past_value)
    if 0 in (call.length, call.total):
        # The nodes accept no sequence without tokens.
        return operation.call(query, key, value, mask, bias, sinks, past_key, past_value)
    if call.fits_group_query_attention():
        return call.group_query_attention()
    if call.fits_standard_attention():
        return call.standard_attention()
    # The definition of the operation. It masks, caps and adds sinks with ordinary operations.
    return operation.call(query, key, value, mask, bias, sinks, past_key, past_value)


class _Call:
    """One call of Attention, with the facts that decide which node can be used."""

    def __init__(
        self, tracer, operation, query, key, value, mask, bias, sinks, past_key, past_value
    ):
        self.tracer, self.operation = tracer, operation
        tensors = [
            None if x is None else tracer.symbol(x) for x in (query, key, value, mask, bias, sinks)
        ]
        self.query, self.key, self.value, self.mask, self.bias, self.sinks = tensors
        if self.bias is not None:
            self.bias = cast(tracer, self.bias, self.query.dtype)
        self.past_key, self.past_value = past_key, past_value
        self.extends = past_key is not None and key is not None
        self.batch, self.length, self.heads, self.head_dim = query.sizes
        self.total = 0 if past_key is None else past_key.sizes[2]
        if key is None:
            self.groups, self.value_dim = past_value.sizes[1], past_value.sizes[3]
        else:
            self.groups, self.value_dim = value.sizes[2:]
            self.total += key.sizes[1]

        self._share_batch()

    def _share_batch(self):
        """Repeat tensors that all rows share, because the nodes do not broadcast."""
        if self.key is None or self.past_key is not None:
            return
        if self.key.sizes[0] != self.batch == 1:
            self.query = _for_batch(self.tracer, self.query, self.key)
            self.batch = self.query.sizes[0]
        else:
            self.key, self.value = (
                _for_batch(self.tracer, x, self.query) for x in (self.key, self.value)
            )

    def _outputs(self):
        b, t, g = self.batch, self.length, self.groups
        outputs = [((b, t, self.heads * self.value_dim), self.query.dtype)]
        if self.extends:
            outputs += [
                ((b, g, self.total, self.head_dim), self.query.dtype),
                ((b, g, self.total, self.value_dim), self.query.dtype),
            ]
        return outputs

    def _split_heads(self, outputs):
        outputs = list(outputs)
        sizes = (self.batch, self.length, self.heads, self.value_dim)
        outputs[0] = reshape(self.tracer, outputs[0], sizes)
        return tuple(outputs) if self.extends else outputs[0]

    # ---- the standard operator

    def fits_standard_attention(self):
        """ONNX caps scores after the mask, aligns causal masks top-left, and has no sinks."""
        operation = self.operation
        aligned = not operation.causal or self.extends or self.length == self.total
        return aligned and not (
            operation.return_scores or operation.softcap or self.sinks is not None
        )

    def standard_attention(self):
        tracer, operation = self.tracer, self.operation
        if self.key is None:
            return self._attention_to_past()
        inputs = [merge_heads(tracer, x) for x in (self.query, self.key, self.value)]
        inputs += [self._standard_mask(), self.past_key, self.past_value]
        attributes = {
            "q_num_heads": self.heads,
            "kv_num_heads": self.groups,
            "is_causal": int(operation.causal),
            "scale": operation.scale,
        }
        return self._split_heads(
            tracer.emit("Attention", inputs, attributes, outputs=self._outputs())
        )

    def _attention_to_past(self):
        """Keys and values with four axes, as in a cache. The node takes them as inputs."""
        tracer, operation = self.tracer, self.operation
        query = transpose(tracer, self.query, (0, 2, 1, 3))
        inputs = [query, self.past_key, self.past_value, self._standard_mask()]
        attributes = {"is_causal": int(operation.causal), "scale": operation.scale}
        sizes = (self.batch, self.heads, self.length, self.value_dim)
        out = tracer.emit("Attention", inputs, attributes, sizes=sizes, dtype=query.dtype)
        return transpose(tracer, out, (0, 2, 1, 3))

    def _standard_mask(self):
        """None, or the mask (b|1, h|1, t, s). It is boolean, or additive if there is a bias."""
        key = ("mask", _value(self.mask), self.operation.window, self.length, self.total)
        if self.mask is None and self.operation.window is None:
            return self._spread(self.bias) if self.bias is not None else None
        allowed = self.tracer.once(key, lambda: self._spread(self._allowed()))
        if self.bias is None:
            return allowed
        return ops.add(self.bias, self._additive(allowed))

    def _allowed(self):
        band = None
        if self.operation.window is not None:
            t, s = self.tracer.size(self.query, 1), self._key_length()
            rows = ops.add(ops.arange(t, dtype="int32"), ops.subtract(s, t))
            band = band_mask(rows, ops.arange(s, dtype="int32"), False, self.operation.window)
        allowed = combine_masks(None if self.mask is None else expand_mask(self.mask), band)
        # If both lengths are fixed, the band is not a Symbol yet.
        return self.tracer.symbol(allowed)

    def _key_length(self):
        """The number of keys, including the past: an int or a scalar Symbol."""
        if not is_dynamic(self.total):
            return self.total
        known = self.tracer.scalar(self.total)
        if known is not None:
            return known
        sizes = [] if self.past_key is None else [self.tracer.size(self.past_key, 2)]
        if self.key is not None:
            sizes.append(self.tracer.size(self.key, 1))
        return sizes[0] if len(sizes) == 1 else ops.add(*sizes)

    def _spread(self, x):
        """The mask with its full query and key axes, because onnxruntime needs that."""
        if x.sizes[2:] == (self.length, self.total):
            return x

        def spread():
            shape = [self.tracer.size(x, i) for i in range(4)]
            shape[2] = self.tracer.size(self.query, 1)
            if x.sizes[3] == 1:
                shape[3] = self._key_length()
            return ops.broadcast_to(x, shape)

        return self.tracer.once(("spread", x.value, self.length, self.total), spread)

    def _additive(self, allowed):
        zero, never = (self.tracer.constant(n, self.query.dtype) for n in (0.0, -np.inf))
        return ops.where(allowed, zero, never)

    # ---- onnxruntime's operator for decoders

    def fits_group_query_attention(self):
        """Whether the kernel can be used. It accepts several new tokens after a past only for one
        row. Decoder bundles need no more, but other models may use a cache in any way. The caches
        of encoder-decoders grow with each step; for them, the standard operator is faster.
        """
        operation, window = self.operation, self.operation.window
        return (
            self.tracer.target.supports("GroupQueryAttention")
            and self.extends
            and self._is_cache_of_a_decoder(self.past_key.value)
            and operation.causal
            and not operation.return_scores
            and self.head_dim == self.value_dim
            and self.head_dim % 8 == 0
            and (window is None or (window[0] is not None and not window[1]))
            and self.query.dtype != "float64"
        )

    def group_query_attention(self):
        tracer, operation = self.tracer, self.operation
        total = tracer.once(("total", self.total), self._total_length)
        seqlens = tracer.once(
            ("seqlens", self.total, self.batch), lambda: self._last_positions(total)
        )
        inputs = [merge_heads(tracer, x) for x in (self.query, self.key, self.value)]
        inputs += [self.past_key, self.past_value, seqlens, total, None, None, None]
        inputs += [self._group_query_bias(), self.sinks]
        attributes = {
            "num_heads": self.heads,
            "kv_num_heads": self.groups,
            "scale": operation.scale,
            "softcap": operation.softcap,
            "local_window_size": None if operation.window is None else operation.window[0] + 1,
        }
        outputs = self._outputs()
        return self._split_heads(
            tracer.emit(
                "GroupQueryAttention", inputs, attributes, domain="com.microsoft", outputs=outputs
            )
        )

    def _total_length(self):
        return int32(self.tracer, self.tracer.symbol(self._key_length()))

    def _last_positions(self, total):
        tracer = self.tracer
        one = int32(tracer, tracer.constant(np.int64(1)))
        last = tracer.emit("Sub", [total, one], sizes=(), dtype="int32")
        shape = tracer.vector([tracer.size(self.query, 0)])
        return as_int32(
            tracer.emit("Expand", [as_int32(last), shape], sizes=(self.batch,), dtype="int32")
        )

    def _is_cache_of_a_decoder(self, value):
        """Whether a value is an input that holds the keys of a decoder without encoder."""
        graph = self.tracer.graph
        is_cache = value in graph.inputs and port_of(value).role == "cache"
        return is_cache and not inputs_of_role(graph, "source_mask")

    def _group_query_bias(self):
        """None without mask and bias. Otherwise both as one additive tensor (b|1, h|1, t, s)."""
        if self.mask is None:
            return None if self.bias is None else self._spread(self.bias)
        key = ("additive mask", _value(self.mask), self.length)
        blocked = self.tracer.once(
            key, lambda: self._spread(self._additive(expand_mask(self.mask)))
        )
        blocked.value.meta["padding_of"] = self.mask.value
        return blocked if self.bias is None else ops.add(self.bias, blocked)


def _value(x):
    return getattr(x, "value", x)


@lowers("DotProductAttention")
def dot_product_attention(tracer, operation, query, key, value, bias=None, mask=None, scale=None):
    """Keras's own attention over (b, t, h, d). Causal masks are aligned top-left, as in ONNX.

    A query that may look at nothing gets the mean of all values, as on every backend of Keras.
    """
    causal = operation.is_causal
    if mask is not None:
        mask = tracer.symbol(mask)
        lengths = (query.sizes[1], key.sizes[1]) if causal else None
        name = ("finite mask", mask.value, lengths, query.dtype)
        blocked = tracer.once(name, lambda: _finite(tracer, mask, query, key, causal))
        bias = blocked if bias is None else ops.add(bias, blocked)
        causal = False
    same = Attention(causal=causal, scale=scale, softcap=operation.attn_logits_soft_cap)
    call = _Call(tracer, same, query, key, value, None, bias, None, None, None)
    return call.standard_attention()


def _finite(tracer, mask, query, key, causal):
    """A mask as an additive one (b|1, h|1, t|1, s|1), finite and lower than any score.

    In a row where everything is masked, scores are lost in the sum, and the softmax is uniform.
    """
    mask = cast(tracer, mask, "bool")
    if causal:
        rows, columns = (ops.arange(tracer.size(x, 1), dtype="int32") for x in (query, key))
        seen = ops.greater_equal(ops.expand_dims(rows, 1), columns)
        mask = ops.logical_and(mask, seen)
    mask = reshape(tracer, mask, (*[1] * (4 - len(mask.sizes)), *mask.sizes))
    lowest = 0.7 * float(ml_dtypes.finfo(query.dtype).min)
    return ops.where(mask, *(tracer.constant(n, query.dtype) for n in (0.0, lowest)))
