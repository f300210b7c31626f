"""Build a tiny LLaMA, train it with compile and fit on bytes of English, let it write, export it.

The data are the docstrings of Python's standard library.

    KERAS_BACKEND=jax python examples/train_llama.py tiny_llama
"""

import ast
import sys
import sysconfig
import tempfile
from pathlib import Path

import keras
import numpy as np

import keras_seqattn
from keras_seqattn import models, onnx, runtime, training

LENGTH = 64
CONFIG = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
}


def read_text(files):
    """The docstrings as int32 (n,), one token a byte."""
    texts = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:files]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                texts.append(ast.get_docstring(node) or "")
    return np.frombuffer("\n\n".join(texts).encode("ascii", "ignore"), "uint8").astype("int32")


def main(folder=None, short=False):
    keras.utils.set_random_seed(1)
    data = read_text(files=20 if short else None)
    rows = data[: len(data) // LENGTH * LENGTH - LENGTH].reshape(-1, LENGTH)
    following = data[1 : rows.size + 1].reshape(-1, LENGTH)
    model = models.build("llama", **CONFIG)
    model.compile(
        keras.optimizers.AdamW(3e-3, clipnorm=1.0),
        {"logits": training.MaskedCrossEntropy()},
    )
    inputs = {"input_ids": rows, "attention_mask": np.ones_like(rows)}
    history = model.fit(
        inputs, {"logits": following}, epochs=1 if short else 10, batch_size=32, verbose=2
    )
    start, settings = list(b"Return the "), {"max_new_tokens": 8 if short else 120}
    written = keras_seqattn.generate(model, start, **settings)
    print(bytes(start + written).decode("ascii"))
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(folder or scratch) / "bundle"
        onnx.export(model, bundle)
        assert runtime.load(bundle).generate(start, **settings) == written
    return history.history["loss"]


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--short"]
    main(*words[:1], short="--short" in sys.argv)
