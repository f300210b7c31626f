"""A layer of a user, for tests of the exporter."""

import keras


class Apply(keras.layers.Layer):
    """A layer around a function of keras.ops, so that a test can trace it.

    Args:
        function: of the layer's inputs.
        spec: `keras.KerasTensor` of the result, or None: Keras finds it.
    """

    def __init__(self, function, spec=None, **kwargs):
        super().__init__(**kwargs)
        self.function, self.spec = function, spec

    def call(self, *xs):
        return self.function(*xs)

    def compute_output_spec(self, *xs):
        return super().compute_output_spec(*xs) if self.spec is None else self.spec
