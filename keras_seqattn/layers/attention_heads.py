"""The projections around attention: to the heads of queries, keys and values, and to the result."""

import keras
from keras import ops

from keras_seqattn.layers.normalization import normalization
from keras_seqattn.ops.attention import join_past


class Heads(keras.layers.Layer):
    """The base of an attention layer: its projections, their norms, positions and gate.

    Attributes that the layer sets: num_heads, head_dim, num_key_value_heads, value_dim, output_dim,
    use_bias, use_output_bias, norm_kinds, output_gate, layer_norm_epsilon, positions, and the
    initializers.
    """

    def _build_projections(self, query_shape, value_shape, key_shape):
        groups, width = self.num_key_value_heads, query_shape[-1]
        sizes = self.head_dim + self.value_dim * self.output_gate
        self.query = self._dense("query", width, self.num_heads * sizes)
        self.key = self._dense("key", key_shape[-1], groups * self.head_dim)
        self.value = self._dense("value", value_shape[-1], groups * self.value_dim)
        self.output_dense = self._dense(
            "output_dense",
            self.num_heads * self.value_dim,
            self.output_dim or width,
            self.use_output_bias,
        )
        self.query_norm, self.key_norm = (
            normalization(kind, self.layer_norm_epsilon, self.head_dim, self.dtype_policy, name)
            for name, kind in self.norm_kinds.items()
        )

    def _dense(self, name, input_dim, units, use_bias=None):
        layer = keras.layers.Dense(
            units,
            use_bias=self.use_bias if use_bias is None else use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
            bias_initializer=self.bias_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build((None, None, input_dim))
        return layer

    def project_context(self, value, key=None):
        """The keys and values of a context, in the layout of a cache.

        Args:
            value: float (b, s, m').
            key: float (b, s, m'); None is `value`.

        Returns:
            float (b, g, s, d) and (b, g, s, e).
        """
        return join_past(*self._project_keys(value, key))

    def _project(self, query, value, key, frozen_cache):
        if frozen_cache and self.positions is not None:
            raise ValueError(
                f"{self.path}: a frozen cache is one of cross-attention, which takes no positions; "
                f"the layer has positions={self.positions}."
            )
        sizes, gate = self.head_dim + self.value_dim * self.output_gate, None
        heads = _split_heads(self.query(query), self.num_heads, sizes)
        if self.output_gate:
            heads, gate = ops.split(heads, [self.head_dim], axis=-1)
        if self.query_norm is not None:
            heads = self.query_norm(heads)
        if frozen_cache:
            return heads, None, None, gate
        return heads, *self._project_keys(query if value is None else value, key), gate

    def _project_keys(self, value, key):
        groups = self.num_key_value_heads
        key = _split_heads(self.key(value if key is None else key), groups, self.head_dim)
        value = _split_heads(self.value(value), groups, self.value_dim)
        return key if self.key_norm is None else self.key_norm(key), value

    def _rotate(self, query, key, position_ids, slots):
        if not hasattr(self.positions, "rotate"):
            return query, key
        if position_ids is None:
            position_ids = ops.expand_dims(slots, 0)
        return self.positions.rotate(query, key, position_ids)

    def _finish(self, out, gate):
        """Apply the gates to the heads float (b, t, h, e), and project them to float (b, t, m)."""
        if gate is not None:
            out = ops.multiply(out, ops.sigmoid(gate))
        out = ops.reshape(out, (*ops.shape(out)[:2], self.num_heads * self.value_dim))
        return self.output_dense(out)


def _split_heads(x, heads, size):
    # The batch cannot be -1: a context without new positions has no elements to infer it from.
    batch, length = ops.shape(x)[:2]
    return ops.reshape(x, (batch, length, heads, size))
