"""The sentence pairs, their split, the joint vocabulary, and batches of equal size in tokens."""

import dataclasses

import numpy as np

from keras_seqattn import samples, training
from keras_seqattn.runtime import Tokenizer


@dataclasses.dataclass(frozen=True)
class Corpus:
    """English-Italian pairs of texts, and the tokenizer that was trained on their training part."""

    split: training.Split
    assets: dict
    tokenizer: Tokenizer


def read_corpus(settings, folder):
    """Debian's package descriptions, split by source text.

    Args:
        settings: Settings.
        folder: pathlib.Path, where the tokenizer is kept.

    Returns:
        Corpus.
    """
    pairs = samples.debian_descriptions("it", kind="segment")
    if settings.pairs is not None:
        order = np.random.default_rng(0).permutation(len(pairs))
        pairs = [pairs[i] for i in order[: settings.pairs]]
    split = training.split_pairs(pairs)
    assets = _tokenizer_assets(split, settings, folder)
    return Corpus(split, assets, Tokenizer(assets))


def _tokenizer_assets(split, settings, folder):
    path = folder / "tokenizer.json"
    config = folder / "tokenizer_config.json"
    if not config.exists():
        texts = (text for pair in split.train for text in pair)
        for name, content in training.train_bpe(texts, settings.vocabulary_size).items():
            (folder / name).write_bytes(content)
    return {file.name: file.read_bytes() for file in (path, config)}


def encode(corpus, pairs):
    """Lists of token ids: of the sources, and of the targets."""
    return tuple(
        [encoding.ids for encoding in corpus.tokenizer.encode_batch([pair[side] for pair in pairs])]
        for side in (0, 1)
    )


def batches(corpus, pairs, settings, seed=0):
    """Batches of the pairs that fit the longest length.

    Args:
        corpus: Corpus.
        pairs: list of (source, target).
        settings: Settings.
        seed: of the order; None keeps it.

    Returns:
        training.TokenBatches.
    """
    sources, targets = encode(corpus, pairs)
    short = [
        (source, target)
        for source, target in zip(sources, targets, strict=True)
        if max(len(source), len(target)) <= max(settings.lengths)
    ]
    return training.TokenBatches(
        [source for source, _ in short],
        [target for _, target in short],
        tokens_per_batch=settings.tokens_per_batch,
        lengths=settings.lengths,
        decoder_start_token_id=1,
        seed=seed,
    )


def describe(corpus, settings):
    """Numbers about the corpus, for the document."""
    sources, targets = encode(corpus, corpus.split.train)
    lengths = np.array([[len(s), len(t)] for s, t in zip(sources, targets, strict=True)])
    kept = lengths.max(1) <= max(settings.lengths)
    return {
        "pairs": {name: len(part) for name, part in corpus.split._asdict().items()},
        "trained_pairs": int(kept.sum()),
        "source_tokens": int(lengths[kept, 0].sum()),
        "target_tokens": int(lengths[kept, 1].sum()),
        "source_length_percentiles": {
            str(p): float(np.percentile(lengths[:, 0], p)) for p in (5, 25, 50, 75, 95, 99)
        },
        "vocabulary_size": corpus.tokenizer.vocabulary_size,
    }
