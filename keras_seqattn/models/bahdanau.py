"""Translation with attention (https://arxiv.org/abs/1409.0473): a GRU attends to a BiGRU."""

import keras

from keras_seqattn.layers.maxout import Maxout
from keras_seqattn.layers.recurrent import AttentiveDecoder
from keras_seqattn.models.family import Family
from keras_seqattn.models.functional import PortModel, named_layers, symbolic
from keras_seqattn.models.recurrent import (
    DEFAULTS,
    EMBEDDING_ROWS,
    EMBEDDING_SHAPES,
    HEAD_ROWS,
    KERAS_NAMES,
    KEYS,
    embed,
    encoder_inputs,
    head_outputs,
    logits,
    make_embeddings,
    model_inputs,
    state_inputs,
    step_tokens,
)
from keras_seqattn.models.values import SIZE
from keras_seqattn.ports import names
from keras_seqattn.weights.rows import WeightRow, dense_rows
from keras_seqattn.weights.table import Table

_DEFAULTS = {
    **DEFAULTS,
    "vocab_size": 30000,
    "embedding_size": 620,
    "hidden_size": 1000,
    "attention_size": 1000,
    "maxout_size": 500,
}
_STATE = (0, "hidden")


def _build(settings, task, initializer):
    layers = _make_layers(settings, initializer)
    inputs = model_inputs(settings)
    mask = inputs["attention_mask"]
    context, state = _encode(layers, inputs["input_ids"], mask)
    x, _ = _decode(layers, inputs["decoder_input_ids"], state, context, mask)
    return inputs, head_outputs(layers, task, x, inputs, settings)


def _make_layers(settings, initializer):
    width = settings["hidden_size"]
    layers = make_embeddings("bahdanau", settings, settings["maxout_size"], initializer)
    layers["encoder"] = keras.layers.Bidirectional(
        keras.layers.GRU(
            width,
            return_sequences=True,
            return_state=True,
            # As in the paper, the reset gate acts on the state, not on the product of the state.
            reset_after=False,
            kernel_initializer=initializer(),
            name="gru",
        ),
        name="encoder",
    )
    layers["initial_state"] = keras.layers.Dense(
        width, "tanh", kernel_initializer=initializer(), name="initial_state"
    )
    layers["decoder"] = AttentiveDecoder(
        width, settings["attention_size"], kernel_initializer=initializer(), name="decoder"
    )
    layers["deep_output_inputs"] = keras.layers.Concatenate(name="deep_output_inputs")
    layers["deep_output"] = Maxout(
        settings["maxout_size"], kernel_initializer=initializer(), name="deep_output"
    )
    return layers


def _encode(layers, input_ids, attention_mask):
    """The annotations h, float (b, s, 2n), and the first state of the decoder, float (b, n)."""
    x = embed(layers, "encoder", input_ids)
    context, _, backward = layers["encoder"](x, mask=attention_mask)
    return context, layers["initial_state"](backward)


def _decode(layers, input_ids, state, context, mask, keys=None):
    """The hidden states float (b, t, m) and the last state, float (b, n)."""
    x = embed(layers, "decoder", input_ids)
    states, contexts, state = layers["decoder"](
        x, context, keys=keys, initial_state=state, context_mask=mask
    )
    x = layers["deep_output_inputs"]([states, x, contexts])
    return layers["deep_output"](x), state


def _encoder_model(model, static):
    layers, inputs = named_layers(model), encoder_inputs(model)
    context, state = _encode(layers, **inputs)
    outputs = {
        names.ENCODED: context,
        names.CONTEXT_KEYS: layers["decoder"].compute_keys(context),
        names.state_names(*_STATE)[1]: state,
    }
    return PortModel(inputs, outputs, name=f"{model.name}_encoder")


def _step_model(model, static):
    layers = named_layers(model)
    decoder = layers["decoder"]
    dtype = decoder.compute_dtype
    inputs = symbolic(
        names.source_mask(),
        step_tokens(model),
        names.context(2 * decoder.units, dtype),
        names.context(decoder.attention_units, dtype, names.CONTEXT_KEYS),
    )
    past = state_inputs([_STATE], decoder)
    inputs |= past
    x, state = _decode(
        layers,
        inputs["input_ids"],
        *past.values(),
        inputs[names.CONTEXT],
        inputs["encoder_attention_mask"],
        inputs[names.CONTEXT_KEYS],
    )
    outputs = {"logits": logits(layers, x), names.state_names(*_STATE)[1]: state}
    return PortModel(inputs, outputs, name=f"{model.name}_step")


def _gru_rows(direction):
    return (
        WeightRow(f"encoder.{direction}.{part}", f"encoder/{direction}_gru/gru_cell/{part}")
        for part in ("kernel", "recurrent_kernel", "bias")
    )


_DENSE = {
    "initial_state": "initial_state",
    "decoder.attention.query": "decoder/attention/query",
    "decoder.attention.key": "decoder/attention/key",
    "decoder.attention.score_vector": "decoder/attention/score_vector",
    "decoder.input_gates": "decoder/input_gates",
    "decoder.context_gates": "decoder/context_gates",
    "decoder.state_gates": "decoder/state_gates",
    "decoder.candidate": "decoder/candidate",
    "deep_output": "deep_output/dense",
}
_TABLE = Table(
    body=(
        *EMBEDDING_ROWS,
        *_gru_rows("forward"),
        *_gru_rows("backward"),
        *(row for pair in _DENSE.items() for row in dense_rows(*pair)),
        *HEAD_ROWS,
    )
)

FAMILY = Family(
    model_type="bahdanau",
    architectures={"seq2seq_lm": "BahdanauForConditionalGeneration"},
    defaults=_DEFAULTS,
    fixed={},
    build=_build,
    table=_TABLE,
    step=_step_model,
    encoder=_encoder_model,
    keys=KEYS | {"attention_size": SIZE, "maxout_size": SIZE},
    keras_names=KERAS_NAMES,
    shapes={
        **EMBEDDING_SHAPES,
        "encoder.forward.recurrent_kernel": ("hidden_size", "3 * hidden_size"),
        "decoder.attention.query.weight": ("attention_size", "hidden_size"),
        "deep_output.weight": ("2 * maxout_size", "3 * hidden_size + embedding_size"),
    },
    layer_counts={},
)
