"""embed, classify and tag against sentence-transformers' formulas and transformers' models."""

import json

import numpy as np
import onnx
import pytest
import torch
import transformers

from keras_seqattn import runtime
from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.runtime.encoder import Encoder, class_probabilities, group_entities
from keras_seqattn.runtime.pooling import Pooling
from keras_seqattn.runtime.session import create_session

from .conftest import TEXTS, bert, export, reference_tokenizer

pytestmark = pytest.mark.backend_free

LONG = "the cat " * 30
# Float32 through two layers, values of size 1 to 5.
TOLERANCE = 1e-5


def states_of(model, path, text, max_length=None):
    """last_hidden_state of one text alone, (s, m)."""
    tokenizer = reference_tokenizer(path)
    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=max_length or 41)
    with torch.no_grad():
        return model(**inputs).last_hidden_state[0].numpy()


def test_embed_is_the_normalised_mean(embedder):
    model, reference, path = embedder
    texts = [*TEXTS, "the", LONG, ""]
    wanted = [states_of(reference, path, text, 23).mean(axis=0) for text in texts]
    wanted = np.stack([vector / np.linalg.norm(vector) for vector in wanted])
    for batch_size in (1, 2, 32):
        got = model.embed(texts, batch_size=batch_size)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, atol=TOLERANCE)
    single = model.embed(texts[1])
    assert single.shape == (30,)
    np.testing.assert_allclose(single, wanted[1], atol=TOLERANCE)


def test_embed_refuses(embedder):
    model = embedder[0]
    with pytest.raises(InputError, match="62 tokens, and the model takes 23: shorten it"):
        model.embed(["the", LONG], truncate=False)
    for bad in ([], [3], 3.5, None, ["a", None]):
        with pytest.raises((InputError, TypeError), match="texts.* must be a str"):
            model.embed(bad)
    with pytest.raises(InputError, match="batch_size=0"):
        model.embed("the", batch_size=0)
    for method in ("generate", "stream", "chat", "classify", "tag"):
        with pytest.raises(InputError, match=f"^{method} needs .* this one is embedding"):
            getattr(model, method)("text")


POOLINGS = {
    "mean": lambda s: s.mean(0),
    "cls": lambda s: s[0],
    "max": lambda s: s.max(0),
    "lasttoken": lambda s: s[-1],
    "mean_sqrt_len_tokens": lambda s: s.sum(0) / len(s) ** 0.5,
    "weightedmean": lambda s: np.average(s, axis=0, weights=np.arange(1, len(s) + 1)),
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mode", POOLINGS)
def test_pooling_sees_only_the_tokens(mode, side):
    rng = np.random.default_rng(2)
    rows = [rng.normal(size=(n, 7)).astype(np.float32) for n in (5, 1, 3)]
    states, mask = np.full((3, 5, 7), 99, np.float32), np.zeros((3, 5), np.int64)
    for i, row in enumerate(rows):
        place = slice(5 - len(row), None) if side == "left" else slice(len(row))
        states[i, place], mask[i, place] = row, 1
    wanted = np.stack([POOLINGS[mode](row) for row in rows])
    got = Pooling([mode])(states, mask)
    np.testing.assert_allclose(got, wanted, atol=1e-6)  # float32 sums of five
    unit = Pooling([mode, "cls"], normalize=True)(states, mask)
    assert unit.shape == (3, 14)
    np.testing.assert_allclose((unit**2).sum(1), 1, atol=1e-6)


def test_pooling_configurations():
    def read(pooling, *modules):
        kinds = [f"sentence_transformers.models.{kind}" for kind in modules]
        listed = [{"type": kind, "path": f"{i}_X"} for i, kind in enumerate(kinds)]
        assets = {"modules.json": json.dumps(listed), "1_X/config.json": json.dumps(pooling)}
        return Pooling.from_assets(assets)

    both = read(
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "Transformer", "Pooling"
    )
    assert (both.modes, both.normalize) == (("cls", "mean"), False)
    new = read({"pooling_mode": "lasttoken"}, "Transformer", "Pooling", "Normalize")
    assert (new.modes, new.normalize) == (("lasttoken",), True)
    assert Pooling.from_assets({}).modes == ("mean",)
    with pytest.raises(BundleError, match="asks for Dense, not implemented"):
        read({}, "Transformer", "Pooling", "Dense")
    with pytest.raises(BundleError, match="pooling median is not implemented"):
        read({"pooling_mode": "median"}, "Transformer", "Pooling")


LABELS = {0: "bad", 1: "so-so", 2: "good"}


@pytest.mark.parametrize(
    "problem", [None, "single_label_classification", "multi_label_classification", "regression"]
)
def test_classify(tmp_path, problem):
    path = tmp_path / "hf"
    path.mkdir()
    model = bert(
        transformers.BertForSequenceClassification, path, id2label=LABELS, problem_type=problem
    )
    classifier = runtime.load(export(path, tmp_path / "bundle"), threads=1)
    pipeline = transformers.pipeline(
        "text-classification", model=model, tokenizer=reference_tokenizer(path), top_k=None
    )
    wanted = pipeline(TEXTS)
    got = classifier.classify(TEXTS, top_k=None)
    for ours, theirs in zip(got, wanted, strict=True):
        assert [x["label"] for x in ours] == [x["label"] for x in theirs]
        scores = [x["score"] for x in ours], [x["score"] for x in theirs]
        np.testing.assert_allclose(*scores, atol=TOLERANCE)
    assert classifier.classify(TEXTS[0]) == classifier.classify(TEXTS, top_k=2)[0][0]
    tokenizer = reference_tokenizer(path)
    pair = tokenizer(TEXTS[0], TEXTS[1], return_tensors="pt", return_token_type_ids=True)
    assert pair["token_type_ids"].any()
    with torch.no_grad():
        logits = model(**pair).logits.numpy()
    wanted = np.sort(class_probabilities(logits, problem)[0])[::-1]
    got = [x["score"] for x in classifier.classify(TEXTS[0], TEXTS[1], top_k=None)]
    np.testing.assert_allclose(got, wanted, atol=TOLERANCE)
    with pytest.raises(InputError, match="3 texts and 1 pairs"):
        classifier.classify(TEXTS, TEXTS[:1])


def test_classify_with_a_global_first_token(tmp_path):
    """Longformer, as transformers does where no other global tokens are given."""
    path = tmp_path / "hf"
    path.mkdir()
    kind = transformers.LongformerForSequenceClassification
    model = bert(kind, path, attention_window=4, pad_token_id=0, type_vocab_size=1, num_labels=3)
    classifier = runtime.load(export(path, tmp_path / "bundle"), threads=1)
    tokenizer = reference_tokenizer(path)
    texts = [*TEXTS, "the", LONG]
    for text, got in zip(texts, classifier.classify(texts, top_k=None), strict=True):
        # One row of the positions is that of padding.
        ids = tokenizer(text, truncation=True, max_length=40, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            wanted = class_probabilities(model(ids).logits.numpy(), None)[0]
        found = [x["score"] for x in sorted(got, key=lambda x: x["label"])]
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    path = tmp_path_factory.mktemp("tagger")
    model = bert(transformers.BertForTokenClassification, path, id2label=dict(enumerate(TAGS)))
    bundle = export(path, tmp_path_factory.mktemp("bundle") / "tagger")
    return runtime.load(bundle, threads=1), model, reference_tokenizer(path)


@pytest.mark.parametrize("aggregation", ["first", "average", "max"])
def test_tag(tagger, aggregation):
    ours, model, tokenizer = tagger
    pipeline = transformers.pipeline(
        "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=aggregation
    )
    texts = ["The cats sat on a matress.", "Anna lived in Berlin, and works for Acmex!"]
    assert any("##" in token for text in texts for token in tokenizer.tokenize(text))
    for text, entities in zip(texts, ours.tag(texts, aggregation=aggregation), strict=True):
        wanted = pipeline(text)
        assert wanted and len(entities) == len(wanted)
        for entity, reference in zip(entities, wanted, strict=True):
            assert entity["entity"] == reference["entity_group"]
            assert (entity["start"], entity["end"]) == (reference["start"], reference["end"])
            assert entity["text"] == text[entity["start"] : entity["end"]]
            np.testing.assert_allclose(entity["score"], reference["score"], atol=TOLERANCE)
    assert (
        ours.tag(texts[0], aggregation=aggregation) == ours.tag(texts, aggregation=aggregation)[0]
    )


def test_tag_refuses_other_aggregations(tagger):
    with pytest.raises(
        InputError, match="aggregation='simple' is not valid: it must be one of first, average, max"
    ):
        tagger[0].tag("the cat", aggregation="simple")


def test_group_entities():
    text = "Anna Maria Bob in Rome Oslo"
    spans = [(0, 4), (5, 10), (11, 14), (15, 17), (18, 22), (23, 27)]
    tags = ["B-PER", "I-PER", "B-PER", "O", "I-LOC", "B-LOC"]
    words = [
        (*span, np.eye(5, dtype=np.float32)[TAGS.index(tag)] * 0.8)
        for span, tag in zip(spans, tags, strict=True)
    ]
    found = [(x["entity"], x["text"]) for x in group_entities(text, words, TAGS)]
    assert found == [("PER", "Anna Maria"), ("PER", "Bob"), ("LOC", "Rome"), ("LOC", "Oslo")]


def test_run(embedder):
    model, reference, path = embedder
    encoded = reference_tokenizer(path)(TEXTS[0])
    inputs = {name: np.array([encoded[name]]) for name in encoded}
    inputs["token_type_ids"] = np.zeros_like(inputs["input_ids"])
    got = model.run(inputs)["last_hidden_state"][0]
    np.testing.assert_allclose(got, states_of(reference, path, TEXTS[0]), atol=1e-4)
    as_keywords = model.run(**{name: array.astype("int32") for name, array in inputs.items()})
    np.testing.assert_array_equal(as_keywords["last_hidden_state"][0], got)
    ids = inputs["input_ids"]
    for change, message in (
        ({"input_ids": ids + 9999}, "vocabulary has ids 0 to"),
        ({"input_ids": ids.astype("float32")}, "input_ids must hold integers, not float32"),
        ({"input_ids": ids[0]}, "input_ids must be"),
        ({"position": ids}, "missing or unknown: position"),
        ({"attention_mask": inputs["attention_mask"][:, :3]}, "must have the same sequence_length"),
        ({"token_type_ids": ids}, "token_type_ids holds 17, but its values must be below 2"),
    ):
        with pytest.raises(InputError, match=message):
            model.run({**inputs, **change})
    with pytest.raises(InputError, match="missing or unknown: attention_mask, token_type_ids"):
        model.run(input_ids=ids)


def graph_of(inputs, path):
    """A session of a graph that returns its first input as last_hidden_state (b, s, 1)."""
    nodes = [
        onnx.helper.make_node("Unsqueeze", [inputs[0][0], "axis"], ["wide"]),
        onnx.helper.make_node("Cast", ["wide"], ["last_hidden_state"], to=1),
    ]
    make = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [make(name, dtype, ["b", "s", *more]) for name, dtype, *more in inputs],
        [make("last_hidden_state", 1, ["b", "s", 1])],
        [onnx.helper.make_tensor("axis", 7, [1], [2])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)])
    model.ir_version = 10
    onnx.save(model, path)
    return create_session(path)


@pytest.mark.parametrize(
    "inputs",
    [
        [("input_ids", 7), ("pixel_values", 1)],
        [("tokens", 7)],
        [("input_ids", 1)],
        [("input_ids", 7), ("attention_mask", 7, "t")],
    ],
)
def test_a_graph_that_texts_do_not_fit_is_refused(inputs, embedder, tmp_path):
    session = graph_of(inputs, tmp_path / "model.onnx")
    with pytest.raises(
        BundleError, match="the graph takes .* but a text gives .*it is not a graph for texts"
    ):
        Encoder(session, embedder[0].tokenizer, 23)


@pytest.mark.parametrize("dtype", [5, 6, 7])
def test_a_graph_gets_its_own_integer_type(dtype, embedder, tmp_path):
    session = graph_of([("input_ids", dtype), ("attention_mask", dtype)], tmp_path / "model.onnx")
    encoder = Encoder(session, embedder[0].tokenizer, 23)
    ((_, encodings, _, outputs),) = encoder.batches([TEXTS[0]])
    assert outputs["hidden_states"][0, :, 0].tolist() == encodings[0].ids
