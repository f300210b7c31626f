"""A decoder of layers with a state of fixed size, of caches that grow, or of both."""

import keras
from keras import ops

from keras_seqattn.layers.mixer import Mixer
from keras_seqattn.layers.positions import RotaryPositions
from keras_seqattn.models.decoder import DecoderSpec, full_pass, make_layers
from keras_seqattn.models.functional import symbolic
from keras_seqattn.models.sequence_model import SequenceModel
from keras_seqattn.ports import names
from tests.helpers import randomise

VOCABULARY, EOS, PAD = 61, 5, 3


@keras.saving.register_keras_serializable(package="tests")
class DecayedSum(Mixer):
    """`s_t = a s_{t-1} + W x_t` over the real tokens, and their number beside it."""

    def __init__(self, decay=0.8, **kwargs):
        super().__init__(**kwargs)
        self.decay = decay

    def build(self, x_shape):
        width = x_shape[-1]
        self.kernel = self.add_weight(name="kernel", shape=(width, width))

    def call(
        self,
        x,
        attention_mask=None,
        position_ids=None,
        cache=None,
        cache_position=None,
        training=None,
    ):
        mask = ops.ones_like(x[..., 0]) if attention_mask is None else attention_mask
        mask = ops.cast(mask, x.dtype)
        count = ops.cumsum(mask, axis=1)
        order = ops.arange(ops.shape(x)[1])
        earlier = ops.expand_dims(order, 1) >= ops.expand_dims(order, 0)
        ages = ops.expand_dims(count, 2) - ops.expand_dims(count, 1)
        weights = ops.where(earlier, self.decay ** ops.where(earlier, ages, 0.0), 0.0)
        out = ops.matmul(weights * ops.expand_dims(mask, 1), ops.matmul(x, self.kernel))
        if cache is None:
            return out
        total, tokens = cache
        out = out + ops.expand_dims(self.decay**count, 2) * ops.expand_dims(total, 1)
        return out, (out[:, -1], tokens + ops.cast(count[:, -1:], "int32"))

    def state_shapes(self):
        return {"sum": ((self.kernel.shape[0],), None), "tokens": ((1,), "int32")}

    def get_config(self):
        return {**super().get_config(), "decay": self.decay}


SUMS = {"mixer": DecayedSum()}
DENSE = {"positions": RotaryPositions(16)}
STREAMING, HYBRID = (SUMS, {"mixer": DecayedSum(0.5)}), (SUMS, DENSE, SUMS)


def decoder(layers, **config):
    """A causal language model over blocks with these arguments, its weights redrawn."""
    sizes = {"vocabulary_size": VOCABULARY, "hidden_dim": 22}
    block = {
        "num_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_dim": 29,
        "norm": "rms_norm",
        "layer_norm_epsilon": 1e-5,
        "normalize_first": True,
    }
    parts = make_layers(DecoderSpec(**sizes, layers=layers, block=block), lambda: "glorot_uniform")
    inputs = symbolic(names.tokens(VOCABULARY), names.mask())
    logits = parts["token_embedding"](full_pass(parts, **inputs), reverse=True)
    config = {
        "vocab_size": VOCABULARY,
        "num_attention_heads": 4,
        "hidden_size": 22,
        "num_hidden_layers": len(layers),
        "max_position_embeddings": 37,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        **config,
    }
    return randomise(
        SequenceModel(inputs, {"logits": logits}, family="llama", task="causal_lm", config=config),
        seed=6,
    )
