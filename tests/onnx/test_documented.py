"""The example of a lowering in CONTRIBUTING.md works."""

import re
from pathlib import Path

import keras
import pytest

from keras_seqattn.onnx import export

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.mark.backend_free
@pytest.mark.parametrize("body", [None, "return x * x * x"])
def test_a_lowering_of_a_layer_that_calls_its_backend(body, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    if body:
        code = re.sub(r"    three = .*", f"    {body}\n", code, flags=re.DOTALL)
    names = {}
    exec(code, names)
    x = keras.Input((None, 5))
    report = export(keras.Model(x, names["Cubed"]()(x)), tmp_path / "model.onnx")
    assert report.ok and len(report.cases) > 1
