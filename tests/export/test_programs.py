"""The programs in export/ run; what they measure is not asserted."""

import json
import os
import pathlib
import subprocess
import sys

EXPORT = pathlib.Path(__file__).parents[2] / "export"
sys.path.insert(0, str(EXPORT))

import applications  # noqa: E402
import contenders  # noqa: E402
import interleaved  # noqa: E402
import machine  # noqa: E402
import seq2seq_bundles  # noqa: E402

from keras_seqattn.onnx import export  # noqa: E402
from tests.onnx import tiny  # noqa: E402


def test_parity_prints_a_row_for_every_target_and_precision(tmp_path):
    output = tmp_path / "parity.md"
    backend = os.environ["KERAS_BACKEND"]
    command = [sys.executable, EXPORT / "parity.py", "--tiny", "--backends", backend]
    command += ["--models", "bert-classifier", "--output", output]
    root = str(EXPORT.parent)
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in output.read_text().splitlines() if "bert-classifier" in line]
    assert [row.split(" | ")[1:3] for row in rows] == [
        [target, precision]
        for target in ("ort", "portable")
        for precision in ("fp32", "int8", "int4")
    ]
    assert not any("**" in row for row in rows)


def test_a_comparison_takes_turns_with_every_contender(tmp_path):
    export(tiny.encoder("bert"), tmp_path / "bert.onnx", verify=False)
    settings = {"file": str(tmp_path / "bert.onnx"), "sizes": [(1, 3), (2, 5)], "vocabulary": 97}
    names = {"first": ("encoder", settings), "second": ("encoder", settings)}
    results = interleaved.compare(names, rounds=2)
    assert set(results) == {"first", "second"}
    for metrics in results.values():
        assert {size: len(times) for size, times in metrics.items()} == {"(1, 3)": 2, "(2, 5)": 2}


def test_ratio_is_the_median_over_rounds():
    assert interleaved.ratio([1.0, 4.0, 30.0], [2.0, 2.0, 10.0]) == 2.0


def test_a_decoder_contender_counts_its_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(contenders, "PROMPT", 5)
    monkeypatch.setattr(contenders, "NEW_TOKENS", 3)
    monkeypatch.setattr(contenders, "VOCABULARY", 97)
    export(tiny.decoder("llama"), tmp_path / "llama", verify=False)
    rates = contenders.keras_seqattn_decoder(str(tmp_path / "llama"))()
    assert set(rates) == {"prefill", "decode"} and min(rates.values()) > 0


def test_bundles_for_other_runtimes_come_with_their_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(seq2seq_bundles, "MODELS", ("t5",))
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path), "--targets", "ort"])
    seq2seq_bundles.main()
    runs = json.loads((tmp_path / "expected.json").read_text())["t5-ort"]
    assert [len(run["tokens"]) for run in runs] == [1, 1, 3, 3, 3, 3]
    assert all(len(set(map(tuple, run["tokens"]))) > 1 for run in runs[2:])
    assert (tmp_path / "t5-ort" / "decoder_model_merged.onnx").exists()


def test_the_description_names_processor_and_versions():
    text = machine.description(["onnxruntime", "no-such-package"])
    assert "cores" in text and "onnxruntime 1." in text and "no-such-package (absent)" in text


def test_the_table_of_applications_has_a_row_for_each():
    row, error = applications.row("MobileNetV3Small", 32, top=False)
    assert row[0] == "MobileNetV3Small" and row[3] == 2, "the layouts of the input and the output"
    assert error < 1e-4  # of float32 sums in another order
