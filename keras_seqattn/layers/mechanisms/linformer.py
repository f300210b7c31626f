"""Attention to a fixed number of learned mixtures of keys."""

import keras

from keras_seqattn.layers.mechanisms.mechanism import Mechanism
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.linformer import LinformerAttention

SHARING = ("heads", "key_value")


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Linformer(Mechanism):
    """Linformer, O(n k), bidirectional (https://arxiv.org/abs/2006.04768).

    The weights of a key depend on its position among the real keys, so padding on either side
    changes nothing.

    Args:
        num_features: number k of mixtures.
        max_length: the largest number n of keys.
        shared: "heads": all heads share one projection for keys and one for values; or
            "key_value": keys and values share one projection, too.

    Raises:
        ValueError: `shared` is unknown; or it is called with `causal`, which Linformer does not
            have, or with more keys than `max_length`. If the number of keys is not known, the
            backend or onnxruntime fails on the shapes instead.

    Example:
        MultiHeadAttention(8, 64, attention=Linformer(256, max_length=4096))
    """

    @checked
    def __init__(self, num_features, max_length, shared="heads", **kwargs):
        super().__init__(**kwargs)
        if shared not in SHARING:
            raise ValueError(f"shared must be one of {', '.join(SHARING)}. Received: {shared!r}")
        self.num_features = num_features
        self.max_length = max_length
        self.shared = shared

    def build(self, query_shape, key_shape=None, value_shape=None):
        self.key_projection = self._projection("key_projection")
        self.value_projection = self.key_projection
        if self.shared == "heads":
            self.value_projection = self._projection("value_projection")
        self.built = True

    def _projection(self, name):
        return self.add_weight(
            name=name,
            shape=(self.max_length, self.num_features),
            # Random projections that keep the lengths of vectors.
            initializer=keras.initializers.RandomNormal(stddev=self.num_features**-0.5),
        )

    def call(
        self, query, key, value, mask=None, state=None, causal=False, scale=None, training=None
    ):
        if causal:
            raise ValueError(
                f"{self.path}: Linformer mixes keys of all places, so it cannot be causal; use "
                "Linear, Performer or Local."
            )
        self.refuse(state)
        projections = (self.key_projection, self.value_projection)
        return LinformerAttention(scale)(query, key, value, *projections, mask)

    def get_config(self):
        return {
            **super().get_config(),
            "num_features": self.num_features,
            "max_length": self.max_length,
            "shared": self.shared,
        }
