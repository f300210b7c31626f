"""The decoder with attention of https://arxiv.org/abs/1409.0473, and the reversal of sources."""

import keras
from keras import ops

from keras_seqattn.layers.additive_attention import AdditiveAttention, allowed_keys
from keras_seqattn.layers.recording import is_recording, record
from keras_seqattn.ops.arguments import checked
from keras_seqattn.ops.broadcasting import add
from keras_seqattn.ops.scan import scan


@keras.saving.register_keras_serializable(package="keras_seqattn")
class AttentiveDecoder(keras.layers.Layer):
    """A GRU over targets that attends to a source before each step (appendix A.1.2 of the paper).

    With x the input, h the context and s the state,

        c_i = attention(s_{i-1}, h)
        z_i = sigmoid(W_z x_i + U_z s_{i-1} + C_z c_i)
        r_i = sigmoid(W_r x_i + U_r s_{i-1} + C_r c_i)
        s_i = (1 - z_i) s_{i-1} + z_i tanh(W x_i + U (r_i s_{i-1}) + C c_i).

    Teacher forcing is one call with all inputs. Decoding is one call for each input, with the state
    that the last call returned. ONNX Scan.

    Args:
        units: width n of the state.
        attention_units: width a of the alignment model; None is `units`.
        kernel_initializer, recurrent_initializer, bias_initializer: as in `keras.layers.GRU`.

    Call arguments:
        inputs: float (b, t, m), the embedded previous tokens.
        context: float (b, s, c), the encoded source.
        keys: float (b, s, a), the result of `compute_keys` for the context; None computes it.
        initial_state: float (b, n); None is zeros.
        context_mask: bool or int (b, s), nonzero = attend; None takes the implicit Keras mask of
            the context.
        return_attention_scores: also return the probabilities.

    Returns:
        tuple of the states s_{i-1} before each step, float (b, t, n); the attended vectors c_i,
        float (b, t, c); the last state, float (b, n); and, with `return_attention_scores`, the
        probabilities, float (b, t, s).

    Example:
        decoder = AttentiveDecoder(256)
        states, contexts, last = decoder(embedded, encoded, initial_state=first)
        keys = decoder.compute_keys(encoded)
        _, _, state = decoder(embedded[:, :1], encoded, keys=keys, initial_state=first)
    """

    @checked
    def __init__(
        self,
        units,
        attention_units=None,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.units = units
        self.attention_units = attention_units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, inputs_shape, context_shape):
        units, context_dim = self.units, context_shape[-1]
        kernel, recurrent = self.kernel_initializer, self.recurrent_initializer
        self.attention = AdditiveAttention(
            self.attention_units or units,
            kernel_initializer=kernel.clone(),
            dtype=self.dtype_policy,
            name="attention",
        )
        self.attention.build((None, None, units), context_shape)
        self.input_gates = self._dense("input_gates", inputs_shape[-1], 3 * units, kernel, True)
        self.context_gates = self._dense("context_gates", context_dim, 3 * units, kernel)
        self.state_gates = self._dense("state_gates", units, 2 * units, recurrent)
        self.candidate = self._dense("candidate", units, units, recurrent)

    def _dense(self, name, input_dim, units, initializer, use_bias=False):
        layer = keras.layers.Dense(
            units,
            use_bias=use_bias,
            kernel_initializer=initializer.clone(),
            bias_initializer=self.bias_initializer.clone(),
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build((None, input_dim))
        return layer

    def compute_keys(self, context):
        """The keys of the attention, `U h`, float (b, s, a); they are the same at every step."""
        return self.attention.compute_keys(context)

    def call(
        self,
        inputs,
        context,
        keys=None,
        initial_state=None,
        context_mask=None,
        return_attention_scores=False,
    ):
        allowed = allowed_keys(context_mask)
        keys = self.compute_keys(context) if keys is None else keys
        batch, dtype = ops.shape(inputs)[0], self.compute_dtype
        if initial_state is None:
            initial_state = ops.zeros((batch, self.units), dtype)
        # TensorFlow's scan returns only outputs with the shapes of its state. So the state holds
        # everything that must be returned.
        carry = [initial_state, ops.zeros((batch, context.shape[-1]), dtype)]
        scored = return_attention_scores or is_recording()
        if scored:
            carry.append(ops.zeros((batch, ops.shape(context)[1]), dtype))

        def step(carry, slices):
            (gates,), state = slices, carry[0]
            attended, scores = self.attention.attend(
                ops.expand_dims(state, 1), context, keys, allowed
            )
            found = [ops.squeeze(x, 1) for x in (attended, scores)[: len(carry) - 1]]
            return [self._next_state(gates, state, found[0]), *found], [state, *found]

        # The part of the gates from the inputs needs no state: one product for all steps.
        gates = ops.transpose(self.input_gates(inputs), (1, 0, 2))
        (last, *_), outputs = scan(step, carry, (gates,))
        states, contexts, *scores = (ops.transpose(x, (1, 0, 2)) for x in outputs)
        if scored:
            record(self, scores[0])
        return (states, contexts, last, *(scores if return_attention_scores else ()))

    def _next_state(self, gates, state, context):
        gates = add(gates, self.context_gates(context))
        opening, candidate = ops.split(gates, [2 * self.units], axis=-1)
        opening = ops.sigmoid(add(opening, self.state_gates(state)))
        update, reset = ops.split(opening, 2, axis=-1)
        recurrent = self.candidate(ops.multiply(reset, state))
        candidate = ops.tanh(add(candidate, recurrent))
        return add(state, ops.multiply(update, ops.subtract(candidate, state)))

    def compute_output_spec(
        self,
        inputs,
        context,
        keys=None,
        initial_state=None,
        context_mask=None,
        return_attention_scores=False,
        **masks,
    ):
        batch, length, _ = inputs.shape
        shapes = [
            (batch, length, self.units),
            (batch, length, context.shape[2]),
            (batch, self.units),
        ]
        if return_attention_scores:
            shapes.append((batch, length, context.shape[1]))
        return tuple(keras.KerasTensor(shape, self.compute_dtype) for shape in shapes)

    def get_config(self):
        config = super().get_config()
        initializers = ("kernel_initializer", "recurrent_initializer", "bias_initializer")
        config.update(
            {
                "units": self.units,
                "attention_units": self.attention_units,
                **{
                    name: keras.initializers.serialize(getattr(self, name)) for name in initializers
                },
            }
        )
        return config


@keras.saving.register_keras_serializable(package="keras_seqattn")
class ReverseTime(keras.layers.Layer):
    """Reverses each row: from the last position to the first; ONNX Slice.

    Call arguments:
        x: (b, t) or (b, t, m).

    Returns:
        x, reversed along t.
    """

    def call(self, x):
        return ops.flip(x, axis=1)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)
