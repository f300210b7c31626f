"""One step of a causal language model of keras-hub: attention nodes that read and write the past.

keras-hub's layers know one buffer, the index of the new tokens in it, and no padding. During the
trace of a step, some of their methods are replaced. So the step also knows what a bundle gives it:

- A write of the new tokens behind the past is a concatenation.
- Attention over a past and the new tokens is one `Attention`, which lowers to the node of a cache.
- Masks also forbid padding, and positions count only the real tokens of a row.

What is not in these tables is traced as it is. Then the graph has more nodes, but is right, too.
"""

import contextlib
import inspect
import sys

import numpy as np
from keras import ops

from keras_seqattn.models.hub_decoder import HubStep
from keras_seqattn.models.hub_seq2seq import HubEncoder, HubSeq2SeqStep
from keras_seqattn.onnx.keras_internals import all_layers, replaced
from keras_seqattn.onnx.lower.hub_values import (
    before_repeat,
    is_behind,
    keeping_parts,
    transposed_input,
)
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape
from keras_seqattn.onnx.symbol import Symbol
from keras_seqattn.ops.attention import Attention
from keras_seqattn.ops.masks import band_mask, combine_masks, expand_mask
from keras_seqattn.ops.positions import PositionIds

_PLAIN = {"scale": lambda layer: layer._inv_norm_factor}
_SCALED = {
    "scale": lambda layer: (
        (
            layer.head_dim
            if layer.query_head_dim_normalize
            else layer.hidden_dim // layer.num_query_heads
        )
        ** -0.5
    ),
    "softcap": lambda layer: layer.logit_soft_cap,
}
# Classes whose `_compute_attention` is scaled dot-product attention with a mask -> the arguments
# of the same `Attention`, as functions of the layer.
_ATTENTIONS = dict.fromkeys(
    ["LlamaAttention", "CachedMistralAttention", "CachedMixtralAttention", "QwenAttention"]
    + ["Qwen3Attention", "QwenMoeAttention", "Qwen3MoeAttention", "Phi3Attention"]
    + ["SmolLM3Attention"],
    _PLAIN,
)
_ATTENTIONS |= {"CachedGemmaAttention": _SCALED, "CachedGemma3Attention": _SCALED}
_ATTENTIONS["CachedMultiHeadAttention"] = {"scale": lambda layer: layer._inverse_sqrt_key_dim}
# The names of the first arguments of `_compute_attention`.
_QUERY, _KEY, _VALUE = ("query", "q"), ("key", "k"), ("value", "v")


@lowers(HubStep, HubSeq2SeqStep)
def hub_step(tracer, layer, inputs):
    ids, past = inputs["input_ids"], next(x for name, x in inputs.items() if "past" in name)
    step = _Step(tracer, ids, inputs.get("attention_mask"), past)
    with step.replacements(layer.source):
        logits, presents = layer.step(inputs)
    presents = {name: step.present(x) for name, x in presents.items()}
    return {"logits": logits, **presents}


@lowers(HubEncoder)
def hub_encoder(tracer, layer, inputs):
    with _Step(tracer, inputs["input_ids"], inputs["attention_mask"]).replacements(layer.source):
        return layer.call(inputs)


class _Step:
    """What is known during the trace of one step.

    Args:
        tracer: the tracer.
        ids: Symbol int (b, t) of the new tokens.
        mask: Symbol int (b, p + t) of all real tokens, or None: all are real.
        past: Symbol (b, g, p, d) of a past, or None.
    """

    def __init__(self, tracer, ids, mask, past=None):
        self.tracer = tracer
        self.ids, self.mask, self.past = ids, mask, past
        self.length = self.total = ids.sizes[1]
        if past is not None:
            self.total = past.sizes[2] + self.length
        # Value of a past with room for the new tokens -> the past in the same form, and the Symbol
        # of the past.
        self._rooms = {}
        # Value of all keys or values (b, p + t, g, d) -> the past, and the new tokens.
        self._grown = {}
        # Value of all keys or values -> that value as an output of an attention node.
        self._presents = {}
        # Value of a mask (b, t, p + t) of this step -> how far it sees to the left, or None.
        self._windows = {}

    @contextlib.contextmanager
    def replacements(self, source):
        """Replace functions of keras-hub and of Keras while the context is open."""
        with contextlib.ExitStack() as stack:
            for owner, name, value in list(self._replacements(source)):
                stack.enter_context(replaced(owner, name, value))
            yield

    def _replacements(self, source):
        """(owner, name, replacement) of all of them."""
        yield ops, "stack", keeping_parts(ops.stack)
        yield ops, "concatenate", self._concatenate(ops.concatenate)
        yield ops, "slice_update", self._slice_update(ops.slice_update)
        for module in list(sys.modules.values()):
            original = getattr(module, "compute_causal_mask", None)
            if getattr(module, "__name__", "").startswith("keras_hub.") and original:
                yield module, "compute_causal_mask", self._causal_mask(original)
        for cls in {cls for layer in all_layers(source) for cls in type(layer).__mro__}:
            if cls.__module__.startswith("keras_hub."):
                yield from self._of_class(cls)

    def _of_class(self, cls):
        own = vars(cls)
        if cls.__name__ in _ATTENTIONS:
            original = cls._compute_attention
            yield cls, "_compute_attention", self._attention(original, _ATTENTIONS[cls.__name__])
        if "_mask_sliding_window" in own:
            original = cls._mask_sliding_window
            yield cls, "_mask_sliding_window", self._sliding_window(original)
        if "_compute_self_attention_mask" in own and cls.__name__.startswith("Mi"):
            original = cls._compute_self_attention_mask
            yield cls, "_compute_self_attention_mask", self._decoder_window(original)
        if cls.__name__ in ("RotaryEmbedding", "PositionEmbedding"):
            yield cls, "call", self._positioned(cls.call)
        if cls.__name__ == "SmolLM3RotaryEmbedding":
            yield cls, "call", self._angles
        if cls.__name__ == "AlibiBias":
            yield cls, "call", self._alibi(cls.call)
        if "_build_alibi_tensor" in own:
            yield cls, "_build_alibi_tensor", self._alibi_of_mask(cls._build_alibi_tensor)
        if cls.__name__ == "CachedGemmaAttention":
            yield cls, "_apply_rope", _in_halves
        if cls.__name__ == "RotaryEmbedding":
            yield cls, "_apply_rotary_pos_emb", self._rotate(cls._apply_rotary_pos_emb)

    # ---- caches

    def _concatenate(self, original):
        def concatenate(xs, axis=-1):
            """Notes which values are a past with room for the new tokens."""
            result = original(xs, axis)
            past = transposed_input(self.tracer, xs[0])
            if past is not None and axis == 1:
                self._rooms[result.value] = xs[0], past
            return result

        return concatenate

    def _slice_update(self, original):
        def slice_update(inputs, start_indices, updates):
            room = self._rooms.get(getattr(inputs, "value", None))
            if room is None or not is_behind(room[0], inputs, start_indices, updates):
                return original(inputs, start_indices, updates)
            before, past = room
            updates = ops.cast(updates, inputs.dtype)
            grown = ops.concatenate([before, updates], axis=1)
            self._grown[grown.value] = past, updates
            return grown

        return slice_update

    def present(self, grown):
        """All keys or values (b, p + t, g, d) as an output (b, g, p + t, d)."""
        known = self._presents.get(grown.value)
        return ops.transpose(grown, (0, 2, 1, 3)) if known is None else known

    # ---- masks

    def _causal_mask(self, original):
        def compute_causal_mask(batch_size, input_length, output_length, cache_index=0):
            lengths = [
                n.number if isinstance(n, Symbol) else n for n in (output_length, input_length)
            ]
            if lengths != [self.length, self.total]:
                return original(batch_size, input_length, output_length, cache_index)
            return self._allowed(None)

        return compute_causal_mask

    def _sliding_window(self, original):
        def mask_sliding_window(layer, attention_mask, cache_update_index=0):
            if self._windows.get(attention_mask.value, 0) is not None:
                return original(layer, attention_mask, cache_update_index)
            return self._allowed(layer.sliding_window_size - 1)

        return mask_sliding_window

    def _decoder_window(self, original):
        def compute_self_attention_mask(layer, *args, **kwargs):
            given = inspect.signature(original).bind(layer, *args, **kwargs).arguments
            own = ("decoder_padding_mask", "decoder_attention_mask")
            if layer.sliding_window is None or any(given.get(n) is not None for n in own):
                return original(layer, *args, **kwargs)
            return self._allowed(layer.sliding_window - 1)

        return compute_self_attention_mask

    def _allowed(self, left):
        """The mask bool (b, t, p + t): real tokens up to the query, `left` before it at most."""
        mask = self.tracer.once(("hub mask", left), lambda: self._mask(left))
        self._windows[mask.value] = left
        return mask

    def _mask(self, left):
        t, p = self.tracer.size(self.ids, 1), self.tracer.size(self.past, 2)
        rows = ops.add(ops.arange(t, dtype="int32"), p)
        window = None if left is None else (left, None)
        band = band_mask(rows, ops.arange(ops.add(t, p), dtype="int32"), True, window)
        real = None if self.mask is None else expand_mask(self.mask)
        return ops.squeeze(combine_masks(real, band), axis=1)

    # ---- attention

    def _attention(self, original, arguments):
        signature = inspect.signature(original)

        def compute_attention(layer, *args, **kwargs):
            given = signature.bind(layer, *args, **kwargs).arguments
            query, key, value = (_first(given, names_) for names_ in (_QUERY, _KEY, _VALUE))
            mask, pasts = given.get("attention_mask"), [self._past(x) for x in (key, value)]
            if None in pasts or given.get("return_attention_scores"):
                return original(layer, *args, **kwargs)
            settings = {name: function(layer) for name, function in arguments.items()}
            left = self._left(layer, mask)
            if left is False:
                out = self._attend_to_context(query, mask, pasts, settings)
            else:
                settings["window"] = None if left is None else (left, 0)
                out = self._attend(query, pasts, settings)
            return (out, None) if "return_attention_scores" in signature.parameters else out

        return compute_attention

    def _attend(self, query, pasts, settings):
        """Attention to a past and to the new tokens, which the node writes behind it."""
        (past_key, key, all_keys), (past_value, value, all_values) = pasts
        out, *presents = Attention(causal=True, **settings)(
            query, key, value, self.mask, past_key=past_key, past_value=past_value
        )
        self._presents |= zip((all_keys, all_values), presents, strict=True)
        return out

    def _attend_to_context(self, query, mask, pasts, settings):
        """The same if there may be no new tokens, which the node does not accept."""
        for past, new, value in pasts:
            new = ops.transpose(new, (0, 2, 1, 3))
            self._presents[value] = ops.concatenate([past, new], axis=2)
        key, value = (self._presents[value] for _, _, value in pasts)
        return Attention(**settings)(query, mask=mask, past_key=key, past_value=value)

    def _left(self, layer, mask):
        """How far the queries of a layer see: an int or None. False: the mask is another one."""
        left = self._windows.get(getattr(mask, "value", None), False)
        if left is None and _uses_window(layer):
            return layer.sliding_window_size - 1
        return left

    def _past(self, x):
        """(past, new tokens, value of both) of the keys or values of all tokens, or None."""
        value = before_repeat(x.value)
        grown = self._grown.get(value)
        return None if grown is None else (*grown, value)

    # ---- positions

    def _positioned(self, original):
        def call(layer, inputs, start_index=0, positions=None):
            axis = getattr(layer, "sequence_axis", 1)
            of_rows = self.mask is not None and inputs.sizes[axis] in (self.length, self.total)
            if positions is None and of_rows:
                positions = self._positions(inputs.sizes[axis])
            return original(layer, inputs, start_index, positions)

        return call

    def _positions(self, length):
        """The positions int (b, t) of the new tokens, or (b, p + t) of all."""
        tokens = self.ids if length == self.length else self.mask
        return self.tracer.once(("hub positions", length), lambda: PositionIds()(self.mask, tokens))

    def _rotate(self, original):
        def apply_rotary_pos_emb(layer, tensor, cos_emb, sin_emb):
            if len(tensor.sizes) != 4 or not isinstance(cos_emb, Symbol):
                return original(layer, tensor, cos_emb, sin_emb)
            b, t, heads, size = tensor.sizes
            tables = [ops.squeeze(x[..., : size // 2], axis=2) for x in (cos_emb, sin_emb)]
            flat = reshape(self.tracer, tensor, (b, t, heads * size))
            rotated = self.tracer.emit(
                "RotaryEmbedding",
                [flat, *tables],
                {"num_heads": heads},
                sizes=flat.sizes,
                dtype=tensor.dtype,
            )
            return reshape(self.tracer, rotated, tensor.sizes)

        return apply_rotary_pos_emb

    def _angles(self, layer, x, start_index=0):
        """`SmolLM3RotaryEmbedding` at the positions of this step."""
        positions = ops.cast(self._positions(x.sizes[1]), "float32")
        angles = ops.expand_dims(positions, -1) * ops.cast(layer.inv_freq, "float32")
        angles = ops.concatenate([angles, angles], axis=-1)
        tables = (f(angles) * layer.attention_scaling for f in (ops.cos, ops.sin))
        return tuple(ops.cast(table, x.dtype) for table in tables)

    def _alibi(self, original):
        def call(layer, attention_scores):
            """The bias of `AlibiBias` up to a number for each row, which no softmax sees."""
            heads, _, total = attention_scores.sizes[1:]
            if total != self.total:
                return original(layer, attention_scores)
            slopes = np.array(layer._get_slopes(heads), layer.compute_dtype).reshape(1, -1, 1, 1)
            places = ops.cast(self._positions(total), layer.compute_dtype)[:, None, None, :]
            return ops.add(attention_scores, ops.multiply(slopes, places))

        return call

    def _alibi_of_mask(self, original):
        def build_alibi_tensor(layer, num_heads, mask):
            return original(layer, num_heads, self.mask)

        return build_alibi_tensor


def _in_halves(layer, x, start_index, positions=None):
    """Gemma's rotation without its order of features, which is the same in queries and keys."""
    return layer.rope_layer(x, start_index=start_index, positions=positions)


def _uses_window(layer):
    """Whether a layer whose `_compute_attention` is replaced would add a window to the mask."""
    uses = getattr(layer, "use_sliding_window_attention", True)
    return bool(uses and getattr(layer, "sliding_window_size", None))


def _first(given, choices):
    return next(given[name] for name in choices if name in given)
