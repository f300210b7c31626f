"""A layer that makes the cache of a cross-attention."""

import keras


class ContextCache(keras.layers.Layer):
    """The keys and values of a context, for a cross-attention.

    Args:
        attention: a built `MultiHeadAttention`.

    Call arguments:
        context: float (b, s, m).

    Returns:
        float (b, h, s, d) and (b, h, s, d).
    """

    def __init__(self, attention, **kwargs):
        super().__init__(dtype=attention.dtype_policy, **kwargs)
        self.attention = attention

    def call(self, context):
        return self.attention.project_context(context)

    def compute_output_spec(self, context):
        batch, length, _ = context.shape
        groups, dtype = self.attention.num_key_value_heads, self.compute_dtype
        sizes = (self.attention.head_dim, self.attention.value_dim)
        return tuple(keras.KerasTensor((batch, groups, length, n), dtype) for n in sizes)
