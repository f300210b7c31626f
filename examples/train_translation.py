"""Train a small Transformer on English-Italian lines, translate lines it has not seen, export it.

The data are the one-line descriptions of Debian's packages and their translations.

    KERAS_BACKEND=jax python examples/train_translation.py tiny_translator
"""

import sys
import tempfile
from pathlib import Path

import keras

from keras_seqattn import models, onnx, runtime, samples, training

LENGTHS = (12, 24)
CONFIG = {
    "d_model": 128,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 512,
    "decoder_ffn_dim": 512,
    "dropout": 0.1,
    "normalize_before": True,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
    "eos_token_id": 2,
}


def batches(pairs, tokenizer):
    """Batches of the pairs that are short enough."""
    rows = [[tokenizer.encode(text) for text in pair] for pair in pairs]
    rows = [row for row in rows if max(map(len, row)) <= LENGTHS[-1]]
    return training.TokenBatches(
        *zip(*rows, strict=True),
        tokens_per_batch=1024,
        lengths=LENGTHS,
        decoder_start_token_id=CONFIG["decoder_start_token_id"],
    )


def main(folder=None, short=False):
    keras.utils.set_random_seed(1)
    split = training.split_pairs(samples.debian_descriptions("it", "synopsis"))
    train = split.train[: 2000 if short else None]
    sources, references = zip(*split.test[: 8 if short else 200], strict=True)
    assets = training.train_bpe((text for pair in train for text in pair), 4000)
    tokenizer = runtime.Tokenizer(assets)
    model = models.build("transformer", vocab_size=tokenizer.vocabulary_size, **CONFIG)
    model.assets = assets
    data, epochs = batches(train, tokenizer), 1 if short else 6
    steps = epochs * len(data)
    model.compile(
        keras.optimizers.Adam(training.WarmupSchedule(2e-3, steps // 10, "cosine", steps)),
        loss={"logits": training.MaskedCrossEntropy(label_smoothing=0.1)},
        metrics={"logits": training.MaskedAccuracy()},
    )
    scores = training.TranslationScores(
        *zip(*split.validation[: 8 if short else 200], strict=True), show=3, max_new_tokens=32
    )
    history = model.fit(data, epochs=epochs, callbacks=[scores], verbose=2)
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(folder or scratch) / "bundle"
        onnx.export(model, bundle, precision="int8")
        written = runtime.load(bundle).generate(list(sources), num_beams=4, max_new_tokens=32)
    for line in zip(sources, written, strict=True):
        print(*line, sep=" -> ")
    print(f"BLEU of the bundle: {training.corpus_bleu(written, references):.1f}")
    return history.history["loss"]


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--short"]
    main(*words[:1], short="--short" in sys.argv)
