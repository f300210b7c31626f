"""A task of its own: one vector for each row, the mean of its real tokens through a matrix."""

import keras
from keras import ops

from keras_seqattn.models import register_head
from keras_seqattn.models.heads import head_initializer
from keras_seqattn.weights import dense_rows


@keras.saving.register_keras_serializable(package="outside")
class MaskedMean(keras.layers.Layer):
    def call(self, hidden, mask):
        weights = ops.expand_dims(ops.cast(mask, hidden.dtype), -1)
        return ops.sum(hidden * weights, 1) / ops.maximum(ops.sum(weights, 1), 1.0)

    def compute_output_spec(self, hidden, mask):
        return keras.KerasTensor((hidden.shape[0], hidden.shape[2]), hidden.dtype)


def head(body, settings):
    mean = MaskedMean(name="masked_mean")(body.hidden, body.inputs["attention_mask"])
    new = head_initializer(settings)
    dense = keras.layers.Dense(5, "tanh", kernel_initializer=new, name="sentence")
    return {"sentence_embedding": dense(mean)}


def register(families):
    register_head("sentence_embedding", head, families, dense_rows("sentence", "sentence"))
