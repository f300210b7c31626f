"""The choices of the study: its full form, and the short one that CI runs."""

import dataclasses

# One layer of these heads: small enough for 65,536 tokens on any machine, and heads of the usual
# size, on which the speed of the matrix products depends. What is claimed is claimed of a layer of
# the usual width as well: a small one of 4,096 tokens lies in the processor's caches whole.
HEADS, WIDE_HEADS, HEAD_DIM = 2, 8, 64
# Lengths between which the exponents are fitted.
FITTED = (4096, 65536)
TIME_EXPONENT, MEMORY_EXPONENT = 1.15, 1.1
# Local attention against dense, in onnxruntime.
COMPARED, SPEEDUP, MEMORY_SHARE = 16384, 8.0, 0.1


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the measurements depend on.

    Attributes:
        threads: of every engine, by the cores that it may use.
        lengths: of the costs.
        training_lengths: of the costs of training steps.
        wide_lengths: of the costs of a layer of WIDE_HEADS heads.
        size: keys to which a query attends, or numbers in which they are summed up.
        cell_seconds, fewest_calls: a call is repeated for so long, and so often at least.
        longest_call: seconds; what is expected to take longer is skipped.
        memory_share: of the memory free at the start; what is expected to need more is skipped.
        quality: task -> its settings, see tasks.py.
        quality_steps: task -> steps of training; the same on every machine.
        quality_size: as `size`, in the models of the tasks.
        width, num_heads, num_layers: of these models.
        learning_rate, warmup: its peak, and the share of the steps until it is reached.
        streaming: tokens to decode with a cache that rolls and with one that grows, the window, how
            many of the first tokens are compared with the model without a cache, after how many
            time and memory are noted, and the model's configuration.
    """

    threads: int
    lengths: tuple
    training_lengths: tuple
    wide_lengths: tuple
    size: int
    cell_seconds: float
    fewest_calls: int
    longest_call: float
    memory_share: float
    quality: dict
    quality_steps: dict
    quality_size: int
    width: int
    num_heads: int
    num_layers: int
    learning_rate: float
    warmup: float
    streaming: dict


FULL = Settings(
    threads=2,
    lengths=(256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536),
    training_lengths=(2048, 4096, 8192, 16384),
    wide_lengths=(4096, 8192, 16384, 32768, 65536),
    size=256,
    cell_seconds=0.3,
    fewest_calls=3,
    longest_call=8.0,
    memory_share=0.6,
    quality={
        "recall": {"pairs": (4, 8, 32), "length": 64, "symbols": 32, "rows": 32, "tests": 256},
        "copying": {
            "lengths": (4, 32),
            "tested": (16, 32, 64, 128, 256),
            "symbols": 16,
            "rows": 32,
            "tests": 64,
        },
        "emails": {
            "shortest": 256,
            "longest": 1024,
            "vocabulary_size": 2000,
            "rows": 8,
            "tests": 0.15,
        },
    },
    quality_steps={"recall": 800, "copying": 800, "emails": 300},
    quality_size=32,
    width=64,
    num_heads=2,
    num_layers=2,
    learning_rate=4e-3,
    warmup=0.1,
    streaming={
        "tokens": {"rolling": 50_000, "growing": 50_000},
        "window": 256,
        "prefix": 2048,
        "every": 250,
        "config": {
            "vocab_size": 512,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "max_position_embeddings": 65536,
        },
    },
)

SHORT = Settings(
    threads=2,
    lengths=(64, 128, 256),
    training_lengths=(64,),
    wide_lengths=(64, 128),
    size=16,
    cell_seconds=0.0,
    fewest_calls=1,
    longest_call=8.0,
    memory_share=0.3,
    quality={
        "recall": {"pairs": (2, 4), "length": 16, "symbols": 8, "rows": 4, "tests": 8},
        "emails": {
            "shortest": 32,
            "longest": 64,
            "vocabulary_size": 400,
            "rows": 4,
            "tests": 0.15,
            "emails": 400,
        },
    },
    quality_steps={"recall": 20, "emails": 10},
    quality_size=16,
    width=16,
    num_heads=2,
    num_layers=1,
    learning_rate=4e-3,
    warmup=0.1,
    streaming={
        "tokens": {"rolling": 96, "growing": 96},
        "window": 16,
        "prefix": 64,
        "every": 16,
        "config": {
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 128,
        },
    },
)
