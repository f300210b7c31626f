"""A decoder with a window on a long text: time per token and memory, as its bundle is run.

A Mistral with random weights, exported twice: with a cache that rolls over the window, and with one
that grows. The bundles decode greedily in a process without Keras.
"""

import json
import subprocess
import time

from attention_study import engines

STAGE = "streaming"
_PROMPT = [1, 2, 3]


def measure(results, settings, work, deadline):
    """Measure what is missing.

    Args:
        results: Results.
        settings: Settings.
        work: pathlib.Path of a folder for the bundles.
        deadline: float, of time.monotonic(), after which nothing is begun.
    """
    wanted = settings.streaming["tokens"]
    wanted = {kind: n for kind, n in wanted.items() if kind not in results.stage(STAGE)}
    if not wanted or time.monotonic() > deadline:
        return
    request = {**settings.streaming, "tokens": wanted, "prompt": _PROMPT, "work": str(work)}
    request["threads"] = settings.threads
    _run("write", request, settings)
    for kind in wanted:
        found = _run("decode", {**request, "kind": kind}, settings)
        tokens = found.pop("first_tokens")
        checked = _run("check", {**request, "kind": kind, "decoded": tokens}, settings)
        results.add(STAGE, kind, {**found, **checked})
        print(f"{kind} cache: {found['tokens']} tokens, {checked}", flush=True)


def _run(verb, request, settings):
    done = subprocess.run(
        engines.command("streaming_worker", verb),
        env=engines.environment("torch", settings.threads),
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{verb} of the streaming model failed: {done.stderr[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])
