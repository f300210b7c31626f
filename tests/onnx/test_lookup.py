"""Lookups and hashes of integers and texts, against Keras."""

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from keras import layers

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph, export
from tests.onnx.checked import check_cases

# JAX has no int64 unless it is told so.
DTYPE = "int32" if keras.backend.backend() == "jax" else "int64"
VOCABULARY = [3, 1, 7, 12, -2]


def _integers(*shape, low=-5, high=15):
    return np.random.default_rng(0).integers(low, high, shape).astype(DTYPE)


def _lookup(**settings):
    return layers.IntegerLookup(vocabulary=VOCABULARY, **settings)


def test_integer_lookup():
    cases = {
        "usual": _lookup(),
        "mask": _lookup(mask_token=9),
        "three_unknown": _lookup(num_oov_indices=3),
        "mask_unknown": _lookup(num_oov_indices=2, mask_token=0),
        "hashed_unknown": _lookup(num_oov_indices=5, oov_method="farmhash"),
        "one_hot": _lookup(output_mode="one_hot"),
        "multi_hot": _lookup(output_mode="multi_hot", mask_token=9),
        "count": _lookup(output_mode="count", num_oov_indices=2),
        "tf_idf": _lookup(output_mode="tf_idf", idf_weights=[0.1, 0.2, 0.3, 0.4, 0.5]),
        "padded": _lookup(output_mode="multi_hot", max_tokens=9, pad_to_max_tokens=True),
    }
    x = _integers(4, 5)
    x[0, :3] = [3, 9, -2]
    graph = check_cases(cases, (x,), (_integers(1, 5),))
    assert graph.opset_imports["ai.onnx.ml"] == 3
    names = {"usual": _lookup(invert=True), "mask": _lookup(invert=True, mask_token=9)}
    check_cases(names, (_integers(3, 5, low=0, high=8),))


def test_an_unknown_integer_stops_the_file_as_it_stops_keras():
    layer = _lookup(num_oov_indices=0)
    check_cases({"known": layer}, (np.array([[3, 1], [-2, 12]], DTYPE),))
    x = keras.Input((2,), dtype=DTYPE, name="x")
    graph = build_graph(keras.Model(x, layer(x)))
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    with pytest.raises(Exception, match="out of data bounds"):
        session.run(None, {"x": np.array([[3, 4]], DTYPE)})


def _hard_integers():
    """Integers of 1 to 20 characters, at the borders of the cases of the hash."""
    random = np.random.default_rng(1)
    most = np.iinfo(DTYPE).max
    sizes = [10**k for k in range(19) if 10**k <= most]
    values = [0, 7, most, -most - 1, *sizes, *(n - 1 for n in sizes), *(-n for n in sizes)]
    values += [-n + 1 for n in sizes]
    return np.concatenate([values, random.integers(-most, most, 50)]).astype(DTYPE)


def test_hashes_of_integers():
    cases = {
        "many": layers.Hashing(1_000_003),
        "few": layers.Hashing(7),
        "mask": layers.Hashing(7, mask_value=9),
        "one_hot": layers.Hashing(5, output_mode="one_hot"),
        "count": layers.Hashing(5, output_mode="count"),
        "multi_hot": layers.Hashing(5, output_mode="multi_hot"),
    }
    x = _hard_integers()
    check_cases(cases, (x[:, None],))
    check_cases(cases, (x[: len(x) // 3 * 3].reshape(-1, 3),))
    floats = np.random.default_rng(2).normal(size=(4, 5)).astype("float32") * 100
    check_cases({"floats": layers.Hashing(11)}, (floats,))


WORDS = np.array([["apple", "", "pear"], ["plum", "ünicode", "Apple"]], object)


def _run(layer, array, dtype):
    """The result of a layer in a file, and of the layer itself."""
    x = keras.Input(array.shape[1:], dtype=dtype, name="x")
    graph = build_graph(keras.Model(x, layer(x)), "portable")
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    return session.run(None, {"x": array})[0]


SETTINGS = [
    {},
    {"mask_token": ""},
    {"output_mode": "one_hot"},
    {"output_mode": "multi_hot"},
    {"output_mode": "tf_idf", "idf_weights": [0.1, 0.2, 0.3]},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "_".join(s) or "usual")
def test_string_lookup_is_a_file_with_texts(settings):
    layer = layers.StringLookup(vocabulary=["apple", "pear", "ünicode"], **settings)
    # Keras calls models with texts only on TensorFlow, but the layer on all backends.
    expected = keras.ops.convert_to_numpy(layer(WORDS))
    np.testing.assert_array_equal(_run(layer, WORDS, "string"), expected)


def test_inverse_string_lookup():
    layer = layers.StringLookup(vocabulary=["apple", "pear"], invert=True, mask_token="-")
    actual = _run(layer, np.array([[0, 1, 2], [3, 2, 9]]).astype(DTYPE), DTYPE)
    assert actual.tolist() == [["-", "[UNK]", "apple"], ["pear", "apple", "[UNK]"]]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras runs no texts here")
def test_a_model_of_texts_is_verified(tmp_path):
    x = keras.Input((3,), dtype="string", name="words")
    layer = layers.StringLookup(vocabulary=["apple", "pear"], mask_token="")
    y = layers.Embedding(5, 4)(layer(x))
    report = export(keras.Model(x, y), tmp_path / "words.onnx")
    assert report.ok and report.summary().startswith("onnxruntime agrees with Keras")


def test_what_cannot_be_looked_up_is_refused():
    x = keras.Input((1,), dtype="string")
    text = layers.TextVectorization(vocabulary=["a"], name="text")
    with pytest.raises(ExportError, match="text: TextVectorization cannot be exported"):
        build_graph(keras.Model(x, text(x)))
    several = layers.StringLookup(vocabulary=["a"], num_oov_indices=2, name="several")
    with pytest.raises(ExportError, match="several: a hash of the dtype string"):
        build_graph(keras.Model(x, several(x)))


def test_what_cannot_be_hashed_is_refused():
    x = keras.Input((1,), dtype=DTYPE)
    with pytest.raises(ExportError, match="hashing: a hash with a salt"):
        build_graph(keras.Model(x, layers.Hashing(7, salt=133, name="hashing")(x)))
    crossed = layers.HashedCrossing(7, name="crossing")([x, x])
    with pytest.raises(ExportError, match="crossing: HashedCrossing cannot be exported"):
        build_graph(keras.Model(x, crossed))
