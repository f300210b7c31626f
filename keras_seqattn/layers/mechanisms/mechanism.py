"""The base of attention mechanisms, for the argument `attention=` of MultiHeadAttention."""

import keras


class Mechanism(keras.layers.Layer):
    """Computes the heads of the result from the heads of queries, keys and values.

    A mechanism that you give to a `MultiHeadAttention` or a block is a template: each layer builds
    its own copy. Keys and values may have fewer heads than queries: query head i uses head
    `i // (h / g)`.

    Attributes:
        extras: names of additional call arguments that a `MultiHeadAttention` passes on: "inputs",
            float (b, t, m), the input of its projections; "global_mask", int (b, t).

    Call arguments:
        query: float (b, t, h, d).
        key: float (b, s, g, d).
        value: float (b, s, g, e).
        mask: bool or int (b, s), nonzero = attend; None allows every key.
        state: tuple of the tensors that `state_shapes` describes, the state of the earlier keys;
            zeros if there are none. The mask is then only over the new keys.
        causal: attend to the past only.
        scale: factor of the scores; None is `1 / sqrt(d)`.

    Returns:
        float (b, t, h, e), zeros if a query may attend to nothing; with `state`, a tuple of this
        and the new state.
    """

    extras = ()

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_mask(self, inputs, mask=None):
        """None, because the mask is for the keys and not for the result."""
        return None

    def build(self, query_shape, key_shape=None, value_shape=None):
        self.built = True

    def state_shapes(self, num_heads, num_key_value_heads, head_dim, value_dim):
        """The state that decoding keeps of the past. Its size does not grow.

        Args:
            num_heads, num_key_value_heads, head_dim, value_dim: h, g, d and e.

        Returns:
            dict of name -> (shape without the batch axis, dtype), in the order of `state`; dtype
            None is the dtype of the layer.

        Raises:
            ValueError: the mechanism has no such state.
        """
        self.refuse(())

    def refuse(self, state):
        """Refuse a state, for mechanisms that have none.

        Raises:
            ValueError: a state is given.
        """
        if state is not None:
            raise ValueError(
                f"{type(self).__name__} has no state of a fixed size, so it cannot decode step by "
                "step."
            )

    def compute_output_spec(self, query, key, value, mask=None, state=None, **kwargs):
        out = keras.KerasTensor((*query.shape[:3], value.shape[3]), query.dtype)
        if state is None:
            return out
        return out, tuple(keras.KerasTensor(old.shape, old.dtype) for old in state)
