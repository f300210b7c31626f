"""A process of its own that trains one small model on one task and tests it; prints a JSON line.

Usage: python -m attention_study.quality_worker REQUEST, a JSON object as quality.py makes it.
"""

import json
import os
import sys


def main(request):
    os.sched_setaffinity(0, request["cores"])
    from attention_study import tasks

    task = tasks.TASKS[request["task"]](**request["settings"])
    print(json.dumps(measure(request["mechanism"], task, request)), flush=True)


def measure(name, task, request):
    """What a model learns in its steps.

    Args:
        name: str, of MECHANISMS.
        task: of TASKS.
        request: dict.

    Returns:
        dict of accuracy by difficulty, parameters, and the last loss.
    """
    import keras

    from keras_seqattn import training

    keras.utils.set_random_seed(request["seed"])
    model = build(name, task, request)
    loss = training.MaskedCrossEntropy()
    warmup = round(request["warmup"] * request["steps"])
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        request["steps"] - warmup,
        warmup_target=request["learning_rate"],
        warmup_steps=warmup,
    )
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss)
    epochs = min(10, request["steps"])
    history = model.fit(
        task.batches(request["seed"]),
        steps_per_epoch=request["steps"] // epochs,
        epochs=epochs,
        verbose=0,
    ).history
    accuracies = {
        difficulty: _accuracy(model, *test, task.rows)
        for difficulty, test in task.evaluations(request["seed"]).items()
    }
    return {
        "accuracy": accuracies,
        "parameters": model.count_params(),
        "loss": history["loss"][-1],
    }


def build(name, task, request):
    """Embedding, a convolution over four tokens that tells their order, blocks, and logits.

    There are no other positions, so that none of a longer text is new.
    """
    import keras
    from keras import ops

    from attention_study.mechanisms import MECHANISMS, Sizes, block_arguments, is_causal
    from keras_seqattn import layers

    causal, heads, width = is_causal(name, task.causal), request["num_heads"], request["width"]
    sizes = Sizes(heads, width // heads, request["size"], task.max_length, causal)
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    mask = ops.cast(ops.not_equal(ids, 0), "int32")
    x = keras.layers.Embedding(task.vocabulary_size, width, name="embedding")(ids)
    x = x + layers.CausalConv1D(4, name="convolution")(x)[0]
    call = {"attention_mask": mask}
    if "global_attention_mask" in MECHANISMS[name].inputs:
        call["global_attention_mask"] = ops.cast(ops.equal(ops.cumsum(mask, axis=1), 1), "int32")
    for number in range(request["num_layers"]):
        block = (layers.DecoderBlock if causal else layers.EncoderBlock)(
            heads,
            width // heads,
            4 * width,
            normalize_first=True,
            norm="rms_norm",
            name=f"block_{number}",
            **block_arguments(name, sizes),
        )
        x = block(x, **call)
    if task.classes:
        real = ops.cast(ops.expand_dims(mask, -1), "float32")
        x = ops.sum(x * real, axis=1, keepdims=True) / ops.sum(real, axis=1, keepdims=True)
    x = keras.layers.LayerNormalization(name="norm")(x)
    logits = keras.layers.Dense(task.classes or task.vocabulary_size, name="logits")(x)
    return keras.Model(ids, logits)


def _accuracy(model, ids, labels, rows):
    """The share of labels that count which have the largest logit."""
    import numpy as np

    from keras_seqattn.training import IGNORED

    right = np.argmax(model.predict(ids, batch_size=rows, verbose=0), axis=-1) == labels
    return float(np.mean(right[labels != IGNORED]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
