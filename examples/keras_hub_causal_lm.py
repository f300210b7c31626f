"""A GPT-2 of keras-hub, trained on the bytes of a text, becomes a bundle that runs without Keras.

With `model = keras_hub.models.GPT2CausalLM.from_preset("gpt2_base_en")` no training is needed, and
the bundle has a tokenizer. Here a token is a byte, and the text is Python's own documentation.

    KERAS_BACKEND=jax python examples/keras_hub_causal_lm.py
"""

import inspect
import os
import sys
import tempfile

import keras
import keras_hub
import numpy as np

import keras_seqattn

LENGTH = 48


def read_rows():
    """Bytes int32 (n, LENGTH + 1): the documentation of the functions of NumPy, in pieces."""
    texts = [inspect.getdoc(getattr(np, name)) or "" for name in sorted(dir(np))]
    text = np.frombuffer("\n".join(texts).encode("ascii", "ignore"), "uint8")
    return text[: len(text) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1).astype("int32")


def make_model():
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=128,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=128,
        dropout=0.0,
        max_sequence_length=128,
    )
    return keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)


def main(short=False, folder=None):
    keras.utils.set_random_seed(1)
    rows = read_rows()[: 800 if short else None]
    model = make_model()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, weighted_metrics=None, sampler="greedy")
    inputs = {"token_ids": rows[:, :-1], "padding_mask": np.ones_like(rows[:, :-1])}
    epochs = 1 if short else 5
    history = model.fit(inputs, rows[:, 1:], batch_size=16, epochs=epochs, verbose=2)
    bundle = os.path.join(folder or tempfile.mkdtemp(), "bundle")
    keras_seqattn.onnx.export(model, bundle, lengths=[1, 7], precision="int8")
    print(f"{bundle} needs no Keras, and no keras-hub:")
    decoder = keras_seqattn.runtime.load(bundle)
    prompt = list(b"Return the ")
    tokens = list(decoder.generate(prompt, max_new_tokens=40, do_sample=False))
    print(bytes(prompt + tokens).decode("ascii", "replace"))
    return history.history["loss"], tokens


if __name__ == "__main__":
    main("--short" in sys.argv)
