"""Sequence to sequence with LSTMs (https://arxiv.org/abs/1409.3215): one vector per source."""

import keras

from keras_seqattn.layers.recurrent import ReverseTime
from keras_seqattn.models.family import Family
from keras_seqattn.models.functional import PortModel, named_layers, numbered_layers, symbolic
from keras_seqattn.models.recurrent import (
    DEFAULTS,
    EMBEDDING_ROWS,
    EMBEDDING_SHAPES,
    HEAD_ROWS,
    KERAS_NAMES,
    KEYS,
    drop,
    embed,
    encoder_inputs,
    head_outputs,
    logits,
    make_embeddings,
    model_inputs,
    state_inputs,
    step_tokens,
)
from keras_seqattn.models.values import FLAG
from keras_seqattn.ports import names
from keras_seqattn.weights.rows import WeightRow
from keras_seqattn.weights.table import Table

_DEFAULTS = {
    **DEFAULTS,
    "vocab_size": 80000,
    "embedding_size": 1000,
    "hidden_size": 1000,
    "num_hidden_layers": 4,
    # Sources are read from the last token to the first.
    "reverse_source": True,
}
_SIDES = ("encoder", "decoder")


def _build(settings, task, initializer):
    layers = _make_layers(settings, initializer)
    inputs = model_inputs(settings)
    states = _encode(layers, inputs["input_ids"], inputs["attention_mask"])
    x, _ = _decode(layers, inputs["decoder_input_ids"], states)
    return inputs, head_outputs(layers, task, x, inputs, settings)


def _make_layers(settings, initializer):
    width = settings["hidden_size"]
    layers = make_embeddings("rnn_seq2seq", settings, width, initializer)
    if settings["reverse_source"]:
        for name in ("reversed_ids", "reversed_mask"):
            layers[name] = ReverseTime(name=name)
    for side in _SIDES:
        for index in range(settings["num_hidden_layers"]):
            name = f"{side}_layers_{index}"
            layers[name] = keras.layers.LSTM(
                width,
                return_sequences=True,
                return_state=True,
                kernel_initializer=initializer(),
                name=name,
            )
    return layers


def _encode(layers, input_ids, attention_mask):
    """The last states of every layer: list of (hidden, cell), each float (b, n).

    If a row with padding on the right is reversed, the padding is on the left. Padding is masked on
    both sides and does not change the states. So only the real tokens count, in reversed order.
    """
    if "reversed_ids" in layers:
        input_ids = layers["reversed_ids"](input_ids)
        attention_mask = layers["reversed_mask"](attention_mask)
    x, states = embed(layers, "encoder", input_ids), []
    for index, lstm in enumerate(_stack(layers, "encoder")):
        x = drop(layers, "encoder", x) if index else x
        x, *state = lstm(x, mask=attention_mask)
        states.append(state)
    return states


def _decode(layers, input_ids, states):
    """The hidden states float (b, t, m), and the last states, as from `_encode`."""
    x, last = embed(layers, "decoder", input_ids), []
    for index, lstm in enumerate(_stack(layers, "decoder")):
        x = drop(layers, "decoder", x) if index else x
        x, *state = lstm(x, initial_state=states[index])
        last.append(state)
    return x, last


def _encoder_model(model, static):
    inputs = encoder_inputs(model)
    outputs = _presents(_encode(named_layers(model), **inputs))
    return PortModel(inputs, outputs, name=f"{model.name}_encoder")


def _step_model(model, static):
    layers = named_layers(model)
    stack = _stack(layers, "decoder")
    inputs = symbolic(step_tokens(model))
    states = []
    for index, lstm in enumerate(stack):
        pair = state_inputs([(index, "hidden"), (index, "cell")], lstm)
        states.append(list(pair.values()))
        inputs |= pair
    x, last = _decode(layers, inputs["input_ids"], states)
    outputs = {"logits": logits(layers, x), **_presents(last)}
    return PortModel(inputs, outputs, name=f"{model.name}_step")


def _presents(states):
    return {
        names.state_names(index, part)[1]: state
        for index, pair in enumerate(states)
        for part, state in zip(("hidden", "cell"), pair, strict=True)
    }


def _stack(layers, side):
    return numbered_layers(layers, f"{side}_layers_")


_TABLE = Table(
    body=(
        *EMBEDDING_ROWS,
        *(
            WeightRow(f"{side}.layers.{{i}}.{part}", f"{side}_layers_{{i}}/lstm_cell/{part}")
            for side in _SIDES
            for part in ("kernel", "recurrent_kernel", "bias")
        ),
        *HEAD_ROWS,
    )
)

FAMILY = Family(
    model_type="rnn_seq2seq",
    architectures={"seq2seq_lm": "RNNSeq2SeqForConditionalGeneration"},
    defaults=_DEFAULTS,
    fixed={},
    build=_build,
    table=_TABLE,
    step=_step_model,
    encoder=_encoder_model,
    keys=KEYS | {"reverse_source": FLAG},
    keras_names=KERAS_NAMES,
    shapes={
        **EMBEDDING_SHAPES,
        "encoder.layers.0.kernel": ("embedding_size", "4 * hidden_size"),
        "encoder.layers.{i}.recurrent_kernel": ("hidden_size", "4 * hidden_size"),
    },
    layer_counts={f"{side}_layers_{{i}}": ("num_hidden_layers",) for side in _SIDES},
)
