"""Recurrent layers agree with Keras, one node each, whatever the mask; other cells as Scan."""

from collections import Counter

import keras
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from keras import layers, ops

from keras_seqattn.errors import ExportError
from keras_seqattn.inspection import inspect
from keras_seqattn.onnx import build_graph, export
from tests.helpers import randomise
from tests.onnx import recurrence
from tests.onnx.recurrence import UNITS, WIDTH, Counting, Recurrent, begun, check, loops, model
from tests.onnx.test_lowerings import Apply

KINDS = {
    "lstm": (layers.LSTM, {}, "LSTM"),
    "gru": (layers.GRU, {}, "GRU"),
    "gru_reset_before": (layers.GRU, {"reset_after": False}, "GRU"),
    "simple": (layers.SimpleRNN, {}, "RNN"),
}
STATES = {"lstm": (UNITS, UNITS)}
# Keras on JAX gives the initial state, or part of a state, where the other backends give zeros, or
# the last output; and it is an error where their shapes differ.
repeats_outputs = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX repeats the first state, not the output"
)


def layer(kind, **settings):
    cls, own, _ = KINDS[kind]
    return cls(UNITS, name="recurrent", return_state=True, **own, **settings)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_layer_is_one_node(kind, masked, backwards):
    settings = {"return_sequences": True, "go_backwards": backwards}
    graph = check(model(layer(kind, **settings), masked), lengths=(1, 5, 29), target="portable")
    assert loops(graph) == [KINDS[kind][2]]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_last_output_and_initial_state(kind, masked):
    states = STATES.get(kind, (UNITS,))
    check(model(layer(kind, go_backwards=masked), masked, states), begun)


@repeats_outputs
@pytest.mark.parametrize(
    "kind, sequences, backwards",
    [("lstm", True, True), ("lstm", False, False), ("gru", False, True), ("simple", True, False)],
)
def test_rows_without_a_real_step_keep_their_state(kind, sequences, backwards):
    settings = {"return_sequences": sequences, "go_backwards": backwards}
    check(model(layer(kind, **settings), masked=True, states=STATES.get(kind, (UNITS,))))


@pytest.mark.parametrize("sequences", [False, True])
def test_zero_output_for_mask(sequences):
    settings = {"return_sequences": sequences, "go_backwards": not sequences}
    check(model(layer("gru", zero_output_for_mask=True, **settings), masked=True))


@pytest.mark.parametrize(
    "merge, sequences, masked",
    [
        *((merge, True, True) for merge in ("concat", "sum", "mul", "ave", None)),
        *((merge, False, False) for merge in ("concat", None)),
    ],
)
def test_bidirectional_is_one_node(merge, sequences, masked):
    inner = layer("lstm", return_sequences=sequences)
    both = layers.Bidirectional(inner, merge_mode=merge, name="both")
    graph = check(model(both, masked), lengths=(1, 29) if merge == "concat" else (29,))
    assert loops(graph) == ["LSTM"]


@pytest.mark.parametrize("kind", ["gru", "gru_reset_before", "simple"])
def test_bidirectional_of_other_kinds_with_states(kind):
    both = layers.Bidirectional(layer(kind, return_sequences=True), name="both")
    graph = check(model(both, masked=True, states=(UNITS, UNITS)), begun)
    assert loops(graph) == [KINDS[kind][2]]


PAIRS = {
    "widths": (layers.LSTM(UNITS), layers.LSTM(3, go_backwards=True)),
    "kinds": (layers.LSTM(UNITS), layers.GRU(UNITS, go_backwards=True)),
    "backward_first": (layers.LSTM(UNITS, go_backwards=True), layers.LSTM(UNITS)),
    "cells": (
        layers.RNN([layers.GRUCell(UNITS), layers.GRUCell(3)]),
        layers.RNN([layers.GRUCell(UNITS), layers.GRUCell(3)], go_backwards=True),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_bidirectional_as_two(name):
    forward, backward = (type(x).from_config(x.get_config()) for x in PAIRS[name])
    forward.return_sequences = backward.return_sequences = True
    both = layers.Bidirectional(forward, backward_layer=backward, name="both")
    assert len(loops(check(model(both, masked=True)))) == (4 if name == "cells" else 2)


@pytest.mark.parametrize("sequences, masked", [(False, False), (True, True)])
def test_stacked_cells_are_a_node_each(sequences, masked):
    cells = [layers.GRUCell(3, name="a"), layers.LSTMCell(UNITS, name="b")]
    settings = {"return_sequences": sequences, "return_state": True, "go_backwards": True}
    graph = check(model(layers.RNN(cells, name="stack", **settings), masked))
    assert loops(graph) == ["GRU", "LSTM"]


@pytest.mark.parametrize(
    "kind, activation",
    [
        *(("lstm", name) for name in ("relu", "hard_sigmoid", None, "gelu")),
        *(("gru", name) for name in ("relu", "softplus")),
        *(("gru_reset_before", name) for name in ("hard_sigmoid", "gelu")),
        *(("simple", name) for name in (None, "gelu")),
    ],
)
def test_activations(kind, activation):
    # Steep gates would make a state grow beyond what float32 compares.
    gates = {} if kind == "simple" else {"recurrent_activation": "hard_sigmoid"}
    built = model(layer(kind, activation=activation, **gates))
    for variable in built.weights:
        variable.assign(variable * 0.4)
    has_node = activation in ("relu", "hard_sigmoid", None)
    assert loops(check(built)) == [KINDS[kind][2] if has_node else "Scan"]


@pytest.mark.parametrize("kind", KINDS)
def test_settings_that_change_nothing_in_the_node(kind):
    settings = {"use_bias": False, "dropout": 0.3, "recurrent_dropout": 0.2}
    graph = check(model(layer(kind, **settings)), lengths=(5,))
    assert loops(graph) == [KINDS[kind][2]]
    x = np.zeros((2, 5, WIDTH), "float32")
    unrolled = model(layer(kind, unroll=True, return_sequences=True), length=5)
    got = recurrence.session(build_graph(unrolled)).run(None, {"x": x})
    expected = ops.convert_to_numpy(unrolled({"x": x})[0])
    np.testing.assert_allclose(got[0], expected, atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_the_node_in_float32(policy):
    graph = build_graph(model(layer("lstm", dtype=policy, return_sequences=True), masked=True))
    node = next(n for n in graph.graph if n.op_type == "LSTM")
    assert {v.dtype for v in node.inputs[:4]} == {ir.DataType.FLOAT}


@pytest.mark.parametrize(
    "masked, backwards, sequences",
    [(True, False, True), (True, True, True), (True, True, False), (False, True, False)],
)
def test_own_cell_is_a_scan(masked, backwards, sequences):
    settings = {"return_sequences": sequences, "go_backwards": backwards, "return_state": True}
    rnn = layers.RNN(Recurrent(UNITS, name="cell"), name="own", **settings)
    graph = check(model(rnn, masked), lengths=(1, 29), target="portable")
    assert loops(graph) == ["Scan"]
    onnx.checker.check_model(ir.to_proto(graph), full_check=True)


@repeats_outputs
@pytest.mark.parametrize("sequences, zeros", [(True, False), (True, True), (False, True)])
def test_own_cell_whose_output_is_no_state(sequences, zeros):
    settings = {"return_sequences": sequences, "zero_output_for_mask": zeros}
    rnn = layers.RNN(Counting(UNITS, name="cell"), return_state=True, name="own", **settings)
    check(model(rnn, masked=True, states=(UNITS, 2)))


@repeats_outputs
def test_stack_with_an_own_cell():
    # This cell of Keras draws its dropout mask at inference too.
    cells = [layers.SimpleRNNCell(3, dropout=0.3, name="a"), Recurrent(UNITS, name="b")]
    rnn = layers.RNN(cells, return_sequences=True, return_state=True, name="stack")
    assert loops(check(model(rnn, masked=True))) == ["Scan"]
    assert cells[0].dropout == 0.3


@pytest.mark.parametrize("source", ["embedding", "masking"])
def test_implicit_masks(source):
    if source == "embedding":
        inputs = {"ids": keras.Input((None,), dtype="int32", name="ids")}
        x = layers.Embedding(11, WIDTH, mask_zero=True, name="embedding")(inputs["ids"])
    else:
        inputs = {"x": keras.Input((None, WIDTH), name="x")}
        inputs["mask"] = keras.Input((None,), dtype="bool", name="mask")
        real = ops.expand_dims(ops.cast(inputs["mask"], "float32"), -1)
        x = layers.Masking(name="masking")(inputs["x"] * real)
    for i in range(2):
        x = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name=f"layers_{i}")(x)
    x = layers.GRU(UNITS, return_sequences=True, name="last")(x)
    graph = check(randomise(keras.Model(inputs, x), seed=6))
    assert loops(graph) == ["LSTM", "LSTM", "GRU"]
    # Between layers with the same mask nothing is gathered.
    assert Counter(n.op_type for n in graph.graph)["GatherND"] == 2


def test_a_shared_layer_has_its_weights_once():
    shared = layers.GRU(WIDTH, return_sequences=True, name="shared")
    graph = check(model(lambda x: shared(shared(x))))
    assert loops(graph) == ["GRU", "GRU"]
    names = [name for name in graph.graph.initializers if name.startswith("shared/")]
    assert sorted(name.rsplit("/", 1)[1] for name in names) == ["B", "R", "W"]


def test_time_distributed():
    def build(x):
        words = ops.expand_dims(x, -1)
        words = layers.TimeDistributed(layers.GRU(3, name="gru"), name="sentences")(words)
        return layers.TimeDistributed(layers.Dense(UNITS, name="dense"), name="steps")(words)

    graph = check(model(build))
    assert loops(graph) == ["GRU"]
    assert [n.op_type for n in graph.graph].count("MatMul") == 1


def test_names_of_weights():
    both = layers.Bidirectional(layers.LSTM(UNITS, name="lstm"), name="both")
    names = list(build_graph(model(both)).graph.initializers)
    assert "both/forward_lstm+backward_lstm/lstm_cell/kernel/W" in names


# ---- keras.ops.scan


class Scanned(layers.Layer):
    """ops.scan over the steps of x with a carry of two parts."""

    def __init__(self, reverse=False, **kwargs):
        super().__init__(**kwargs)
        self.reverse = reverse

    def call(self, x):
        steps = ops.transpose(x, (1, 0, 2))

        def step(carry, x_t):
            total, last = carry
            total = total * 0.5 + x_t
            return [total, x_t - last], [total * last, last]

        zeros = ops.zeros_like(x[:, 0])
        carry, outputs = ops.scan(step, [zeros, zeros], steps, reverse=self.reverse)
        return [*carry, *(ops.transpose(y, (1, 0, 2)) for y in outputs)]

    def compute_output_shape(self, shape):
        return [(shape[0], shape[2])] * 2 + [shape] * 2


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_of_a_nested_carry(reverse):
    assert loops(check(model(Scanned(reverse, name="scanned")))) == ["Scan"]


class Repeated(layers.Layer):
    """ops.scan without sequence: x doubled five times and counted; or, wrongly, x that grows."""

    def __init__(self, grows=False, **kwargs):
        super().__init__(**kwargs)
        self.grows = grows

    def call(self, x):
        def step(carry, _):
            carry = ops.concatenate([carry, carry], axis=1) if self.grows else carry * 2.0
            return carry, carry

        last, outputs = ops.scan(step, x, length=5)
        return last + ops.sum(outputs, axis=0)

    def compute_output_shape(self, shape):
        return shape


def test_scan_without_a_sequence():
    assert loops(check(model(Repeated(name="repeated")))) == ["Scan"]


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_loops_read_what_is_around_them_and_keep_their_own(target):
    graph = check(recurrence.attentive_model(), lengths=(1, 29), target=target)
    assert loops(graph) == ["LSTM", "Scan", "Scan"]


# ---- what is around the graph


def test_loops_are_inspected_and_left_in_float_by_quantisation(tmp_path):
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(11, WIDTH, name="embedding")(ids)
    x = layers.LSTM(UNITS, return_sequences=True, name="lstm")(x)
    x = layers.RNN(Recurrent(UNITS, name="cell"), return_sequences=True, name="own")(x)
    tagger = keras.Model({"ids": ids}, layers.Dense(17, name="head")(x))
    exact = recurrence.session(check(randomise(tagger, seed=6), lengths=(5,)))
    # The cell has two products, in the body of the loop.
    products = {"fp32": "MatMul", "int8": "DynamicQuantizeMatMul", "int4": "MatMulNBits"}
    arrays = recurrence.feed(tagger, 29, lambda mask: mask)
    for precision, product in products.items():
        export(tagger, tmp_path / "m.onnx", precision=precision, verify=False)
        operators = inspect(tmp_path / "m.onnx").operators
        domain = "" if precision == "fp32" else "com.microsoft."
        assert operators["LSTM"] == operators["Scan"] == 1
        assert operators["MatMul"] == (3 if precision == "fp32" else 2)
        assert operators[domain + product] >= 1
        actual = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, arrays)[0]
        # What rounding the head costs; another weight in its place gives 1.
        assert np.std(actual - exact.run(None, arrays)[0]) < 0.3 * np.std(actual)


def always_training():
    lstm = layers.LSTM(3, dropout=0.1, name="l")
    lstm.build((None, None, WIDTH))
    return Apply(lambda x: lstm(x, training=True), keras.KerasTensor((None, 3)), name="apply")


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: model(Repeated(grows=True, name="r")), "r: a step of a loop makes a state of"),
        (lambda: model(always_training()), "l: LSTM was called with training=True"),
        (
            lambda: model(
                lambda x: layers.LSTM(3, name="l")(x, mask=ops.greater(x[:, :, :2], 0.0))
            ),
            "l: a mask of shape .*pass one of",
        ),
    ],
)
def test_refused(build, message):
    with pytest.raises(ExportError, match=message):
        build_graph(build())
