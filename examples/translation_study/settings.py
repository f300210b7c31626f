"""The choices of the study: its full form, and the short one that CI runs."""

import dataclasses

FAMILIES = ("rnn_seq2seq", "bahdanau", "transformer")
TITLES = {
    "rnn_seq2seq": "LSTM, fixed context",
    "bahdanau": "GRU with attention",
    "transformer": "transformer",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the measurements depend on.

    Attributes:
        pairs: how many sentence pairs to use; None is all.
        vocabulary_size: of the joint BPE.
        lengths: the lengths that training batches are padded to; longer pairs are not trained on.
        tokens_per_batch: rows x length of a training batch.
        seconds: training time of each model, compilation not counted.
        configs: family -> arguments of `models.build`.
        learning_rates, warmups: family -> peak, and share of the time until it is reached.
        label_smoothings: family -> label smoothing.
        test_lengths: upper edges of the source lengths by which BLEU is reported.
        test_sentences: how many held-out sentences to translate.
        max_new_tokens: longest translation.
        verify: compare the exported models with Keras; that of the int8 one always is.
        throughput_lengths, throughput_tokens, throughput_seconds: see throughput.py.
        gradient_lengths, gradient_rows: see gradients.py.
        memory_lengths, memory_rows: see memory.py.
    """

    pairs: int | None
    vocabulary_size: int
    lengths: tuple
    tokens_per_batch: int
    seconds: float
    configs: dict
    learning_rates: dict
    warmups: dict
    label_smoothings: dict
    test_lengths: tuple
    test_sentences: int
    max_new_tokens: int
    verify: bool
    throughput_lengths: tuple
    throughput_tokens: int
    throughput_seconds: float
    gradient_lengths: tuple
    gradient_rows: int
    memory_lengths: tuple
    memory_rows: int


def _configs(vocabulary_size, widths, layers):
    """The models by family; one table serves both languages and the logits, in each of them."""
    attentive, states = widths["bahdanau"]
    shared = {
        "vocab_size": vocabulary_size,
        "tie_word_embeddings": True,
        "dropout": 0.0,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    }
    sides = {"layers": layers, "attention_heads": 4, "ffn_dim": 4 * widths["transformer"]}
    return {
        "rnn_seq2seq": {
            **shared,
            "share_encoder_decoder_embeddings": True,
            "embedding_size": widths["rnn_seq2seq"],
            "hidden_size": widths["rnn_seq2seq"],
            "num_hidden_layers": max(1, layers - 1),
        },
        "bahdanau": {
            **shared,
            "share_encoder_decoder_embeddings": True,
            "embedding_size": attentive,
            "maxout_size": attentive,
            "hidden_size": states,
            "attention_size": states,
        },
        "transformer": {
            **shared,
            "d_model": widths["transformer"],
            # The paper's post-norm needs more warm-up than this training lasts: see the document.
            "normalize_before": True,
            **{f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in sides.items()},
        },
    }


FULL = Settings(
    pairs=None,
    vocabulary_size=4000,
    lengths=(12, 20, 32, 56, 96),
    tokens_per_batch=2048,
    seconds=360.0,
    configs=_configs(
        4000, {"rnn_seq2seq": 189, "bahdanau": (160, 197), "transformer": 128}, layers=3
    ),
    learning_rates={"rnn_seq2seq": 2e-3, "bahdanau": 2e-3, "transformer": 2e-3},
    warmups={"rnn_seq2seq": 0.03, "bahdanau": 0.03, "transformer": 0.12},
    label_smoothings={"rnn_seq2seq": 0.1, "bahdanau": 0.1, "transformer": 0.1},
    test_lengths=(8, 12, 16, 24, 32, 48, 96, 10_000),
    test_sentences=1200,
    max_new_tokens=160,
    verify=True,
    throughput_lengths=(8, 16, 32, 64, 128, 256),
    throughput_tokens=2048,
    throughput_seconds=4.0,
    gradient_lengths=(2, 4, 8, 16, 32, 64, 96),
    gradient_rows=32,
    memory_lengths=(32, 64, 128, 256, 512),
    memory_rows=8,
)

SHORT = Settings(
    pairs=3000,
    vocabulary_size=1000,
    lengths=(24, 48),
    tokens_per_batch=1024,
    seconds=5.0,
    configs=_configs(1000, {"rnn_seq2seq": 58, "bahdanau": (44, 44), "transformer": 48}, layers=1),
    learning_rates={"rnn_seq2seq": 3e-3, "bahdanau": 3e-3, "transformer": 3e-3},
    warmups={"rnn_seq2seq": 0.05, "bahdanau": 0.05, "transformer": 0.1},
    label_smoothings={"rnn_seq2seq": 0.1, "bahdanau": 0.1, "transformer": 0.1},
    test_lengths=(16, 32, 1000),
    test_sentences=24,
    max_new_tokens=24,
    verify=False,
    throughput_lengths=(8, 32),
    throughput_tokens=256,
    throughput_seconds=0.2,
    gradient_lengths=(4, 16),
    gradient_rows=4,
    memory_lengths=(64,),
    memory_rows=4,
)
