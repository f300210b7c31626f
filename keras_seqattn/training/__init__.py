"""Objectives, losses, metrics, schedules, batches and data splits for `compile` and `fit`."""

from keras_seqattn.training.batches import TokenBatches
from keras_seqattn.training.denoising import (
    document_rotation,
    sentence_permutation,
    text_infilling,
    token_deletion,
    token_masking,
)
from keras_seqattn.training.losses import MaskedCrossEntropy
from keras_seqattn.training.metrics import MaskedAccuracy, Perplexity
from keras_seqattn.training.schedules import NoamSchedule, WarmupSchedule
from keras_seqattn.training.span_corruption import corrupted_lengths, raw_length, span_corruption
from keras_seqattn.training.split import Split, split_pairs, without_near_duplicates
from keras_seqattn.training.targets import IGNORED, next_tokens, shift_right
from keras_seqattn.training.translation import (
    TranslationScores,
    corpus_bleu,
    corpus_chrf,
    translate,
)
from keras_seqattn.training.vocabulary import SPECIAL_TOKENS, train_bpe

__all__ = [
    "IGNORED",
    "SPECIAL_TOKENS",
    "MaskedAccuracy",
    "MaskedCrossEntropy",
    "NoamSchedule",
    "Perplexity",
    "Split",
    "TokenBatches",
    "TranslationScores",
    "WarmupSchedule",
    "corpus_bleu",
    "corpus_chrf",
    "corrupted_lengths",
    "document_rotation",
    "next_tokens",
    "raw_length",
    "sentence_permutation",
    "shift_right",
    "span_corruption",
    "split_pairs",
    "text_infilling",
    "token_deletion",
    "token_masking",
    "train_bpe",
    "translate",
    "without_near_duplicates",
]
