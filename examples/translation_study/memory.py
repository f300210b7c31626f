"""Peak memory of a training step by length, each measured in a process of its own.

The first step compiles. The peak of the process is then reset (Linux), and the second step's peak
counts, above what the process held before it: weights, optimizer state and compiled code are not in
the figure.
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def measure(family, folder, lengths):
    """MiB that a training step needs on top, for every length.

    Args:
        family: str.
        folder: pathlib.Path with settings.json.
        lengths: list of int.

    Returns:
        dict length -> MiB.
    """
    # Freed memory goes back to the system at once, so that the peak is of memory in use.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    found = {}
    for length in lengths:
        command = [sys.executable, __file__, family, str(folder / "settings.json"), str(length)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"memory of {family} at length {length}: {done.stderr[-2000:]}")
        found[str(length)] = float(done.stdout.split()[-1])
    return found


def _step_memory(family, settings, length):
    from translation_study.fitting import build, compile_model
    from translation_study.throughput import random_batch

    model = build(family, settings)
    compile_model(model, settings)
    batch = random_batch(settings.vocabulary_size, settings.memory_rows, length)
    model.train_on_batch(*batch)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    model.train_on_batch(*batch)
    return _status("VmHWM") - before


def _status(field):
    """MiB of a field of this process's status."""
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}: the memory is measured on Linux only")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from translation_study.settings import Settings

    name, path, text_length = sys.argv[1:]
    chosen = Settings(**json.loads(Path(path).read_text("utf-8")))
    print(_step_memory(name, chosen, int(text_length)))
