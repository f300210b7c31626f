"""Writes the bundles of the streaming model, decodes with one, or compares with the model itself.

Usage: python -m attention_study.streaming_worker write|decode|check, with a JSON request on
standard input.
"""

import json
import pathlib
import statistics
import sys
import time


def model(request, rolling):
    """The model, its weights drawn so that tokens differ: with those of training's start it would
    repeat one."""
    import numpy as np

    from keras_seqattn import models

    settings = {**request["config"], "sliding_window": request["window"]}
    built = models.build("mistral", **settings, rolling_cache=rolling)
    random = np.random.default_rng(0)
    for variable in built.trainable_variables:
        shape = tuple(variable.shape)
        if len(shape) > 1:
            variable.assign(random.normal(0.0, 1.5 / shape[0] ** 0.5, shape))
    return built


def write(request):
    """Export both bundles."""
    from keras_seqattn import onnx

    for kind in request["tokens"]:
        path = pathlib.Path(request["work"]) / kind
        onnx.export(model(request, kind == "rolling"), path, verify=False)
    return {}


def decode(request):
    """Decode, noting the seconds per token and the memory now and then.

    Returns:
        dict of lengths, seconds (medians of a token since the last length), bytes (beyond those at
        the first length), tokens, distinct tokens, and the first ones.
    """
    from attention_study import memory
    from keras_seqattn import runtime

    bundle = runtime.load(
        pathlib.Path(request["work"]) / request["kind"], threads=request["threads"]
    )
    count, every = request["tokens"][request["kind"]], request["every"]
    tokens, seconds, lengths, medians, resident = [], [], [], [], []
    before = time.perf_counter()
    settings = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
    for token in bundle.stream(request["prompt"], **settings):
        now = time.perf_counter()
        tokens.append(int(token))
        seconds.append(now - before)
        if len(tokens) % every == 0:
            lengths.append(len(tokens))
            medians.append(statistics.median(seconds[-every:]))
            resident.append(memory.resident())
        before = time.perf_counter()
    return {
        "lengths": lengths,
        "seconds": medians,
        "bytes": [size - resident[0] for size in resident],
        "tokens": len(tokens),
        "distinct": len(set(tokens)),
        "first_tokens": tokens[: request["prefix"]],
    }


def check(request):
    """Compare the first tokens with what the model says of the whole text at once, uncached.

    Returns:
        dict of compared and equal, numbers of tokens.
    """
    import keras
    import numpy as np

    prompt, decoded = request["prompt"], request["decoded"]
    ids = np.array([prompt + decoded[:-1]], "int32")
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    outputs = model(request, request["kind"] == "rolling")(inputs, training=False)
    logits = keras.ops.convert_to_numpy(keras.ops.stop_gradient(outputs["logits"]))
    wanted = logits[0, len(prompt) - 1 :].argmax(axis=-1)
    return {"compared": len(decoded), "equal": int((wanted == np.array(decoded)).sum())}


if __name__ == "__main__":
    verbs = {"write": write, "decode": decode, "check": check}
    print(json.dumps(verbs[sys.argv[1]](json.load(sys.stdin))))
