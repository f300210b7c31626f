"""The base of layers that replace self-attention in a block."""

import keras


class Mixer(keras.layers.Layer):
    """A layer that mixes tokens over time. As `mixer=` of a block it is a template.

    Call arguments:
        x: float (b, t, m).
        attention_mask: bool or int, nonzero = real: (b, t) if its state has a fixed size, else
            (b, p + t) with the cached tokens. Tokens that are not real do not change a state.
        position_ids: int (b, t).
        cache: tuple of the tensors that `state_shapes` or `cache_shapes` describes; zeros or empty
            at first.
        cache_position: int () or (1,), the slot of the first new token if the cache is a buffer.

    Returns:
        float (b, t, m); with `cache`, a tuple of this and the new cache.
    """

    def state_shapes(self):
        """The state that decoding keeps of the past, if its size does not grow.

        Returns:
            dict of name -> (shape without the batch axis, dtype), in the order of `cache`; dtype
            None is the dtype of the layer. The result is None if the cache grows.
        """
        return None

    def cache_shapes(self):
        """The number and the size of the heads in a cache that grows.

        Returns:
            dict of "key" and "value" -> (heads, size).

        Raises:
            ValueError: the layer has a state instead.
        """
        raise ValueError(f"{self.path}: {type(self).__name__} has no cache that grows.")

    def _dense(self, name, input_dim, units, use_bias=False):
        layer = keras.layers.Dense(
            units,
            use_bias=use_bias,
            kernel_initializer=self.kernel_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build((None, None, input_dim))
        return layer

    def compute_output_spec(
        self,
        x,
        attention_mask=None,
        position_ids=None,
        cache=None,
        cache_position=None,
        training=None,
        **masks,
    ):
        out = keras.KerasTensor(x.shape, self.compute_dtype)
        if cache is None:
            return out
        return out, tuple(keras.KerasTensor(old.shape, old.dtype) for old in cache)
