"""Translations of held-out sentences, and their scores overall and by the source's length."""

import numpy as np

from keras_seqattn import models, onnx, runtime, training


def decoding(settings):
    """How every model and every way of running it decodes, so that their scores compare."""
    return {"batch_size": 32, "num_beams": 1, "max_new_tokens": settings.max_new_tokens}


def held_out(corpus, settings):
    """The test pairs that are translated, in a fixed random order."""
    pairs = corpus.split.test
    order = np.random.default_rng(7).permutation(len(pairs))
    return [pairs[i] for i in order[: settings.test_sentences]]


def export_fp32(family, settings, folder):
    """Export a trained model; the folder of the bundle."""
    bundle = folder / f"{family}-fp32"
    if not bundle.exists():
        onnx.export(models.load(folder / family), bundle, verify=settings.verify)
    return bundle


def translate(bundle, sources, settings):
    """Greedy translations by the runtime, which is faster than Keras and verified to equal it."""
    return runtime.load(bundle).translate(sources, **decoding(settings))


def measure(family, corpus, settings, folder):
    """Translate the held-out sentences and score them.

    Args:
        family: str.
        corpus: Corpus.
        settings: Settings.
        folder: pathlib.Path of the trained models.

    Returns:
        dict: translations, and the scores that `score` gives.
    """
    pairs = held_out(corpus, settings)
    translations = translate(
        export_fp32(family, settings, folder), [pair[0] for pair in pairs], settings
    )
    return {"translations": translations, **score(translations, pairs, corpus, settings)}


def score(translations, pairs, corpus, settings):
    """BLEU and chrF overall, without near duplicates of the training data, and by source length.

    Args:
        translations: list of str.
        pairs: list of (source, reference).
        corpus: Corpus.
        settings: Settings.

    Returns:
        dict: "all", "far" and "by_length" (upper edge -> ...) of dicts of bleu, chrf, sentences.
    """
    far = set(training.without_near_duplicates(pairs, corpus.split.train))
    lengths = _lengths(pairs, corpus)
    edges = [0, *settings.test_lengths]
    return {
        "all": _scores(translations, pairs, [True] * len(pairs)),
        "far": _scores(translations, pairs, [pair in far for pair in pairs]),
        "by_length": {
            str(high): _scores(translations, pairs, [low < n <= high for n in lengths])
            for low, high in zip(edges, edges[1:], strict=False)
        },
    }


def _scores(translations, pairs, chosen):
    rows = [i for i, is_chosen in enumerate(chosen) if is_chosen]
    if not rows:
        return {"bleu": None, "chrf": None, "sentences": 0}
    found, references = [translations[i] for i in rows], [pairs[i][1] for i in rows]
    return {
        "bleu": training.corpus_bleu(found, references),
        "chrf": training.corpus_chrf(found, references),
        "sentences": len(rows),
    }


def short_sentence(pairs, corpus, low=9, high=16):
    """The first held-out source of `low` to `high` tokens, to look at its alignment."""
    lengths = _lengths(pairs, corpus)
    fitting = [i for i, length in enumerate(lengths) if low <= length <= high]
    return pairs[fitting[0]][0]


def examples(quality, pairs, corpus, count=5):
    """Held-out sentences unlike any trained on, from short to long, and their translations.

    Args:
        quality: family -> what `measure` returned.
        pairs: the pairs that were translated.
        corpus: Corpus.
        count: int.

    Returns:
        list of dicts: source, reference, and every family's translation.
    """
    far = set(training.without_near_duplicates(pairs, corpus.split.train))
    order = [i for i in np.argsort(_lengths(pairs, corpus), kind="stable") if pairs[i] in far]
    chosen = [order[int(place * len(order))] for place in np.linspace(0.1, 0.9, count)]
    return [
        {
            "source": pairs[i][0],
            "reference": pairs[i][1],
            **{family: found["translations"][i] for family, found in quality.items()},
        }
        for i in chosen
    ]


def _lengths(pairs, corpus):
    return [len(corpus.tokenizer.encode(source)) for source, _ in pairs]
