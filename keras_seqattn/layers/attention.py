"""Multi-head attention: projections, positions and cache around the attention operation."""

import functools

import keras
from keras import ops

from keras_seqattn.layers.attention_cache import query_slots, slot_mask, write
from keras_seqattn.layers.attention_heads import Heads
from keras_seqattn.layers.mechanisms.full import mechanism_template
from keras_seqattn.layers.recording import is_recording, record
from keras_seqattn.layers.templates import from_template
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.attention import Attention, apply_attention, join_past
from keras_seqattn.ops.broadcasting import add
from keras_seqattn.ops.masks import combine_masks


@keras.saving.register_keras_serializable(package="keras_seqattn")
class MultiHeadAttention(Heads):
    """Multi-head, grouped-query or multi-query attention, self or cross, with an explicit cache.

    Args:
        num_heads: number of query heads h.
        head_dim: size d of a query and key head.
        num_key_value_heads: number of key and value heads g, which divides h; None is h.
        value_dim: size e of a value head; None is d.
        output_dim: width of the result; None is the width of the query.
        use_bias: whether the query, key and value projections have biases.
        use_output_bias: the same for the output projection; None follows `use_bias`.
        causal: attend to the past only.
        window: None or inclusive (left, right) distances to attend to.
        scale: factor of the scores; None is `1 / sqrt(d)`.
        softcap: c in `c tanh(score / c)`; None is no softcap.
        sinks: learn one additional softmax logit for each head.
        positions: None, a `RotaryPositions` or an `ALiBi`.
        query_norm, key_norm: as `kind` of `normalization`, over each head.
        output_gate: multiply the result of each head by the sigmoid of a gate. One projection gives
            queries and gates: for each head the query and then the gate, as in Qwen3-Next.
        layer_norm_epsilon: epsilon of these norms.
        attention: None, or a `Mechanism` that replaces attention to every key.
        dropout: rate, applied to the probabilities, or to the result of a mechanism.
        kernel_initializer, bias_initializer: as in `keras.layers.Dense`.

    Call arguments:
        query: float (b, t, m).
        value: float (b, s, m'); None is `query` (self-attention).
        key: float (b, s, m'); None is `value`.
        attention_mask: bool or int (b, s), (b, t, s) or (b|1, h|1, t, s), nonzero = attend, where s
            includes the cached keys. None takes the implicit Keras mask of the keys.
        bias: finite float (b|1, h|1, t, s), added to the scores.
        position_ids: int (b, t), for rotary positions; None continues after the cache.
        cache: tuple of key (b, g, p, d) and value (b, g, p, e), put before the new ones (with a
            `value`, before those of the context). With `cache_position` it is a buffer of n slots,
            and the new ones are written into it.
        cache_position: int () or (1,), the slot of the first new key; later slots are not attended.
        frozen_cache: the cache holds every key, so only the query is projected.
        return_attention_scores: also return the probabilities.
        global_attention_mask: bool or int (b, t), nonzero = global; for mechanisms that have global
            tokens.

        With a mechanism, `attention_mask` is (b, s). If there is also a cache, the mask is only
        over the new keys, the cache is the tuple that `state_shapes` describes, and rotary
        positions need `position_ids`.

    Returns:
        float (b, t, m); with `cache`, a tuple of this and the new cache, unless it is frozen; with
        `return_attention_scores`, the probabilities (b, h, t, s) come last.

    Raises:
        ValueError: a layer with positions gets a frozen cache; or a mechanism comes with something
            that needs full attention: bias, scores, window, sinks, softcap, a growing cache.

    Example:
        layer = MultiHeadAttention(9, 64, num_key_value_heads=3, causal=True,
                                   positions=RotaryPositions(64))
        y, cache = layer(x, cache=cache)
    """

    @checked
    def __init__(
        self,
        num_heads,
        head_dim,
        num_key_value_heads=None,
        value_dim=None,
        output_dim=None,
        use_bias=True,
        use_output_bias=None,
        causal=False,
        window=None,
        scale=None,
        softcap=None,
        sinks=False,
        positions=None,
        query_norm=None,
        key_norm=None,
        output_gate=False,
        layer_norm_epsilon=1e-6,
        attention=None,
        dropout=0.0,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.num_key_value_heads = num_key_value_heads or num_heads
        self.value_dim = value_dim or head_dim
        self.output_dim = output_dim
        self.use_bias = use_bias
        self.use_output_bias = use_bias if use_output_bias is None else use_output_bias
        self.causal = causal
        self.window = None if window is None else tuple(window)
        self.scale = scale
        self.softcap = softcap
        self.use_sinks = sinks
        self.positions = positions
        self.norm_kinds = {"query_norm": query_norm, "key_norm": key_norm}
        self.output_gate = output_gate
        self.layer_norm_epsilon = layer_norm_epsilon
        self.attention = mechanism_template(attention)
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self._check_settings()

    def _check_settings(self):
        if self.num_heads % self.num_key_value_heads:
            raise ValueError(
                "num_key_value_heads must divide num_heads. Received: "
                f"num_heads={self.num_heads}, num_key_value_heads={self.num_key_value_heads}"
            )
        settings = {"window": self.window, "softcap": self.softcap, "sinks": self.use_sinks}
        if self.attention is not None and any(settings.values()):
            raise ValueError(
                f"With attention={self.attention['class_name']}(...) the mechanism decides what is "
                f"attended to; leave out {', '.join(n for n, value in settings.items() if value)}."
            )

    def build(self, query_shape, value_shape=None, key_shape=None):
        value_shape = value_shape or query_shape
        key_shape = key_shape or value_shape
        self._build_projections(query_shape, value_shape, key_shape)
        self.sinks = None
        if self.use_sinks:
            self.sinks = self.add_weight(name="sinks", shape=(self.num_heads,), initializer="zeros")
        self.dropout_layer = keras.layers.Dropout(
            self.dropout, dtype=self.dtype_policy, name="dropout"
        )
        self.mechanism = None
        if self.attention is not None:
            self._build_mechanism(query_shape, key_shape, value_shape)

    def _build_mechanism(self, query_shape, key_shape, value_shape):
        groups = self.num_key_value_heads
        self.mechanism = from_template(self.attention, self.dtype_policy)
        self.mechanism.build(
            (*query_shape[:2], self.num_heads, self.head_dim),
            (*key_shape[:2], groups, self.head_dim),
            (*value_shape[:2], groups, self.value_dim),
        )

    def state_shapes(self):
        """The state of fixed size that decoding with a mechanism keeps of the past.

        Returns:
            dict of name -> (shape without the batch axis, dtype), in the order of `cache`; None
            without a mechanism, because the cache grows then.

        Raises:
            ValueError: the mechanism has no such state.
        """
        if self.mechanism is None:
            return None
        heads = (self.num_heads, self.num_key_value_heads)
        return self.mechanism.state_shapes(*heads, self.head_dim, self.value_dim)

    def cache_shapes(self):
        """The number and the size of the heads in a cache that grows."""
        groups = self.num_key_value_heads
        return {"key": (groups, self.head_dim), "value": (groups, self.value_dim)}

    def call(
        self,
        query,
        value=None,
        key=None,
        attention_mask=None,
        bias=None,
        position_ids=None,
        cache=None,
        cache_position=None,
        frozen_cache=False,
        return_attention_scores=False,
        global_attention_mask=None,
        training=None,
        *,
        mask=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
    ):
        knows = self.mechanism is not None and "global_mask" in self.mechanism.extras
        if global_attention_mask is not None and not knows:
            raise ValueError(
                f"{self.path}: global_attention_mask needs attention with global tokens, as "
                "`attention=GlobalLocal(...)` has them."
            )
        # A state is not masked: the mask of a mechanism is only over the new keys.
        if attention_mask is None and (cache is None or self.mechanism is not None):
            key_masks = (query_mask,) if value is None else (key_mask, value_mask)
            attention_mask = combine_masks(mask, *key_masks)
        if self.mechanism is not None:
            self._check_mechanism_call(
                bias, position_ids, cache, cache_position, frozen_cache or return_attention_scores
            )
            extras = {"inputs": query, "global_mask": global_attention_mask}
            return self._mix(
                query, value, key, attention_mask, cache, position_ids, extras, training
            )
        given = attention_mask, bias, position_ids, cache, cache_position
        out, *others, scores = self._attend(
            query, value, key, *given, frozen_cache, return_attention_scores, training
        )
        outputs = [out, *others, *((scores,) if return_attention_scores else ())]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _attend(
        self,
        query,
        value,
        key,
        attention_mask,
        bias,
        position_ids,
        cache,
        cache_position,
        frozen_cache,
        return_attention_scores,
        training,
    ):
        """Full attention: the results of `call`, and last the scores or None."""
        crosses = value is not None and cache is not None and cache_position is None
        scored = return_attention_scores or is_recording()
        operation = Attention(self.causal, self.window, self.scale, self.softcap, scored)
        query, key, value, gate = self._project(query, value, key, frozen_cache)
        slots = query_slots(query, cache, cache_position)
        query, key = self._rotate(query, key, position_ids, slots)
        past = cache
        if cache_position is not None:
            cache = past = write((key, value), cache, cache_position)
            key = value = None
            attention_mask = slot_mask(attention_mask, slots, cache[0], self.causal, self.window)
            operation.causal, operation.window = False, None
        elif crosses:
            # A complete cache gets no new keys, and onnxruntime's Attention refuses to join none.
            past = cache = join_past(key, value, *cache)
            key = value = None
        bias = self._position_bias(bias, slots, key, past)
        dropout = None
        if training and self.dropout:
            dropout = functools.partial(self.dropout_layer, training=True)
        out, present, scores = apply_attention(
            operation, query, key, value, attention_mask, bias, self.sinks, past, dropout
        )
        record(self, scores)
        changed = cache is not None and not frozen_cache
        return self._finish(out, gate), *((present or cache,) if changed else ()), scores

    def _mix(self, query, value, key, mask, state, position_ids, extras, training):
        query, key, value, gate = self._project(query, value, key, frozen_cache=False)
        slots = query_slots(query, None, None)
        query, key = self._rotate(query, key, position_ids, slots)
        result = self.mechanism(
            query,
            key,
            value,
            mask=mask,
            state=state,
            causal=self.causal,
            scale=self.scale,
            training=training,
            **{name: extras[name] for name in self.mechanism.extras},
        )
        out, *present = (result,) if state is None else result
        if self.dropout:
            out = self.dropout_layer(out, training=training)
        out = self._finish(out, gate)
        return (out, *present) if present else out

    def _check_mechanism_call(self, bias, position_ids, cache, cache_position, full_only):
        name = type(self.mechanism).__name__
        if bias is not None or hasattr(self.positions, "bias"):
            raise ValueError(f"{self.path}: {name} takes no bias on scores.")
        if cache_position is not None or full_only:
            raise ValueError(
                f"{self.path}: {name} has no scores to return and no cache of keys and values; its "
                "`cache` is what state_shapes() describes."
            )
        if cache is not None and self.positions is not None and position_ids is None:
            raise ValueError(f"{self.path}: with a state, rotary positions need `position_ids`.")

    def _position_bias(self, bias, slots, key, past):
        if not hasattr(self.positions, "bias"):
            return bias
        key_length = 0 if key is None else ops.shape(key)[1]
        if past is not None:
            key_length = key_length + ops.shape(past[0])[2]
        own = self.positions.bias(slots, ops.arange(key_length, dtype="int32"))
        return own if bias is None else add(own, ops.cast(bias, own.dtype))

    def compute_output_spec(
        self,
        query,
        value=None,
        key=None,
        attention_mask=None,
        bias=None,
        position_ids=None,
        cache=None,
        cache_position=None,
        frozen_cache=False,
        return_attention_scores=False,
        global_attention_mask=None,
        training=None,
        **masks,
    ):
        batch, length, width = query.shape
        key_length = query.shape[1] if value is None else value.shape[1]
        outputs = [keras.KerasTensor((batch, length, self.output_dim or width), self.compute_dtype)]
        if self.attention is not None:
            if cache is not None:
                outputs.append(tuple(keras.KerasTensor(x.shape, x.dtype) for x in cache))
        elif frozen_cache:
            key_length = cache[0].shape[2]
        elif cache is not None:
            past_length = cache[0].shape[2]
            if cache_position is not None:
                key_length = past_length
            else:
                known = past_length is not None and key_length is not None
                key_length = past_length + key_length if known else None
            outputs.append(
                tuple(
                    keras.KerasTensor((*old.shape[:2], key_length, old.shape[3]), old.dtype)
                    for old in cache
                )
            )
        if return_attention_scores:
            shape = (batch, self.num_heads, length, key_length)
            outputs.append(keras.KerasTensor(shape, self.compute_dtype))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "num_heads": self.num_heads,
                "head_dim": self.head_dim,
                "num_key_value_heads": self.num_key_value_heads,
                "value_dim": self.value_dim,
                "output_dim": self.output_dim,
                "use_bias": self.use_bias,
                "use_output_bias": self.use_output_bias,
                "causal": self.causal,
                "window": self.window,
                "scale": self.scale,
                "softcap": self.softcap,
                "sinks": self.use_sinks,
                "positions": keras.saving.serialize_keras_object(self.positions),
                **self.norm_kinds,
                "output_gate": self.output_gate,
                "layer_norm_epsilon": self.layer_norm_epsilon,
                "attention": self.attention,
                "dropout": self.dropout,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
                "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            }
        )
        return config

    @classmethod
    def from_config(cls, config):
        positions = keras.saving.deserialize_keras_object(config["positions"])
        return super().from_config({**config, "positions": positions})
