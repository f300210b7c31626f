"""The same small model with every mechanism: what it learns of each task in as many steps.

Each model is trained on one core, and as many at a time as there are cores.
"""

import concurrent.futures
import json
import os
import queue
import subprocess
import time

from attention_study import engines
from attention_study.mechanisms import BIDIRECTIONAL, MECHANISMS

STAGE = "quality"
# What a copying model must not see are the next symbols themselves.
_SHOWS_ANSWERS = ("copying",)


def key(name, task):
    """The name of a cell."""
    return f"{name} | {task}"


def applies(name, task):
    """Whether a mechanism is trained on a task; one that is there for its costs only is not."""
    if MECHANISMS[name].causal_cost:
        return False
    return not (task in _SHOWS_ANSWERS and MECHANISMS[name].direction == BIDIRECTIONAL)


def accuracies(results, task):
    """dict mechanism -> difficulty -> accuracy, of what was trained on a task."""
    cells = {name: results.stage(STAGE).get(key(name, task), {}) for name in MECHANISMS}
    return {name: cell["accuracy"] for name, cell in cells.items() if "accuracy" in cell}


def measure(results, settings, names, deadline):
    """Train and test what is missing.

    Args:
        results: Results.
        settings: Settings.
        names: of MECHANISMS.
        deadline: float, of time.monotonic(), after which no model is begun.
    """
    wanted = [(name, task) for task in settings.quality for name in names if applies(name, task)]
    known = results.stage(STAGE)
    wanted = [pair for pair in wanted if key(*pair) not in known]
    cores = queue.SimpleQueue()
    for core in sorted(os.sched_getaffinity(0))[: settings.threads]:
        cores.put(core)

    def run(pair):
        if time.monotonic() > deadline:
            return None
        core = cores.get()
        try:
            return _run(*pair, settings, core)
        finally:
            cores.put(core)

    with concurrent.futures.ThreadPoolExecutor(settings.threads) as pool:
        jobs = {pool.submit(run, pair): pair for pair in wanted}
        for job in concurrent.futures.as_completed(jobs):
            if job.result() is not None:
                results.add(STAGE, key(*jobs[job]), job.result())
                print(f"{', '.join(jobs[job])}: {job.result()}", flush=True)


def _run(name, task, settings, core):
    request = {
        "mechanism": name,
        "task": task,
        "settings": settings.quality[task],
        "steps": settings.quality_steps[task],
        "size": settings.quality_size,
        "width": settings.width,
        "num_heads": settings.num_heads,
        "num_layers": settings.num_layers,
        "learning_rate": settings.learning_rate,
        "warmup": settings.warmup,
        "cores": [core],
        "seed": 1,
    }
    done = subprocess.run(
        engines.command("quality_worker", json.dumps(request)),
        env=engines.environment("jax", 1),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        messages = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
        return {"failed": messages[-1][:200]}
    return json.loads(lines[-1])
