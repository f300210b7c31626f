"""Time and memory of one layer by length, for every mechanism in every engine."""

import itertools
import json
import subprocess
import tempfile
import time

from attention_study import engines, exported, memory
from attention_study.mechanisms import MECHANISMS
from attention_study.settings import HEADS, WIDE_HEADS

STAGE = "costs"
_LENGTHS = {
    engines.FORWARD: "lengths",
    engines.TRAINING: "training_lengths",
    engines.WIDE: "wide_lengths",
}
# What one process measures is all of one layer.
_LAYERS = {HEADS: (engines.FORWARD, engines.TRAINING), WIDE_HEADS: (engines.WIDE,)}


def key(name, engine, part, length):
    """The name of a cell."""
    return f"{name} | {engine} | {part} | {length}"


def lengths(results, part):
    """The lengths at which a part is measured."""
    return results.content["settings"][_LENGTHS[part]]


def curve(results, name, engine, part):
    """dict length -> cell of what was measured or tried, by rising length."""
    cells = results.stage(STAGE)
    found = {n: cells.get(key(name, engine, part, n)) for n in lengths(results, part)}
    return {length: cell for length, cell in found.items() if cell is not None}


def measure(results, settings, names, chosen, work, deadline):
    """Measure what is missing; each layer and engine has a process of its own.

    Args:
        results: Results.
        settings: Settings.
        names: of MECHANISMS.
        chosen: engines, of BACKENDS and TARGETS, in the order in which they are measured.
        work: pathlib.Path of a folder for ONNX files.
        deadline: float, of time.monotonic(), after which no process is started.
    """
    most_bytes, exported_heads = int(settings.memory_share * memory.available()), set()
    for engine, num_heads, name in itertools.product(chosen, _LAYERS, names):
        request = _request(results, settings, name, num_heads, engine)
        if not any(request["parts"].values()):
            continue
        if time.monotonic() > deadline:
            print("The time is over; run it again to go on.", flush=True)
            return
        if engine in engines.TARGETS and num_heads not in exported_heads:
            _export(settings, num_heads, names, work)
            exported_heads.add(num_heads)
        file = work / exported.file_name(name, num_heads, engines.TARGETS.get(engine, ""))
        _run(results, {**request, "file": str(file), "most_bytes": most_bytes})


def _request(results, settings, name, num_heads, engine):
    """What the process has to do, and what is known already."""
    parts = [part for part in _LAYERS[num_heads] if _is_measured(name, engine, part)]
    known = {part: curve(results, name, engine, part) for part in parts}
    missing = {
        part: [n for n in lengths(results, part) if not _is_done(known[part].get(n, {}))]
        for part in parts
    }
    return {
        "mechanism": name,
        "num_heads": num_heads,
        "engine": engine,
        "parts": missing,
        "known": known,
        "masks": MECHANISMS[name].inputs,
        "size": settings.size,
        "longest": max(settings.lengths),
        "threads": settings.threads,
        "cell_seconds": settings.cell_seconds,
        "fewest_calls": settings.fewest_calls,
        "longest_call": settings.longest_call,
    }


def _is_done(cell):
    """Whether nothing more is to be found out; else a process ended between memory and time."""
    return bool({"calls", "failed", "skipped"} & set(cell))


def _is_measured(name, engine, part):
    """Only Keras trains; a wide layer is there for what is claimed, beside dense attention."""
    if part == engines.TRAINING:
        return engine in engines.BACKENDS
    claimed = MECHANISMS[name].linear or name == "dense"
    return part == engines.FORWARD or (claimed and engine != engines.PORTABLE)


def _export(settings, num_heads, names, work):
    sizes = (num_heads, settings.size, max(settings.lengths))
    command = engines.command("exported", work, *sizes, *names)
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
                missing = [pair for pair in missing if pair != (part, length)]
                cells += _is_done(cell)
        status = process.wait()
        errors.seek(0)
        messages = errors.read().strip().splitlines()
    if missing:
        # What ended the process is the first cell that did not come; a next run goes on after it.
        reason = messages[-1][:200] if messages and status > 0 else f"ended with status {status}"
        results.add(STAGE, key(name, engine, *missing[0]), {"failed": reason})
    layer = f"{name} of {request['num_heads']} heads"
    print(f"{layer}, {engine}: {cells} cells, {time.perf_counter() - start:.1f} s", flush=True)
