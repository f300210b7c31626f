"""The commands, run for real on tiny checkpoints: what they print, where, and how they fail."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from keras_seqattn import models, runtime
from keras_seqattn.backends import choose_backend
from keras_seqattn.cli import main
from keras_seqattn.files import digest
from tests.helpers import randomise

ROOT = Path(__file__).parents[1]
WORDS = (
    "<pad> <s> </s> [UNK] the a cat dog bird sat ran flew on under over mat tree hill and".split()
)
TEMPLATE = "{% for m in messages %}{{ m.role[0] }} {{ m.content }} {% endfor %}a"
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 64,
}


SEQ2SEQ_SIZES = {
    "vocab_size": len(WORDS),
    "d_model": 24,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 1,
    "num_heads": 3,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
}
TASKS = {
    "summarization": {"prefix": "the and ", "num_beams": 3, "max_length": 9},
    "translation_en_to_de": {"prefix": "over ", "no_repeat_ngram_size": 2, "max_length": 8},
    "translation_en_to_fr": {"prefix": "under ", "no_repeat_ngram_size": 2, "max_length": 8},
}


def write_checkpoint(folder, family, **config):
    model = randomise(models.build(family, **{**SIZES, **config}), seed=3)
    return write_model(folder, model)


def write_seq2seq(folder):
    model = randomise(models.build("t5", **SEQ2SEQ_SIZES), seed=3)
    model.config["task_specific_params"] = TASKS
    return write_model(folder, model)


def write_model(folder, model):
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    settings = {"pad_token": "<pad>", "chat_template": TEMPLATE}
    model.assets = {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
    }
    models.save(model, folder)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    decoder = {"intermediate_size": 40, "num_key_value_heads": 1, "tie_word_embeddings": True}
    return {
        "decoder": write_checkpoint(folder / "llama", "llama", **decoder),
        "encoder": write_checkpoint(folder / "bert", "bert", intermediate_size=40),
        "seq2seq": write_seq2seq(folder / "t5"),
    }


@pytest.fixture(scope="module")
def bundles(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    for name, source in checkpoints.items():
        assert main(["export", source, str(folder / name), "--quiet"]) == 0
    return {name: str(folder / name) for name in checkpoints}


def fails(arguments, capsys, *parts):
    """Assert exit code 1 and one line that starts with `error:` and holds the parts."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert out == "" and len(lines) == 1 and err.rstrip().endswith(lines[0])
    for part in parts:
        assert part in lines[0]


def command(*arguments, blocked=(), **options):
    """Start the program as a process of its own, with modules made unimportable."""
    # A background job of a shell ignores interrupts, and would hand that on.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"sys.modules.update(dict.fromkeys({list(blocked)!r})); "
        "from keras_seqattn.cli import main; sys.exit(main())"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], **{**pipes, **options})


def test_export_tells_of_its_proof_on_stderr(checkpoints, tmp_path, capsys):
    arguments = ["export", checkpoints["encoder"], str(tmp_path / "out"), "--target", "portable"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out == "" and "onnxruntime agrees with Keras in" in err
    metadata = runtime.load(tmp_path / "out").metadata
    assert metadata["keras_seqattn.target"] == "portable"


def test_export_is_silent_if_asked(checkpoints, tmp_path, capsys):
    arguments = [
        "export",
        checkpoints["encoder"],
        str(tmp_path / "m.onnx"),
        "--quiet",
        "--no-verify",
    ]
    assert main(arguments) == 0
    assert capsys.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_export_writes_the_task_asked_for(checkpoints, tmp_path, capsys):
    arguments = ["export", checkpoints["encoder"], str(tmp_path / "out"), "--task", "masked_lm"]
    assert main(arguments) == 0
    assert "warning: " in capsys.readouterr().err  # the head is new
    assert runtime.load(tmp_path / "out").task == "masked_lm"


LAYERS = """
import keras

@keras.saving.register_keras_serializable("mine")
class Twice(keras.layers.Layer):
    def call(self, x):
        return x * 2.0
"""


def test_a_keras_model_with_layers_of_its_own(tmp_path, capsys):
    code, source, file = (tmp_path / name for name in ("own.py", "model.keras", "model.onnx"))
    code.write_text(LAYERS)
    script = (
        "import keras, runpy; x = keras.Input((5,)); "
        f"made = runpy.run_path({str(code)!r})['Twice']; "
        f"keras.Sequential([x, made(), keras.layers.Dense(3)]).save({str(source)!r})"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    fails(["export", str(source), str(file)], capsys, "cannot load", "--import")
    fails(["export", str(source), str(file), "--import", "nowhere"], capsys, "cannot import")
    fails(["export", str(source), str(file), "--task", "x"], capsys, "no tasks")
    fails(["export", str(tmp_path / "none.keras"), str(file)], capsys, "no file")
    assert main(["export", str(source), str(file), "--import", str(code)]) == 0
    assert "agrees with Keras in 2 comparisons" in capsys.readouterr().err
    assert main(["verify", str(file), "--against", str(source), "--import", str(code)]) == 0


def test_verify(bundles, checkpoints, capsys):
    for name in ("decoder", "seq2seq"):
        assert main(["verify", bundles[name]]) == 0
        against = ["--against", checkpoints[name], "--lengths", "1", "19"]
        assert main(["verify", bundles[name], *against]) == 0
        assert "agrees with" in capsys.readouterr().out


def test_verify_against_a_file_of_keras(bundles, checkpoints, tmp_path, capsys):
    """The bundle has a task, and the file has none of its own to ask for."""
    models.load(checkpoints["decoder"]).save(tmp_path / "model.keras")
    against = ["--against", str(tmp_path / "model.keras"), "--lengths", "7"]
    assert main(["verify", bundles["decoder"], *against]) == 0
    assert "agrees with" in capsys.readouterr().out


def test_lengths_need_something_to_compare_with(bundles, capsys):
    fails(["verify", bundles["encoder"], "--lengths", "9"], capsys, "--against")


def test_verify_fails_against_other_weights(bundles, tmp_path, capsys):
    other = randomise(
        models.load(write_checkpoint(tmp_path / "other", "bert", intermediate_size=40)), 4
    )
    models.save(other, tmp_path / "changed")
    assert main(["verify", bundles["encoder"], "--against", str(tmp_path / "changed")]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_verify_notices_a_changed_file(bundles, tmp_path, capsys):
    source = Path(bundles["encoder"])
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 99}))
    fails(["verify", tmp_path], capsys, "config.json")


def test_generate(bundles, capsys):
    model = runtime.load(bundles["decoder"])
    arguments = ["generate", bundles["decoder"], "the cat sat", "--max-new-tokens", "7"]
    assert main(arguments) == 0
    expected = model.generate("the cat sat", max_new_tokens=7)
    assert expected and capsys.readouterr().out == expected + "\n"
    assert main([*arguments, "--num-beams", "3"]) == 0
    expected = model.generate("the cat sat", max_new_tokens=7, num_beams=3)
    assert capsys.readouterr().out == expected + "\n"
    assert (
        main([*arguments, "--do-sample", "--top-k", "5", "--temperature", "2", "--seed", "1"]) == 0
    )
    settings = {"do_sample": True, "top_k": 5, "temperature": 2.0, "seed": 1}
    expected = model.generate("the cat sat", max_new_tokens=7, **settings)
    assert capsys.readouterr().out == expected + "\n"


def test_generate_with_beams_of_the_bundle(bundles, tmp_path, capsys):
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in Path(bundles["seq2seq"]).iterdir():
        if path.name != "parity.json":
            (folder / path.name).write_bytes(path.read_bytes())
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= {"num_beams": 4, "max_new_tokens": 9}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    assert main(["generate", str(folder), "the cat sat"]) == 0
    expected = runtime.load(bundles["seq2seq"]).generate(
        "the cat sat", num_beams=4, max_new_tokens=9
    )
    assert expected and capsys.readouterr().out == expected + "\n"


def test_translate_and_summarize(bundles, capsys, monkeypatch):
    bundle = bundles["seq2seq"]
    model, texts = runtime.load(bundle), ["the cat sat on the mat", "a dog"]
    assert main(["translate", bundle, *texts, "--target", "fr", "--num-beams", "2"]) == 0
    expected = model.translate(texts, target="fr", num_beams=2)
    assert expected[0] != expected[1]
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in expected)
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat sat on the mat\n\na dog\n"))
    assert main(["translate", bundle, "-", "--target", "fr", "--num-beams", "2"]) == 0
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in expected)
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat sat\non the mat\n"))
    assert main(["summarize", bundle, "-", "--length-penalty", "2"]) == 0
    expected = model.summarize("the cat sat on the mat", length_penalty=2.0)
    assert expected and capsys.readouterr().out == expected + "\n"


def test_chat_answers_lines_and_remembers(bundles, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n\nand a dog\n"))
    assert main(["chat", bundles["decoder"], "--system", "a bird", "--max-new-tokens", "5"]) == 0
    model, expected = runtime.load(bundles["decoder"]), []
    messages = [{"role": "system", "content": "a bird"}]
    for line in ("the cat", "and a dog"):
        messages.append({"role": "user", "content": line})
        expected.append(model.chat(messages, max_new_tokens=5))
        messages.append({"role": "assistant", "content": expected[-1]})
    assert capsys.readouterr().out == "".join(f"{text}\n" for text in expected)


def test_embed_as_json_and_npy(bundles, tmp_path, capsys):
    texts = ["the cat sat on the mat", "a bird"]
    expected = runtime.load(bundles["encoder"]).embed(texts)
    assert main(["embed", bundles["encoder"], *texts]) == 0
    np.testing.assert_array_equal(np.float32(json.loads(capsys.readouterr().out)), expected)
    file = tmp_path / "vectors.npy"
    assert main(["embed", bundles["encoder"], *texts, "--output", str(file)]) == 0
    assert capsys.readouterr().out == ""
    np.testing.assert_array_equal(np.load(file), expected)


def test_inspect(bundles, capsys):
    assert main(["inspect", bundles["decoder"]]) == 0
    out = capsys.readouterr().out
    assert "keras_seqattn.task: causal_lm" in out
    assert "input_ids  int64 (batch_size, sequence_length)" in out
    assert "layers_*/feed_forward/down/kernel  float (40, 24) x 2" in out


def test_bad_input_is_one_line(bundles, checkpoints, tmp_path, capsys):
    encoder, decoder, source = bundles["encoder"], bundles["decoder"], checkpoints["encoder"]
    fails(["export", tmp_path / "none", tmp_path / "out"], capsys, str(tmp_path / "none"))
    fails(["export", ROOT / "LICENSE", tmp_path / "out"], capsys, "LICENSE")
    fails(["export", source, tmp_path / "out", "--task", "poetry"], capsys, "poetry")
    fails(["export", source, tmp_path / "out", "--precision", "int3"], capsys, "int3", "int4")
    fails(
        ["export", source, tmp_path / "out", "--target", "toaster"], capsys, "toaster", "portable"
    )
    fails(["export", source, tmp_path / "out", "--route", "scenic"], capsys, "scenic", "trace")
    fails(["export", source, ROOT / "tests"], capsys, "tests")
    fails(["verify", encoder, "--against", checkpoints["decoder"]], capsys)
    fails(["generate", tmp_path / "none", "the"], capsys, str(tmp_path / "none"))
    fails(["generate", encoder, "the"], capsys, "causal_lm")
    fails(["generate", decoder, "the", "--temperature", "2"], capsys, "do_sample")
    fails(["generate", decoder, "the", "--max-new-tokens", "640"], capsys, "context")
    fails(["generate", decoder, ""], capsys, "empty")
    fails(["embed", decoder, "the"], capsys, "embedding")
    fails(["translate", decoder, "the"], capsys, "seq2seq_lm")
    fails(["translate", bundles["seq2seq"], "the"], capsys, "source", "en to de, en to fr")
    fails(["summarize", bundles["seq2seq"], "the", "--num-beams", "0"], capsys, "num_beams=0")
    fails(["export", checkpoints["seq2seq"], tmp_path / "out.onnx"], capsys, "name a folder")
    fails(["embed", encoder, "the", "--output", "vectors.txt"], capsys, ".npy")
    fails(["embed", encoder, "the", "--output", tmp_path / "no" / "v.npy"], capsys, "v.npy")
    fails(["inspect", tmp_path], capsys, "model.onnx")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments", [[], ["sing"], ["embed", "x"], ["export", "x", "y", "--loud"]]
)
def test_wrong_usage_exits_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("error: ") and "keras-seqattn" in err


def test_bundles_need_no_keras(bundles):
    blocked = ["keras", "tensorflow", "torch", "jax"]
    for arguments in (
        ["embed", bundles["encoder"], "the cat"],
        ["generate", bundles["decoder"], "the cat", "--max-new-tokens", "2"],
        ["summarize", bundles["seq2seq"], "the cat", "--max-new-tokens", "2"],
        ["inspect", bundles["encoder"]],
        ["verify", bundles["encoder"]],
    ):
        process = command(*arguments, blocked=blocked)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and out, err


def test_interrupted_chat_ends_in_one_line(bundles):
    process = command("chat", bundles["decoder"], "--max-new-tokens", "3", stdin=subprocess.PIPE)
    process.stdin.write("the cat\n")
    process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    # Only then may its standard input end, which would be another way out.
    assert process.wait(timeout=60) == 1
    assert process.communicate()[1] == "error: interrupted\n"


def test_a_reader_that_leaves_is_no_error(bundles):
    reader, writer = os.pipe()
    os.close(reader)
    process = command("inspect", bundles["decoder"], stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and err == ""


def test_the_backend_is_chosen_among_those_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "")
    for configured, expected in ((None, "tensorflow"), ("jax", "jax"), ("abacus", "tensorflow")):
        if configured:
            (tmp_path / "keras.json").write_text(json.dumps({"backend": configured}))
        monkeypatch.setenv("KERAS_BACKEND", "")
        choose_backend()
        assert os.environ["KERAS_BACKEND"] == expected
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    choose_backend()
    assert os.environ["KERAS_BACKEND"] == "torch"


def test_without_a_backend_there_is_one_line(tmp_path):
    code = "from keras_seqattn.cli import main; import sys; sys.exit(main(['quickstart']))"
    environment = {"KERAS_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    options = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-S", "-c", code], check=False, **options)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Keras has no backend here: pip install tensorflow")


def test_vectors_are_written_whole_or_not_at_all(bundles, tmp_path, capsys):
    output = tmp_path / "vectors.npy"
    output.write_text("old")
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "gone.npy").symlink_to("nowhere")
    for name, part in (("folder.npy", "is a folder"), ("gone.npy", "leads nowhere")):
        fails(["embed", bundles["encoder"], "the", "--output", tmp_path / name], capsys, part)
    fails(["embed", bundles["encoder"], "the", "--output", "a\nb.npy"], capsys, "line break")
    assert main(["embed", bundles["encoder"], "the", "--output", str(output)]) == 0
    assert np.load(output).ndim == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "folder.npy",
        "gone.npy",
        "vectors.npy",
    ]


def test_verify_uses_each_file_of_a_bundle(bundles, tmp_path, capsys):
    folder = Path(shutil.copytree(bundles["decoder"], tmp_path / "bundle"))
    assert main(["verify", str(folder)]) == 0
    assert "each can be used" in capsys.readouterr().out
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({"chat_template": "{{ 1 / 0 }}"}))
    listing = json.loads((folder / "parity.json").read_bytes())
    listing["files"][file.name] = {"sha256": digest(file), "size": file.stat().st_size}
    (folder / "parity.json").write_text(json.dumps(listing))
    fails(["verify", folder], capsys, "chat_template", "division by zero")
