"""One contender of a comparison: `contenders.py KIND SETTINGS` answers each line of its input with
the metrics of one run, as JSON.
"""

import concurrent.futures
import json
import sys
import time

import numpy as np

PROMPT, NEW_TOKENS, THREADS = 256, 128, 2
# Of the models that are compared; ids below it are drawn.
VOCABULARY = 30000


def keras_seqattn_decoder(bundle):
    """Greedy decoding by keras_seqattn.runtime; tokens per second."""
    from keras_seqattn import runtime

    model = runtime.load(bundle, threads=THREADS)

    def run():
        start = time.perf_counter()
        tokens = model.stream(
            _prompt()[None], do_sample=False, max_new_tokens=NEW_TOKENS + 1,
            min_new_tokens=NEW_TOKENS + 1,
        )  # fmt: skip
        return _rates(start, tokens)

    return run


def keras_seqattn_threads(bundle, generations, threads):
    """Greedy decoding of several prompts at once on one model; tokens per second in all."""
    from keras_seqattn import runtime

    model = runtime.load(bundle, threads=threads)

    def generate(_):
        model.generate(
            _prompt()[None, :16], do_sample=False, max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
        )  # fmt: skip

    def run():
        start = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(generations) as pool:
            list(pool.map(generate, range(generations)))
        return {"tokens": generations * NEW_TOKENS / (time.perf_counter() - start)}

    return run


def genai_decoder(folder):
    """Greedy decoding by onnxruntime-genai; tokens per second."""
    import onnxruntime_genai

    config = onnxruntime_genai.Config(folder)
    options = {"session_options": {"intra_op_num_threads": THREADS}}
    config.overlay(json.dumps({"model": {"decoder": options}}))
    model = onnxruntime_genai.Model(config)
    length = PROMPT + NEW_TOKENS + 1

    def run():
        parameters = onnxruntime_genai.GeneratorParams(model)
        parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = onnxruntime_genai.Generator(model, parameters)

        def tokens():
            for _ in range(NEW_TOKENS + 1):
                generator.generate_next_token()
                yield generator.get_next_tokens()[0]

        start = time.perf_counter()
        generator.append_tokens(_prompt()[None].astype(np.int32))
        return _rates(start, tokens())

    return run


def _prompt():
    """Token ids without meaning: time does not depend on them."""
    return np.random.default_rng(0).integers(0, VOCABULARY, PROMPT)


def _rates(start, tokens):
    iterator = iter(tokens)
    next(iterator)
    first = time.perf_counter()
    count = sum(1 for _ in iterator)
    if count != NEW_TOKENS:
        raise SystemExit(f"{count + 1} tokens came, not {NEW_TOKENS + 1}")
    return {"prefill": PROMPT / (first - start), "decode": count / (time.perf_counter() - first)}


def encoder(file, sizes, vocabulary=VOCABULARY):
    """Latency in ms of one call at each (batch, length), the least of as many as fit in 0.2 s."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)

    def call(batch, length):
        ids = random.integers(0, vocabulary, (batch, length))
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        feeds["token_type_ids"] = np.zeros_like(ids)
        start = time.perf_counter()
        session.run(["last_hidden_state"], feeds)
        return time.perf_counter() - start

    def run():
        metrics = {}
        for batch, length in sizes:
            call(batch, length)
            times = [call(batch, length)]
            while sum(times) < 0.2:
                times.append(call(batch, length))
            metrics[f"({batch}, {length})"] = min(times) * 1e3
        return metrics

    return run


def export(source, path):
    """Seconds and memory of an fp32 export, without its verification.

    `peak` is the largest resident set while exporting, less that of the process before the model
    was loaded; `added` is less that of the process with the model. Both over the weights' bytes.
    """
    import keras_seqattn.models
    import keras_seqattn.onnx

    def run():
        before = _resident("VmRSS")
        start = time.perf_counter()
        model = keras_seqattn.models.load(source)
        loaded = time.perf_counter()
        with_model = _resident("VmRSS")
        _reset_peak()
        keras_seqattn.onnx.export(model, path, verify=False)
        seconds = time.perf_counter() - loaded
        weights = sum(np.prod(v.shape) * 4 for v in model.weights)
        peak = _resident("VmHWM")
        return {
            "load": loaded - start, "seconds": seconds, "weights": weights / 1e6,
            "peak": (peak - before) / weights, "added": (peak - with_model) / weights,
        }  # fmt: skip

    return run


def _resident(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def _reset_peak():
    """Linux: let VmHWM start again from the present size."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


KINDS = {
    "keras-seqattn": keras_seqattn_decoder,
    "threads": keras_seqattn_threads,
    "onnxruntime-genai": genai_decoder,
    "encoder": encoder,
    "export": export,
}


def main():
    """Make the contender, warm it up (an export has no second first time) and answer."""
    run = KINDS[sys.argv[1]](**json.loads(sys.argv[2]))
    warm = None if sys.argv[1] == "export" else run()
    print(json.dumps(warm), flush=True)
    for _ in sys.stdin:
        print(json.dumps({name: float(value) for name, value in run().items()}), flush=True)


if __name__ == "__main__":
    main()
