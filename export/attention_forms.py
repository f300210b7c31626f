"""The candidates for the attention of encoder-decoders' decoders, timed side by side as Markdown.

Usage: python export/attention_forms.py [--rounds 40] [--output export/attention_forms.md]

Cross-attention reads keys and values as a cache holds them; self-attention extends a cache that
grows by what the step brings. Each candidate is a graph of its own with everything that it needs to
get from a projected query (b, t, h*d) to the input of the output projection; the exporter emits the
first of each table.
"""

import argparse
import pathlib
import time

import numpy as np
import onnxruntime
from machine import description, table
from onnx import TensorProto, helper, numpy_helper

HEADS, SIZE = 8, 64
WIDTH = HEADS * SIZE
# (batch, new tokens, source length) and (batch, new tokens, past).
CROSS = [(1, 1, 32), (1, 1, 128), (1, 1, 512), (4, 1, 64), (4, 1, 256), (1, 16, 64), (8, 64, 64)]
SELF = [(1, 1, 16), (1, 1, 64), (1, 1, 256), (4, 1, 64), (8, 1, 32), (1, 16, 0), (8, 32, 0)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path(__file__).with_suffix(".md")
    )
    arguments = parser.parse_args()
    sections = [
        "# Attention in encoder-decoders",
        f"{description(['onnxruntime'])}. {HEADS} heads of {SIZE}, two threads; microseconds, the "
        "least of all rounds.",
        _section("Cross-attention to a cache (batch, new, source)", CROSS, cross, arguments.rounds),
        _section("Self-attention, growing (batch, new, past)", SELF, growing, arguments.rounds),
    ]
    arguments.output.write_text("\n\n".join(sections) + "\n")
    print(arguments.output.read_text())


def cross():
    """{name: session}"""
    lead = [
        helper.make_node("Reshape", ["q", "split"], ["q4"]),
        helper.make_node("Transpose", ["q4"], ["qt"], perm=[0, 2, 1, 3]),
    ]
    trail = [
        helper.make_node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["ot", "merge"], ["y"]),
    ]
    product = {"transB": 1, "alpha": SIZE**-0.5, "domain": "com.microsoft"}
    multi_head = {"num_heads": HEADS, "domain": "com.microsoft"}
    return {
        "Attention": _session(
            [*lead, helper.make_node("Attention", ["qt", "k", "v", "mask"], ["o"]), *trail]
        ),
        "MultiHeadAttention": _session(
            [
                helper.make_node(
                    "MultiHeadAttention", ["q", "k", "v", "", "keys"], ["y"], **multi_head
                )
            ]
        ),
        "MatMul, Softmax": _session(
            [
                *lead,
                helper.make_node("FusedMatMul", ["qt", "k"], ["scores"], **product),
                helper.make_node("Add", ["scores", "bias"], ["masked"]),
                helper.make_node("Softmax", ["masked"], ["p"], axis=-1),
                helper.make_node("MatMul", ["p", "v"], ["o"]),
                *trail,
            ]
        ),
    }


def growing():
    """{name: session}"""
    split = helper.make_node("Split", ["qkv", "thirds"], ["q", "nk", "nv"], axis=-1)
    outputs = ["y", "present_k", "present_v"]
    grouped = {"num_heads": HEADS, "kv_num_heads": HEADS, "domain": "com.microsoft"}
    standard = {"q_num_heads": HEADS, "kv_num_heads": HEADS, "is_causal": 1}
    multi_head = {"num_heads": HEADS, "unidirectional": 1, "domain": "com.microsoft"}
    standard_inputs = ["q", "nk", "nv", "", "k", "v"]
    multi_head_inputs = ["q", "nk", "nv", "", "", "", "k", "v"]
    grouped_inputs = ["qkv", "", "", "k", "v", "last", "total"]
    return {
        "Attention": _session(
            [split, helper.make_node("Attention", standard_inputs, outputs, **standard)]
        ),
        "GroupQueryAttention": _session(
            [helper.make_node("GroupQueryAttention", grouped_inputs, outputs, **grouped)]
        ),
        "MultiHeadAttention": _session(
            [
                split,
                helper.make_node("MultiHeadAttention", multi_head_inputs, outputs, **multi_head),
            ]
        ),
    }


_FLOAT, _INT32, _BOOL = TensorProto.FLOAT, TensorProto.INT32, TensorProto.BOOL
_TYPES = {
    "q": (_FLOAT, ["b", "t", WIDTH]), "qkv": (_FLOAT, ["b", "t", 3 * WIDTH]),
    "k": (_FLOAT, ["b", HEADS, "s", SIZE]), "v": (_FLOAT, ["b", HEADS, "s", SIZE]),
    "mask": (_BOOL, ["b", 1, "t", "s"]), "bias": (_FLOAT, ["b", 1, "t", "s"]),
    "keys": (_INT32, ["b", "s"]), "last": (_INT32, ["b"]), "total": (_INT32, []),
}  # fmt: skip
_CONSTANTS = {"split": [0, 0, HEADS, SIZE], "merge": [0, 0, WIDTH], "thirds": [WIDTH] * 3}


def _session(nodes):
    """The inputs of a graph are those names that no node makes."""
    made = {name for node in nodes for name in node.output}
    used = {name for node in nodes for name in node.input if name} - made
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(n, *_TYPES[n]) for n in sorted(used & set(_TYPES))],
        [helper.make_tensor_value_info(n, _FLOAT, None) for n in nodes[-1].output],
        [numpy_helper.from_array(np.array(_CONSTANTS[n]), n) for n in used & set(_CONSTANTS)],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 2, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def _section(title, sizes, make, rounds):
    sessions = make()
    rows = []
    for size in sizes:
        times = _times(sessions, _arrays(*size), rounds)
        rows.append([size, *(f"{times[name]:.0f}" for name in sessions)])
    return f"## {title}\n\n" + table(["size", *sessions], rows)


def _arrays(b, t, s):
    """Every input that a candidate may have; the last quarter of the last row is padding."""
    random = np.random.default_rng(0)
    keys = np.ones((b, s), np.int32)
    keys[-1, s - s // 4 :] = 0
    mask = np.broadcast_to(keys[:, None, None] != 0, (b, 1, t, s))
    floats = {name: [b, t, WIDTH] for name in ("q",)} | {"qkv": [b, t, 3 * WIDTH]}
    floats |= {name: [b, HEADS, s, SIZE] for name in ("k", "v")}
    return {
        **{name: random.standard_normal(n, dtype=np.float32) for name, n in floats.items()},
        "mask": np.ascontiguousarray(mask),
        "bias": np.where(mask, 0, -1e30).astype(np.float32),
        "keys": keys,
        "last": np.full(b, s + t - 1, np.int32),
        "total": np.array(s + t, np.int32),
    }


def _times(sessions, arrays, rounds):
    """The least microseconds of a call, the candidates in turns; they must agree."""
    feeds = {n: {i.name: arrays[i.name] for i in s.get_inputs()} for n, s in sessions.items()}
    results = [session.run(None, feeds[name])[0] for name, session in sessions.items()]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=1e-4)
    best = dict.fromkeys(sessions, np.inf)
    for _ in range(rounds):
        for name, session in sessions.items():
            start = time.perf_counter()
            for _ in range(5):
                session.run(None, feeds[name])
            best[name] = min(best[name], (time.perf_counter() - start) / 5 * 1e6)
    return best


if __name__ == "__main__":
    main()
