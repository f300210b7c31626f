"""The study of costs in its short form; what it measures is not asserted."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

EXPORT = pathlib.Path(__file__).parents[2] / "export"
sys.path.insert(0, str(EXPORT))

from attention_study import fits, limits  # noqa: E402

pytestmark = pytest.mark.backend_free


def study(folder, *arguments):
    command = [sys.executable, EXPORT / "attention_costs.py", "--short", "--output", folder]
    command += ["--document", folder / "costs.md", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(EXPORT.parent)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_short_form_goes_on_where_it_stopped(tmp_path):
    stages = ("--stages", "costs", "report", "--engines", "onnxruntime", "torch")
    stages += ("--mechanisms", "dense", "linear")
    first = study(tmp_path, *stages, "--minutes", "0")
    assert first.returncode == 0 and "run it again" in first.stdout, first.stderr[-2000:]
    second = study(tmp_path, *stages)
    assert second.returncode == 0, second.stderr[-2000:]
    cells = json.loads((tmp_path / "results.json").read_text())["cells"]["costs"]
    assert len(cells) == 2 * (3 + 2 + 3 + 1 + 2)
    assert all(cell["seconds"] > 0 for cell in cells.values()), cells
    # The scores of dense attention alone are 512 KiB at 256 tokens.
    assert cells["dense | onnxruntime | forward | 256"]["bytes"] > 1 << 19
    text = (tmp_path / "costs.md").read_text()
    changed = text.replace("What is measured", "What we measure")
    (tmp_path / "costs.md").write_text(changed)
    third = study(tmp_path, *stages)
    assert "cells" not in third.stdout and third.returncode == 0, third.stderr[-2000:]
    assert (tmp_path / "costs.md").read_text() == changed
    assert {"onnxruntime_forward.png", "torch_training.png"} <= {
        path.name for path in (tmp_path / "costs").iterdir()
    }


@pytest.mark.slow
def test_models_learn_and_decode(tmp_path):
    done = study(tmp_path, "--stages", "quality", "streaming", "--mechanisms", "linear")
    assert done.returncode == 0, done.stderr[-2000:]
    cells = json.loads((tmp_path / "results.json").read_text())["cells"]
    assert set(cells["quality"]["linear | recall"]["accuracy"]) == {"2", "4"}
    rolling = cells["streaming"]["rolling"]
    assert rolling["tokens"] == 96 and rolling["equal"] == rolling["compared"] == 64


def test_memory_of_a_call():
    # In a process of its own, whose memory has holes from what was freed before.
    done = subprocess.run(
        [sys.executable, "-c", _HOLES],
        env={**os.environ, "PYTHONPATH": str(EXPORT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 33 <= float(done.stdout) < 34, done.stdout


# 24 and 8 MiB, then 8 and 25: together 33, and more if the first 24 are still there.
_HOLES = """
import numpy as np
from attention_study import memory

memory.give_back_freed()


def ones(mebibytes):
    return np.ones(mebibytes << 20, np.int8)


ones(30)
before = [ones(size) for size in (24, 24, 24, 2)]
del before[:3]


def call():
    first, second = ones(24), ones(8)
    del first
    return second, ones(25)


print(memory.extra_peak(call) / 2**20)
"""


def test_exponents_are_those_of_the_curve():
    curve = {2**k: 3.0 * 2 ** (1.5 * k) for k in range(8, 17)}
    assert abs(fits.exponent(curve) - 1.5) < 1e-9
    assert fits.exponent({4096: 1.0, 8192: 2.0}) is None


def test_what_would_not_fit_is_not_tried():
    cells = {n: {"seconds": n / 1e6, "bytes": float(n * n)} for n in (1024, 2048)}
    assert limits.expected(cells, 4096) == {"seconds": 4096 / 1e6, "bytes": 4096.0**2}
    assert limits.reason_to_skip(cells, 4096, 1.0, 1 << 30) is None
    assert "GiB" in limits.reason_to_skip(cells, 4096, 1.0, 1 << 20)
    cells[4096] = {"skipped": "", "expected": limits.expected(cells, 4096)}
    assert "GiB" in limits.reason_to_skip(cells, 8192, 1.0, 1 << 20)
    cells[4096] = {"failed": "RuntimeError"}
    assert "fails" in limits.reason_to_skip(cells, 8192, 1.0, 1 << 30)
