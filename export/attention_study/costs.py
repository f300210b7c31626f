"""Time and memory of one layer by length, for every mechanism in every engine."""

import json
import subprocess
import tempfile
import time

from attention_study import engines, exported, memory
from attention_study.mechanisms import MECHANISMS

STAGE = "costs"


def key(name, engine, part, length):
    """The name of a cell."""
    return f"{name} | {engine} | {part} | {length}"


def curve(results, name, engine, part):
    """dict length -> cell of what was measured or tried, by rising length."""
    cells = results.stage(STAGE)
    settings = results.content["settings"]
    lengths = sorted({*settings["lengths"], *settings["training_lengths"]})
    found = {length: cells.get(key(name, engine, part, length)) for length in lengths}
    return {length: cell for length, cell in found.items() if cell is not None}


def measure(results, settings, names, chosen, work, deadline):
    """Measure what is missing; each mechanism and engine has a process of its own.

    Args:
        results: Results.
        settings: Settings.
        names: of MECHANISMS.
        chosen: engines, of BACKENDS and TARGETS, in the order in which they are measured.
        work: pathlib.Path of a folder for ONNX files.
        deadline: float, of time.monotonic(), after which no process is started.
    """
    most_bytes = int(settings.memory_share * memory.available())
    if set(chosen) & set(engines.TARGETS):
        _export(settings, names, work)
    for engine in chosen:
        for name in names:
            request = _request(results, settings, name, engine)
            if not any(request["parts"].values()):
                continue
            if time.monotonic() > deadline:
                print("The time is over; run it again to go on.", flush=True)
                return
            file = work / exported.file_name(name, engines.TARGETS.get(engine, ""))
            _run(results, {**request, "file": str(file), "most_bytes": most_bytes})


def _request(results, settings, name, engine):
    """What the process has to do, and what is known already."""
    parts = {engines.FORWARD: list(settings.lengths)}
    if engine in engines.BACKENDS:
        parts[engines.TRAINING] = list(settings.training_lengths)
    known = {part: curve(results, name, engine, part) for part in parts}
    return {
        "mechanism": name,
        "engine": engine,
        "parts": {part: [n for n in parts[part] if n not in known[part]] for part in parts},
        "known": known,
        "masks": MECHANISMS[name].inputs,
        "size": settings.size,
        "longest": max(settings.lengths),
        "threads": settings.threads,
        "cell_seconds": settings.cell_seconds,
        "fewest_calls": settings.fewest_calls,
        "longest_call": settings.longest_call,
    }


def _export(settings, names, work):
    command = engines.command("exported", work, settings.size, max(settings.lengths), *names)
    work.mkdir(parents=True, exist_ok=True)
    subprocess.run(command, env=engines.environment("torch", settings.threads), check=True)


def _run(results, request):
    name, engine = request["mechanism"], request["engine"]
    start, cells = time.perf_counter(), 0
    command = engines.command("cost_worker", json.dumps(request))
    missing = [(part, length) for part, lengths in request["parts"].items() for length in lengths]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            env=engines.environment(engine, request["threads"]),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        for line in process.stdout:
            if line.startswith("["):
                part, length, cell = json.loads(line)
                results.add(STAGE, key(name, engine, part, length), cell)
                missing.remove((part, length))
                cells += 1
        status = process.wait()
        errors.seek(0)
        messages = errors.read().strip().splitlines()
    if missing:
        # What ended the process is the first cell that did not come; a next run goes on after it.
        reason = messages[-1][:200] if messages and status > 0 else f"ended with status {status}"
        results.add(STAGE, key(name, engine, *missing[0]), {"failed": reason})
    print(f"{name}, {engine}: {cells} cells, {time.perf_counter() - start:.1f} s", flush=True)
