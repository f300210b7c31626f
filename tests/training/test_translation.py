"""BLEU and chrF are sacrebleu's, and the callback scores what the model writes during fit."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_seqattn import models
from keras_seqattn.errors import InputError
from keras_seqattn.runtime.tokenizer import Tokenizer
from keras_seqattn.training import (
    MaskedAccuracy,
    MaskedCrossEntropy,
    TokenBatches,
    TranslationScores,
    corpus_bleu,
    corpus_chrf,
    train_bpe,
    translate,
)

REFERENCES = ["la libreria per il gioco, in breve", "strumenti di sviluppo", "un gioco di carte"]
TRANSLATIONS = ["la libreria del gioco, in breve", "strumenti per sviluppo", "un gioco di carte"]


@pytest.mark.backend_free
@pytest.mark.parametrize(("score", "metric"), [(corpus_bleu, "bleu"), (corpus_chrf, "chrf")])
def test_scores_are_those_of_the_command(tmp_path, score, metric):
    files = {"references": REFERENCES, "translations": TRANSLATIONS}
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", "utf-8")
    command = [sys.executable, "-m", "sacrebleu", "references", "-i", "translations"]
    command += ["-m", metric, "-w", "6"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = json.loads(done.stdout)["score"]
    assert 20 < expected < 90
    assert score(TRANSLATIONS, REFERENCES) == pytest.approx(expected, abs=1e-6)


@pytest.mark.backend_free
def test_scores_need_a_reference_for_each():
    with pytest.raises(InputError, match="3 translations and 2 references"):
        corpus_bleu(TRANSLATIONS, REFERENCES[:2])
    with pytest.raises(InputError, match="0 translations"):
        corpus_chrf([], [])


def test_scores_during_fit(capsys):
    keras.utils.set_random_seed(1)
    words = {"red": "rosso", "green": "verde", "blue": "blu", "big": "grande", "small": "piccolo"}
    rng = np.random.default_rng(1)
    sources = [" ".join(rng.choice(list(words), 1 + i % 4)) for i in range(192)]
    targets = [" ".join(words[word] for word in source.split()) for source in sources]
    assets = train_bpe(sources + targets, vocabulary_size=290)
    tokenizer = Tokenizer(assets)
    model = models.build(
        "transformer", vocab_size=tokenizer.vocabulary_size, d_model=32, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=48,
        decoder_ffn_dim=48, dropout=0.0, max_position_embeddings=32,
        pad_token_id=0, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    model.assets = assets
    model.compile(
        keras.optimizers.Adam(5e-3),
        loss={"logits": MaskedCrossEntropy(0.1)},
        metrics={"logits": MaskedAccuracy()},
    )
    dataset = TokenBatches(
        [tokenizer.encode(text) for text in sources],
        [tokenizer.encode(text) for text in targets],
        tokens_per_batch=256,
        lengths=(16, 28),
        decoder_start_token_id=1,
    )
    held = TranslationScores(sources[:8], targets[:8], every=7, show=1, max_new_tokens=24)
    history = model.fit(dataset, epochs=14, verbose=0, callbacks=[held]).history
    assert len(history["val_bleu"]) == len(history["val_chrf"]) == 2
    assert history["val_chrf"][1] > 60
    assert history["accuracy"][-1] > max(0.6, history["accuracy"][0])
    written = translate(model, sources[:8], batch_size=3, max_new_tokens=24)
    # The last score is that of the weights after the last epoch.
    assert corpus_chrf(written, targets[:8]) == pytest.approx(history["val_chrf"][1])
    assert f"{sources[0]} -> {written[0]}" in capsys.readouterr().out
