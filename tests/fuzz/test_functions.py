"""Functions that need no model, each with an argument or two that is not as it should be."""

import numpy as np
import pytest

from keras_seqattn import analysis, training
from keras_seqattn.inspection import inspect
from keras_seqattn.quickstart import quickstart
from keras_seqattn.samples import debian_descriptions
from tests.fuzz.harness import attempt
from tests.fuzz.inputs import anything
from tests.fuzz.mutations import pick

pytestmark = pytest.mark.fuzz

_TOKENS, _ROWS = [5, 6, 7, 8, 9, 10, 11, 12], [[5, 6, 7], [8, 9, 0]]
_PAIRS = [("the cat", "die Katze"), ("a dog 1", "ein Hund"), ("a dog 2", "ein Hund")]
_SCORES = np.full((2, 3, 4), 0.25)
_RANDOM = np.random.default_rng(0)
_TEXT = {"tokens": _TOKENS, "rng": _RANDOM}
# Good arguments of each function, by name.
_FUNCTIONS = (
    (
        training.text_infilling,
        _TEXT | {"mask_token_id": 1, "ratio": 0.3},
    ),
    (
        training.text_infilling,
        _TEXT | {"mask_token_id": 1, "mean_span": 2},
    ),
    (training.token_masking, _TEXT | {"mask_token_id": 1, "ratio": 0.3}),
    (training.token_deletion, _TEXT | {"ratio": 0.3}),
    (training.sentence_permutation, _TEXT | {"sentence_end_ids": [7]}),
    (training.document_rotation, _TEXT),
    (
        training.span_corruption,
        _TEXT | {"sentinel_id": 99, "eos_token_id": 1, "density": 0.2},
    ),
    (training.corrupted_lengths, {"length": 20, "density": 0.15, "mean_span": 3.0}),
    (training.raw_length, {"input_length": 20, "density": 0.15, "mean_span": 3.0}),
    (training.split_pairs, {"pairs": _PAIRS, "validation": 0.1, "test": 0.1}),
    (training.without_near_duplicates, {"pairs": _PAIRS, "train": _PAIRS[:1], "overlap": 0.7}),
    (training.shift_right, {"labels": _ROWS, "decoder_start_token_id": 1, "pad_token_id": 0}),
    (training.next_tokens, {"input_ids": _ROWS, "attention_mask": [[1, 1, 1], [1, 1, 0]]}),
    (training.corpus_bleu, {"translations": ["a b c d"], "references": ["a b c e"]}),
    (training.corpus_chrf, {"translations": ["a b c d"], "references": ["a b c e"]}),
    (training.train_bpe, {"texts": ["a cat"], "vocabulary_size": 262, "min_frequency": 1}),
    (training.MaskedCrossEntropy, {"label_smoothing": 0.1, "ignore_class": -100}),
    (training.Perplexity, {"ignore_class": -100}),
    (training.MaskedAccuracy, {"ignore_class": -100}),
    (training.NoamSchedule, {"hidden_dim": 8, "warmup_steps": 10, "scale": 1.0}),
    (training.WarmupSchedule, {"learning_rate": 0.1, "warmup_steps": 10}),
    (
        training.WarmupSchedule,
        {"learning_rate": 0.1, "warmup_steps": 10, "decay": "linear", "total_steps": 20},
    ),
    (
        training.TokenBatches,
        {
            "sources": _ROWS,
            "targets": _ROWS,
            "tokens_per_batch": 64,
            "lengths": (4, 8),
            "decoder_start_token_id": 1,
            "pad_token_id": 0,
            "seed": 3,
        },
    ),
    (training.TranslationScores, {"sources": ["a"], "references": ["b"], "every": 1, "show": 0}),
    (analysis.attention_entropy, {"scores": _SCORES}),
    (analysis.attention_distance, {"scores": _SCORES}),
    (
        analysis.plot_alignment,
        {"scores": _SCORES[0], "source_tokens": list("abcd"), "target_tokens": list("abc")},
    ),
    (
        analysis.plot_heads,
        {"scores": _SCORES, "tokens": list("abcd"), "query_tokens": list("abc"), "title": "x"},
    ),
    (inspect, {"path": "nowhere"}),
)
# Good arguments would make these run for long.
_ONLY_WRONG = (
    (debian_descriptions, {"language": "xx", "kind": "segment"}),
    (quickstart, {"output": "nowhere", "quiet": 3}),
)


def function_case(random, folder):
    """One function with none, one or two arguments changed."""
    if random.random() < 0.02:
        function, arguments = pick(random, _ONLY_WRONG)
        attempt(function, **arguments)
        raise AssertionError(f"{function.__name__} took {arguments}")
    function, arguments = pick(random, _FUNCTIONS)
    arguments = dict(arguments)
    changes = int(random.integers(3))
    for _ in range(changes):
        name = pick(random, tuple(arguments))
        arguments[name] = anything(random, arguments[name])
    result = attempt(function, **arguments)
    if function is training.TokenBatches:
        assert len(result[0]) == 2
    return function.__name__


def test_functions(fuzz):
    fuzz(function_case, short=150)
