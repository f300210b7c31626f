import json
import math

import pytest

from keras_seqattn.errors import CheckpointError
from keras_seqattn.json_objects import parse_object

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize(
    "value",
    [3, -1.5e300, "é😀\u2028", {"a": [None, True, {"b": "\0"}]}, 10**30, {"": [[]]}, math.inf],
)
def test_what_the_standard_has_is_read(value):
    for escaped in (True, False):
        text = json.dumps({"value": value}, ensure_ascii=escaped)
        assert parse_object(text.encode(), "x.json") == {"value": value}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[]", "must hold a JSON object, not list"),
        (b"NaN", "must hold a JSON object, not float"),
        (b"1e400", "1e400 is too large"),
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "'c' appears twice"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'{"a": ["x", "\\ud83d"]}', "surrogate"),
        (b"[" * 66 + b"]" * 66, "nested deeper than 64"),
        (b"[" * 10**5 + b"]" * 10**5, "nested deeper than 64"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "nested deeper than 64"),
        (b"1" * 5000, "4300 digits"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ("{}".encode("utf-16"), "utf-8"),
        (b'{"a": "\xff"}', "utf-8"),
        (b"{}x", "Extra data"),
        (b"", "Expecting value"),
    ],
)
def test_what_it_has_not_is_refused_with_the_reason(text, reason):
    with pytest.raises(CheckpointError, match=f"x.json .*{reason}") as caught:
        parse_object(text, "x.json", CheckpointError)
    assert len(str(caught.value)) < 300
