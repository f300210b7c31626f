"""What verification can compare, what it says of it, and that nothing is proven by nothing."""

import re

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_seqattn.errors import BundleError, ExportError, InputError
from keras_seqattn.layers import CausalConv1D, MultiHeadAttention
from keras_seqattn.layers.mechanisms import SinkLocal
from keras_seqattn.onnx import build_graph, export, verify, write_onnx
from keras_seqattn.onnx.report import Case, Report, difference
from tests.helpers import randomise


def model_of(function, *inputs):
    inputs = inputs or (keras.Input((None, 3), name="x"),)
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], function(*inputs), name="model")
    return randomise(model, seed=3)


def exported(tmp_path, function, *inputs, **settings):
    return export(model_of(function, *inputs), tmp_path / "model.onnx", **settings)


def flags(*shape, name="flags"):
    return keras.Input(shape, dtype="bool", name=name)


def floats(*shape, batch=None, name="x"):
    return keras.Input(batch_shape=(batch, *shape), name=name)


def _twice(layer):
    return lambda x: layer(layer(x))


def _stock_twice(layer):
    return lambda x: layer(layer(x, x), x)


# A function of the inputs; other inputs than float (None, 3).
MODELS = {
    "scalar": (ops.sum,),
    "scalar_of_scalar": (lambda x: x * 2, keras.Input(batch_shape=(), name="x")),
    "vector_of_rows": (lambda x: x * 2, keras.Input((), name="x")),
    "partly_empty": (lambda x: [x[:, :0], ops.square(x)],),
    "partly_nan": (lambda x: [ops.log(x), ops.square(x)],),
    "infinite": (lambda x: [ops.log(ops.relu(x)), ops.square(x)],),
    "flags": (lambda x: x > 0,),
    "whole": (lambda x: ops.argmax(x, axis=-1),),
    "input_is_output": (lambda x: x,),
    "input_is_output_twice": (lambda x: [x, x],),
    "twice": (lambda x: [ops.square(x)] * 2,),
    "unused_input": (lambda x, y: ops.square(x), floats(None, 3), floats(None, 3, name="y")),
    "constant": (lambda x: ops.ones_like(x),),
    "clip_flags": (lambda x: ops.clip(x > 0, 0, 1),),
    "arithmetic_of_flags": (lambda x: (x > 0) * (x < 1) + (x > 2),),
    "maxima_of_flags": (lambda x: ops.max(x > 0, axis=1),),
    "choice_of_flags": (lambda x: ops.where(x > 0, x > 1, x < -1),),
    "no_class": (lambda x: ops.one_hot(ops.cast(x, "int32"), 2),),
    "default_epsilon": (lambda x: ops.layer_normalization(x * 1e-3),),
    "window_on_fixed_length": (
        lambda x: MultiHeadAttention(2, 4, causal=True, window=(3, 0))(x),
        floats(5, 3),
    ),
    "split_at": (lambda x: ops.split(x, [1], axis=1)[1],),
    "equal_parts": (lambda x: ops.split(x, 2, axis=1),),
    "keys_of_batch_1": (
        lambda x, y: MultiHeadAttention(2, 4)(x, y),
        floats(4, 3),
        floats(5, 3, batch=1, name="y"),
    ),
    "stock_keys_of_batch_1": (
        lambda x, y: layers.MultiHeadAttention(2, 4)(x, y),
        floats(4, 3),
        floats(5, 3, batch=1, name="y"),
    ),
    "state_of_no_tokens": (lambda x: [CausalConv1D(3)(x[:, :0])[1], ops.square(x)], floats(5, 3)),
    "attention_of_no_tokens": (
        lambda x: [MultiHeadAttention(2, 4)(x[:, :0]), ops.square(x)],
        floats(5, 3),
    ),
    "a_layer_called_twice": (_twice(MultiHeadAttention(2, 4, name="shared")),),
    "a_stock_layer_called_twice": (_stock_twice(layers.MultiHeadAttention(2, 4, name="shared")),),
    "free_flags": (
        lambda x, m: layers.MultiHeadAttention(2, 4)(x, x, attention_mask=m),
        floats(5, 3),
        flags(5, 5),
    ),
}


OF_TORCH = ("arithmetic_of_flags", "stock_keys_of_batch_1")


@pytest.mark.parametrize("target", ["portable", "ort"])
@pytest.mark.parametrize("name", MODELS)
def test_models(name, target, tmp_path):
    if name in OF_TORCH and keras.backend.backend() != "torch":
        pytest.skip("Keras itself can do it on PyTorch only")
    report = exported(tmp_path, *MODELS[name], target=target)
    assert report.ok and report.compared


def test_the_flags_that_are_drawn_let_each_query_see(tmp_path):
    inputs = floats(9, 3), flags(9, 9)
    # With rows of some 70 % many would see nothing over ten draws.
    for _ in range(5):
        report = exported(
            tmp_path,
            lambda x, m: layers.MultiHeadAttention(2, 4)(x, x, attention_mask=ops.tril(m)),
            *inputs,
        )
        assert report.ok


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, :0],
        lambda x: ops.log(-1 - ops.square(x)),
        lambda x: [x[:, :0], ops.zeros_like(x) / 0],
    ],
    ids=["empty", "nan", "both"],
)
def test_nothing_proves_nothing(function, tmp_path):
    with pytest.raises(ExportError, match="nothing to compare.*empty, NaN or infinite"):
        exported(tmp_path, function)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_difference_of_nan_and_infinities(precision):
    nan, inf = np.nan, np.inf
    numbers = np.array([1.0, nan, inf, -inf])
    assert difference(numbers, numbers, precision) == 0
    for place, other in ((0, nan), (0, inf), (1, 1.0), (2, -inf), (2, nan), (3, 0.0)):
        wrong = numbers.copy()
        wrong[place] = other
        assert difference(numbers, wrong, precision) == inf
        assert difference(wrong, numbers, precision) == inf


class _Replaced(keras.Operation):
    """Numbers below a limit become NaN in Keras."""

    def call(self, x):
        return ops.where(x < 5.0, np.nan, x)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_a_nan_in_a_later_output_is_a_difference(tmp_path):
    from keras_seqattn.onnx import lowers

    @lowers(_Replaced)
    def lower(tracer, operation, x):
        return x

    with pytest.raises(ExportError, match="DIFFERS.*error inf"):
        exported(tmp_path, lambda x: [x * 2, _Replaced()(x), ops.square(x)])


class _Blocks(keras.layers.Layer):
    """Sums over blocks of four, at least two of them."""

    def call(self, x):
        if not isinstance(x, keras.KerasTensor) and (x.shape[1] % 4 or x.shape[1] < 8):
            raise RuntimeError("two blocks of four at least")
        x = ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1] // 4, 4, 3))
        return ops.sum(x, axis=2)

    def compute_output_spec(self, x):
        return keras.KerasTensor((x.shape[0], None, 3), x.dtype)


def test_lengths_that_a_model_takes_are_found(tmp_path):
    report = exported(tmp_path, lambda x: _Blocks()(x))
    assert [c.name for c in report.cases[:4]] == [f"batch 1, length {n}" for n in (8, 36, 132)] + [
        "batch 3, length 8"
    ]
    with pytest.raises(InputError, match="Keras cannot run model on x .1, 7, 3.: two blocks"):
        exported(tmp_path, lambda x: _Blocks()(x), lengths=[7])


class _Never(keras.layers.Layer):
    def call(self, x):
        if not isinstance(x, keras.KerasTensor):
            raise LookupError("not today")
        return x

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_a_model_that_cannot_run(tmp_path):
    with pytest.raises(InputError, match="accepts none of the lengths that were tried.*not today"):
        exported(tmp_path, lambda x: _Never()(x))


def test_fixed_shapes_are_compared_once(tmp_path):
    report = exported(tmp_path, lambda x: x * 2, floats(5, 3))
    assert [case.name for case in report.cases] == ["batch 1", "batch 3"]


def test_inputs_of_different_lengths_are_compared_so(tmp_path):
    inputs = floats(None, 3), floats(None, 3, name="y")
    report = exported(tmp_path, lambda x, y: MultiHeadAttention(2, 4)(x, y), *inputs)
    assert [c.name for c in report.cases[-3:]] == [
        f"batch 3, x_length {n}, y_length {m}" for n, m in ((1, 2), (2, 7), (7, 1))
    ]


def test_sinks_between_two_sequences_are_refused_in_words(tmp_path):
    inputs = floats(8, 3), floats(5, 3, name="y")
    layer = MultiHeadAttention(2, 4, causal=True, attention=SinkLocal(3, 1))
    with pytest.raises(ExportError, match="must be of one sequence.*8 queries, 5 keys"):
        exported(tmp_path, lambda x, y: layer(x, y), *inputs)


@pytest.mark.backend_free
@pytest.mark.parametrize("target", ["portable", "ort"])
def test_sinks_between_two_inputs_are_compared_where_their_lengths_are_equal(target, tmp_path):
    inputs = floats(None, 3), floats(None, 3, name="y")
    layer = MultiHeadAttention(2, 4, causal=True, attention=SinkLocal(3, 1))
    report = exported(tmp_path, lambda x, y: layer(x, y), *inputs, target=target)
    assert report.ok and not any("y_length" in case.name for case in report.cases)


def test_stand_ins_for_lengths_are_not_shown(tmp_path):
    inputs = floats(8, 3), floats(None, 3, name="y")
    layer = MultiHeadAttention(2, 4, causal=True, attention=SinkLocal(3, 1))
    with pytest.raises(ExportError, match="cannot be traced") as caught:
        exported(tmp_path, lambda x, y: layer(x, y), *inputs)
    assert not re.search(r"\d{12}", str(caught.value))


def test_rounding_explains_what_a_steep_function_makes_of_it(tmp_path):
    """Sums and tanh are the backend's own, here nine hundred times as steep."""
    dense = layers.Dense(8, name="dense")
    model = model_of(lambda x: ops.sin(ops.tanh(dense(x)) * 900.0), floats(None, 64))
    write_onnx(build_graph(model), tmp_path / "model.onnx")
    report = verify(tmp_path / "model.onnx", model)
    assert report.ok and report.worst > 1e-4
    assert "last bit of the weights moves Keras" in report.summary()
    dense.kernel.assign(dense.kernel * 1.0001)
    assert not verify(tmp_path / "model.onnx", model).ok


def test_a_case_that_rounding_does_not_explain():
    explained = Case("a", 3.1e-4, rounding=1e-4)
    assert Report("fp32", 1e-4, [explained]).ok
    assert not Report("fp32", 1e-4, [explained, Case("b", 5.2e-4, rounding=1e-4)]).ok
    assert not Report("fp32", 1e-4, [Case("c", 4e-3, rounding=2e-3)]).ok


def _leaky(tracer, operation, x):
    sizes = (x.sizes[1] - 1,)
    return tracer.emit("Add", [x, tracer.constant(np.array(sizes))], sizes=x.sizes, dtype="int32")


class _Leak(keras.Operation):
    def call(self, x):
        return x

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_no_stand_in_gets_into_a_file(tmp_path):
    from keras_seqattn.onnx import lowers

    lowers(_Leak)(_leaky)
    ids = keras.Input((None,), dtype="int32", name="ids")
    with pytest.raises(ExportError, match="_Leak would fix a length.*ops.shape"):
        exported(tmp_path, lambda x: _Leak()(x), ids)
    # Large numbers of a user's own are none.
    build_graph(model_of(lambda x: ops.cast(x, "int64") * 6364136223846793005 + 2**40, ids))


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"target": 3}, ExportError, "unknown target 3; choose one of ort, portable"),
        ({"target": []}, ExportError, "unknown target"),
        ({"precision": None}, ExportError, "unknown precision None"),
        ({"route": 3}, ExportError, "unknown route 3"),
        ({"progress": "x"}, ExportError, "progress must be a function"),
        ({"verify": "x"}, ExportError, "verify must be True or False"),
        ({"tokenizer": 3}, ExportError, "tokenizer must be the name"),
        ({"lengths": "abc"}, InputError, "lengths to verify must be a list"),
        ({"lengths": 3}, InputError, "lengths to verify"),
        ({"lengths": [2.5]}, InputError, "lengths to verify"),
        ({"lengths": [True]}, InputError, "lengths to verify"),
        ({"lengths": [10**30]}, InputError, "lengths to verify must be from 1"),
        ({"lengths": [10**9]}, InputError, "lengths to verify must be from 1"),
    ],
)
def test_settings(settings, error, message, tmp_path):
    with pytest.raises(error, match=message):
        exported(tmp_path, lambda x: x * 2, **settings)


@pytest.mark.parametrize("path", [3, None, "", "a\0b", "\ud800", b"x"])
def test_paths(path):
    with pytest.raises(ExportError, match="a path is a str|the path"):
        export(model_of(lambda x: x), path)


@pytest.mark.parametrize(
    "model", [3, None, "x", keras.layers.Dense(2), keras.Sequential([layers.Dense(2)]), keras.Model]
)
def test_what_is_no_model(model, tmp_path):
    for function in (lambda: export(model, tmp_path / "x.onnx"), lambda: build_graph(model)):
        with pytest.raises(ExportError, match="cannot export|are not known"):
            function()
    with pytest.raises(ExportError):
        verify(tmp_path, model)
    with pytest.raises(ExportError, match="cannot write"):
        write_onnx(model, tmp_path / "x.onnx")


def test_a_file_of_another_model(tmp_path):
    exported(tmp_path, lambda x: x * 2)
    other = model_of(lambda y: y * 2, floats(None, 3, name="y"))
    with pytest.raises(BundleError, match="of another model: it takes x, and model y"):
        verify(tmp_path / "model.onnx", other)
    two = model_of(lambda x: [x, x * 2])
    with pytest.raises(BundleError, match="of another model: it has 1 outputs"):
        verify(tmp_path / "model.onnx", two)


@pytest.mark.parametrize(
    "error", [KeyError("k"), AttributeError("a"), RecursionError(), OSError(2)]
)
def test_whatever_a_layer_raises_while_it_is_traced(error, tmp_path):
    class Raises(keras.layers.Layer):
        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

        def call(self, x):
            raise error

    with pytest.raises(ExportError, match="cannot be traced: .*while tracing raises"):
        exported(tmp_path, lambda x: Raises(name="raises")(x))
    assert not list(tmp_path.iterdir())


def test_padding_beside_other_integers(tmp_path):
    """Of two inputs of ids either may be the one whose zeros are padding."""
    ids, others = (layers.Input((None,), dtype="int32", name=name) for name in ("ids", "others"))
    x = layers.Embedding(13, 5, mask_zero=True)(ids)
    x = layers.GroupQueryAttention(4, 4, 2)(x, x)
    y = layers.Embedding(17, 3)(others)
    model = randomise(keras.Model([ids, others], [x, y]))
    assert export(model, tmp_path / "model.onnx").ok
