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


def compare(contenders, rounds, progress=None):
    """Run contenders in turns.

    Args:
        contenders: dict name -> (kind, settings) as contenders.py takes them.
        rounds: how often each has its turn; every other round goes backwards.
        progress: called with (done, total).

    Returns:
        dict name -> {metric: [value of each round]}.
    """
    processes = {name: _start(*contender) for name, contender in contenders.items()}
    results = {name: {} for name in contenders}
    try:
        for turn in range(rounds):
            order = list(contenders) if turn % 2 == 0 else list(contenders)[::-1]
            for name in order:
                for metric, value in _turn(processes[name]).items():
                    results[name].setdefault(metric, []).append(value)
            if progress is not None:
                progress(turn + 1, rounds)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return results


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
