"""Scores of translations, and a callback that translates a held-out set during fit."""

import keras

from keras_seqattn import arguments
from keras_seqattn.arguments import integer
from keras_seqattn.errors import InputError
from keras_seqattn.generation.api import generate
from keras_seqattn.generation.settings import check_names
from keras_seqattn.training.checks import iterable


def corpus_bleu(translations, references):
    """BLEU (Papineni et al. 2002) with the defaults of sacrebleu, 0 to 100.

    Args:
        translations: list of str.
        references: list of str, one for each.

    Returns:
        float.

    Raises:
        InputError: the lists differ in length or are empty, or sacrebleu is not installed.
    """
    return _score("BLEU", translations, references)


def corpus_chrf(translations, references):
    """chrF2 (Popovic 2015), the F-score of character n-grams, computed by sacrebleu, 0 to 100.

    Args:
        translations: list of str.
        references: list of str, one for each.

    Returns:
        float.

    Raises:
        InputError: the lists differ in length or are empty, or sacrebleu is not installed.
    """
    return _score("CHRF", translations, references)


class TranslationScores(keras.callbacks.Callback):
    """Translates held-out texts after an epoch, and adds val_bleu and val_chrf to the logs.

    Put it before callbacks that watch these names, such as EarlyStopping and ModelCheckpoint.

    Args:
        sources: list of str.
        references: list of str, their translations.
        every: int, number of epochs between two translations.
        batch_size: int, number of texts translated at once.
        show: int, number of translations to print.
        **settings: settings of `keras_seqattn.generate`, such as max_new_tokens and num_beams.

    The assets of the model must contain its tokenizer.
    """

    def __init__(self, sources, references, every=1, batch_size=64, show=0, **settings):
        super().__init__()
        integer(every, "every", least=1)
        integer(batch_size, "batch_size", least=1)
        integer(show, "show")
        check_names(settings)
        sources, references = _list(sources, "sources"), _list(references, "references")
        if len(sources) != len(references):
            raise InputError(f"there are {len(sources)} sources and {len(references)} references")
        self.sources, self.references = list(sources), list(references)
        self.every = every
        self.batch_size = batch_size
        self.show = show
        self.settings = settings

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every:
            return
        translations = translate(self.model, self.sources, self.batch_size, **self.settings)
        if logs is not None:
            logs["val_bleu"] = corpus_bleu(translations, self.references)
            logs["val_chrf"] = corpus_chrf(translations, self.references)
        for source, translation in list(zip(self.sources, translations, strict=True))[: self.show]:
            print(f"{source} -> {translation}")


def translate(model, sources, batch_size=64, **settings):
    """Generate a text for each source; sources of similar length are in one batch.

    Args:
        model: SequenceModel whose assets contain its tokenizer.
        sources: list of str.
        batch_size: int, number of texts in a batch.
        **settings: settings of `keras_seqattn.generate`.

    Returns:
        List of str, in the order of `sources`.
    """
    integer(batch_size, "batch_size", least=1)
    sources = _list(sources, "sources")
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    translations = [None] * len(sources)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        texts = generate(model, [sources[i] for i in rows], **settings)
        for i, text in zip(rows, texts, strict=True):
            translations[i] = text
    return translations


def _list(texts, name):
    # Checked one by one, so that an endless iterable of other objects is refused, too.
    return [arguments.text(text, name) for text in iterable(texts, name)]


def _score(name, translations, references):
    try:
        from sacrebleu import metrics
    except ImportError:
        raise InputError("scores of translations need sacrebleu: pip install sacrebleu") from None
    translations = _list(translations, "translations")
    references = _list(references, "references")
    if not translations or len(translations) != len(references):
        raise InputError(
            f"there are {len(translations)} translations and {len(references)} references"
        )
    return getattr(metrics, name)().corpus_score(list(translations), [list(references)]).score
