"""A Keras model of your own around `MultiHeadAttention`: tell prose from code, byte by byte.

The data are lines of Python's standard library: its comments are the prose.

    KERAS_BACKEND=jax python examples/attention_in_your_model.py
"""

import sys
import sysconfig
from pathlib import Path

import keras
import numpy as np

from keras_seqattn.layers import FeedForward, MultiHeadAttention, RotaryPositions

LENGTH = 64


def read_lines(files):
    """Bytes int32 (n, LENGTH), 0 = padding, and labels int32 (n,), 1 = prose, half of each."""
    texts = {False: [], True: []}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:files]:
        for line in path.read_text("utf-8").splitlines():
            text = line.strip().lstrip("# ").encode("ascii", "ignore")[:LENGTH]
            if len(text) > 20:
                texts[line.strip().startswith("# ")].append(text.ljust(LENGTH, b"\0"))
    count = min(map(len, texts.values()))
    rows = [np.frombuffer(text, "uint8") for kind in texts for text in texts[kind][:count]]
    order = np.random.default_rng(0).permutation(2 * count)
    return np.stack(rows).astype("int32")[order], np.repeat([0, 1], count)[order]


def make_model(width=32):
    # The mask of the embedding reaches the attention by itself.
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(256, width, mask_zero=True)(tokens)
    positions = RotaryPositions(head_dim=8)
    for _ in range(2):
        attention = MultiHeadAttention(4, 8, num_key_value_heads=2, positions=positions)
        x = x + attention(keras.layers.LayerNormalization()(x))
        x = x + FeedForward(2 * width, gated=True)(keras.layers.LayerNormalization()(x))
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, keras.layers.Dense(1, activation="sigmoid")(x))


def main(short=False):
    keras.utils.set_random_seed(1)
    lines, labels = read_lines(files=20 if short else None)
    model = make_model()
    model.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy", metrics=["accuracy"])
    test = len(lines) // 10
    epochs = 2 if short else 5
    model.fit(lines[test:], labels[test:], epochs=epochs, batch_size=64, verbose=2)
    accuracy = model.evaluate(lines[:test], labels[:test], verbose=0, return_dict=True)["accuracy"]
    print(f"{accuracy:.1%} of {test} unseen lines are told apart correctly")
    return accuracy


if __name__ == "__main__":
    main("--short" in sys.argv)
