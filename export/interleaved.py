"""Compares programs fairly on a machine that is not quiet: in turns, and by medians of ratios.

Each contender is a process of its own, because idle sessions of onnxruntime in one process spin and
slow each other. While one runs the others are stopped.
"""

import json
import pathlib
import signal
import statistics
import subprocess
import sys

_PROGRAM = pathlib.Path(__file__).with_name("contenders.py")


# How often all contenders are started anew: where a process's memory happens to lie is worth 3 %.
_STARTS = 3


def compare(contenders, rounds, progress=None):
    """Run contenders in turns.

    Args:
        contenders: dict name -> (kind, settings) as contenders.py takes them.
        rounds: how often each has its turn in all; every other round goes backwards.
        progress: called with (done, total).

    Returns:
        dict name -> {metric: [value of each round]}.
    """
    results = {name: {} for name in contenders}
    starts = min(_STARTS, rounds)
    for start in range(starts):
        turns = range(start, rounds, starts)
        for turn, metrics in zip(turns, _session(contenders, len(turns)), strict=True):
            for name, values in metrics.items():
                for metric, value in values.items():
                    results[name].setdefault(metric, []).append(value)
            if progress is not None:
                progress(turn + 1, rounds)
    return results


def _session(contenders, rounds):
    """Yield {name: metrics} of each round, with processes of their own."""
    processes = {name: _start(*contender) for name, contender in contenders.items()}
    try:
        for turn in range(rounds):
            order = list(contenders) if turn % 2 == 0 else list(contenders)[::-1]
            yield {name: _turn(processes[name]) for name in order}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def ratio(values, baseline):
    """The median over the rounds of value / baseline of the same round."""
    return statistics.median(v / b for v, b in zip(values, baseline, strict=True))


def _start(kind, settings):
    command = [sys.executable, str(_PROGRAM), kind, json.dumps(settings)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    _answer(process)
    process.send_signal(signal.SIGSTOP)
    return process


def _turn(process):
    process.send_signal(signal.SIGCONT)
    process.stdin.write("run\n")
    process.stdin.flush()
    metrics = _answer(process)
    process.send_signal(signal.SIGSTOP)
    return metrics


def _answer(process):
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{' '.join(process.args)} ended with status {process.wait()}")
    return json.loads(line)
