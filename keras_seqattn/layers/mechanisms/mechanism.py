"""The base of attention mechanisms, which `attention=` of a MultiHeadAttention takes."""

import keras


class Mechanism(keras.layers.Layer):
    """From the heads of queries, keys and values to those of the result.

    Given to a `MultiHeadAttention` or a block it is a template, of which each layer builds its own
    copy. Keys and values may have fewer heads than queries: query head i uses head `i // (h / g)`.

    Attributes:
        extras: names of further call arguments that a `MultiHeadAttention` hands on: "inputs",
            float (b, t, m), what it projects; "global_mask", int (b, t).

    Call arguments:
        query: float (b, t, h, d).
        key: float (b, s, g, d).
        value: float (b, s, g, e).
        mask: bool or int (b, s), nonzero = attend; None allows every key.
        state: tuple of the tensors that `state_shapes` describes, what is kept of earlier keys;
            zeros for none. The mask is then over the new keys alone.
        causal: attend to the past only.
        scale: factor of the scores; None is `1 / sqrt(d)`.

    Returns:
        float (b, t, h, e), zeros where a query may attend to nothing; with `state` a tuple of it
        and the new state.
    """

    extras = ()

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_mask(self, inputs, mask=None):
        """None: the mask is of the keys, not of what is returned."""
        return None

    def build(self, query_shape, key_shape=None, value_shape=None):
        self.built = True

    def state_shapes(self, num_heads, num_key_value_heads, head_dim, value_dim):
        """What decoding keeps of the past, of a size that does not grow.

        Args:
            num_heads, num_key_value_heads, head_dim, value_dim: h, g, d and e.

        Returns:
            dict of name -> (shape without the batch axis, dtype), in the order of `state`; a dtype
            of None is the layer's.

        Raises:
            ValueError: the mechanism has no such state.
        """
        self.refuse(())

    def refuse(self, state):
        """Refuse a state, where a mechanism has none.

        Raises:
            ValueError: there is one.
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
