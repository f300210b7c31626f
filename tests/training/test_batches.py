"""Batches by length: every text once an epoch, few shapes, bounded padding, fit on each backend."""

import keras
import numpy as np
import pytest

from keras_seqattn import models
from keras_seqattn.errors import InputError
from keras_seqattn.training import (
    IGNORED,
    MaskedAccuracy,
    MaskedCrossEntropy,
    Perplexity,
    TokenBatches,
    WarmupSchedule,
)

START, PAD = 29, 3


def texts(count=211, seed=0):
    """Sources and targets; each target is unique, so that it can be recognised."""
    rng = np.random.default_rng(seed)
    sources = [rng.integers(5, 29, n).tolist() for n in rng.integers(1, 33, count)]
    targets = [
        [*[5 + (i // 23**k) % 23 for k in range(2)], *rng.integers(5, 29, len(source) % 7), 1]
        for i, source in enumerate(sources)
    ]
    return sources, targets


def batches(**options):
    settings = {"tokens_per_batch": 256, "lengths": (8, 16, 33), "pad_token_id": PAD, "seed": 1}
    sources, targets = texts()
    return TokenBatches(sources, targets, decoder_start_token_id=START, **{**settings, **options})


def epoch(dataset):
    """What an epoch teaches: (source, target) as tuples, in order."""
    seen = []
    for i in range(len(dataset)):
        inputs, labels = dataset[i]
        for ids, mask, row in zip(
            inputs["input_ids"], inputs["attention_mask"], labels["logits"], strict=True
        ):
            if np.any(row != IGNORED):
                seen.append((tuple(ids[mask == 1]), tuple(row[row != IGNORED])))
    return seen


def test_every_text_occurs_once_an_epoch():
    dataset = batches()
    expected = sorted((tuple(s), tuple(t)) for s, t in zip(*texts(), strict=True))
    orders = []
    for _ in range(3):
        orders.append(epoch(dataset))
        assert sorted(orders[-1]) == expected
        dataset.on_epoch_end()
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] == epoch(batches()) != epoch(batches(seed=2))


def test_without_seed_the_order_is_given():
    dataset = batches(seed=None, lengths=(33,))
    expected = [(tuple(s), tuple(t)) for s, t in zip(*texts(), strict=True)]
    assert epoch(dataset) == expected


def test_few_shapes_within_the_budget():
    dataset = batches()
    shapes = {dataset[i][0]["input_ids"].shape for i in range(len(dataset))}
    assert shapes == {(32, 8), (16, 16), (7, 33)}
    for i in range(len(dataset)):
        inputs, labels = dataset[i]
        arrays = [*inputs.values(), *labels.values()]
        assert len({array.shape for array in arrays}) == 1
        assert {array.dtype for array in arrays} == {np.dtype("int32")}


def test_the_first_two_batches_show_which_sizes_vary():
    for seed in range(5):
        dataset = batches(seed=seed, tokens_per_batch=40)
        first, second = (dataset[i][0]["input_ids"].shape for i in range(2))
        assert {first, second} == {(5, 8), (1, 33)}


def test_a_text_that_fits_exactly_is_not_padded():
    dataset = TokenBatches([[5] * 4, [5] * 8], tokens_per_batch=8, lengths=(4, 8), seed=None)
    assert [dataset[i][0]["attention_mask"].sum() for i in range(2)] == [8, 8]


def test_padding_is_counted_and_bounded():
    dataset = batches()
    masks = [dataset[i][0]["attention_mask"] for i in range(len(dataset))]
    labels = [dataset[i][1]["logits"] for i in range(len(dataset))]
    slots = 2 * sum(mask.size for mask in masks)
    # Texts of 1 to 32 tokens and short targets, in groups up to twice as long as their shortest.
    assert dataset.padding() < 0.55
    sources, targets = texts()
    real = sum(map(len, sources)) + sum(map(len, targets))
    assert dataset.padding() == pytest.approx(1 - real / slots)
    assert sum(int((row != IGNORED).sum()) for row in labels) == sum(map(len, targets))


def test_teacher_forcing_and_padding():
    dataset = TokenBatches(
        [[7, 8]], [[9, 10, 1]], tokens_per_batch=8, lengths=(4,), decoder_start_token_id=START,
        pad_token_id=PAD,
    )  # fmt: skip
    inputs, labels = dataset[0]
    assert inputs["input_ids"].tolist()[0] == [7, 8, PAD, PAD]
    assert inputs["attention_mask"].tolist()[0] == [1, 1, 0, 0]
    assert inputs["decoder_input_ids"].tolist()[0] == [START, 9, 10, 1]
    # The second row fills the shape with real tokens, and teaches nothing.
    assert labels["logits"].tolist() == [[9, 10, 1, IGNORED], [IGNORED] * 4]
    assert inputs["input_ids"].tolist()[1] == [7, 8, PAD, PAD]


def test_causal_batches():
    inputs, labels = TokenBatches([[7, 8, 9]], tokens_per_batch=4, lengths=(4,))[0]
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert inputs["input_ids"].tolist() == [[7, 8, 9, 0]]
    assert labels["logits"].tolist() == [[8, 9, IGNORED, IGNORED]]


@pytest.mark.parametrize(
    ("sources", "targets", "options", "message"),
    [
        ([[5]], [[5], [6]], {}, "1 sources and 2 targets"),
        ([[5], []], [[5], [6]], {}, "at least one token"),
        ([], [], {}, "there must be texts"),
        ([[5] * 9, [6]], [[5], [6] * 20], {}, "2 texts are longer than 8 tokens, .* has 20"),
        ([[5]], [[5]], {"decoder_start_token_id": None}, "decoder_start_token_id is needed"),
    ],
)  # fmt: skip
def test_refuses(sources, targets, options, message):
    settings = {"decoder_start_token_id": 0, "lengths": (4, 8), **options}
    with pytest.raises(InputError, match=message):
        TokenBatches(sources, targets, **settings)


def test_fit_a_decoder():
    keras.utils.set_random_seed(1)
    pattern = [5, 6, 7, 8, 9] * 7
    sources = [pattern[i % 5 : i % 5 + 9 + i % 11] for i in range(96)]
    model = models.build(
        "llama", vocab_size=13, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
    )  # fmt: skip
    dataset = TokenBatches(sources, tokens_per_batch=128, lengths=(20,))
    model.compile(
        keras.optimizers.Adam(WarmupSchedule(6e-3, 8, "linear", 2 * len(dataset))),
        loss={"logits": MaskedCrossEntropy(0.1)},
        metrics={"logits": [MaskedAccuracy(), Perplexity()]},
    )
    history = model.fit(dataset, validation_data=dataset, epochs=2, verbose=0).history
    names = {"loss", "accuracy", "perplexity"}
    assert names | {f"val_{name}" for name in names} <= set(history)
    assert history["val_accuracy"][-1] > 0.95
    # The mean over tokens, which does not depend on how texts fall into batches.
    logits, labels = [], []
    for i in range(len(dataset)):
        inputs, targets = dataset[i]
        logits.append(model.predict_on_batch(inputs)["logits"][targets["logits"] != IGNORED])
        labels.append(targets["logits"][targets["logits"] != IGNORED])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = np.exp(float(loss(np.concatenate(labels), np.concatenate(logits))))
    assert history["val_perplexity"][-1] == pytest.approx(expected, rel=1e-3)
