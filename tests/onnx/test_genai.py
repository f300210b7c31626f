"""Decoder bundles run in onnxruntime-genai as they are, and give our runtime's greedy tokens."""

import numpy as np
import pytest

from keras_seqattn import runtime
from keras_seqattn.onnx import export
from tests.onnx import tiny

genai = pytest.importorskip("onnxruntime_genai", reason="compares with onnxruntime-genai")

pytestmark = pytest.mark.backend_free


def genai_tokens(bundle, prompt, count):
    model = genai.Model(str(bundle))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(prompt) + count, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(prompt)
    tokens = []
    while not generator.is_done():
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return tokens


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("target", ["portable", "ort"])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3"])
def test_greedy_tokens(name, target, precision, tmp_path):
    export(tiny.decoder(name), tmp_path / "b", target=target, precision=precision, verify=False)
    prompt = np.array([5, 17, 61, 8, 90, 33, 2], np.int32)
    model = runtime.load(tmp_path / "b")
    ours = list(model.generate(prompt.tolist(), max_new_tokens=20, do_sample=False))
    theirs = genai_tokens(tmp_path / "b", prompt, 20)
    # Both stop at the end-of-sequence token, which only ours returns.
    assert theirs == ours[: len(theirs)] and len(theirs) > 6
    assert len(theirs) == 20 or ours[len(theirs) :] in ([], [96])
