"""The runtime generates and embeds where nothing but NumPy, onnxruntime and tokenizers exists."""

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import TEXTS

pytestmark = pytest.mark.backend_free

ROOT = Path(__file__).parents[2]
BLOCK = """
import sys
blocked = ("keras", "tensorflow", "jax", "torch", "onnx", "onnx_ir", "transformers", "safetensors")
sys.modules.update(dict.fromkeys(blocked))
"""


def run(code, *arguments):
    command = [sys.executable, "-c", BLOCK + code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_block_works():
    with pytest.raises(AssertionError, match="import of keras halted"):
        run("import keras")


def test_import():
    run("import keras_seqattn; keras_seqattn.runtime, keras_seqattn.generation")
    run("from keras_seqattn import generate, __version__")


def test_generate_and_chat(decoder, decoder_bundle):
    code = """
from keras_seqattn import runtime
model = runtime.load(sys.argv[1], threads=1, check=True)
print(model.generate([7, 8, 9], max_new_tokens=5, num_beams=2), model.chat("the", max_new_tokens=5))
"""
    wanted = decoder.generate([7, 8, 9], max_new_tokens=5, num_beams=2)
    assert run(code, decoder_bundle) == f"{wanted} {decoder.chat('the', max_new_tokens=5)}\n"


def test_translate_and_summarize(seq2seq, seq2seq_bundle):
    code = """
from keras_seqattn import runtime
model = runtime.load(sys.argv[1], threads=1, check=True)
texts = sys.argv[2:]
print(model.translate(texts, target="de"), model.summarize(texts), list(model.stream(texts[0])))
"""
    texts = TEXTS[:2]
    wanted = seq2seq.translate(texts, target="de"), seq2seq.summarize(texts)
    got = run(code, seq2seq_bundle, *texts)
    assert got == f"{wanted[0]} {wanted[1]} {list(seq2seq.stream(texts[0]))}\n"


def test_embed(embedder):
    code = """
from keras_seqattn import runtime
print(float(abs(runtime.load(sys.argv[1], threads=1).embed(sys.argv[2])).sum()))
"""
    model = embedder[0]
    assert float(run(code, model.bundle.path, TEXTS[0])) == float(abs(model.embed(TEXTS[0])).sum())


def test_chat_says_what_is_missing_without_jinja(decoder_bundle):
    code = """
sys.modules["jinja2"] = None
from keras_seqattn import errors, runtime
model = runtime.load(sys.argv[1], threads=1)
model.generate([7], max_new_tokens=1)
try:
    model.chat("the")
except errors.BundleError as error:
    print(error)
"""
    assert run(code, decoder_bundle) == "chat templates need jinja2: pip install jinja2\n"
