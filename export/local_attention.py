"""Local attention beside dense attention and the fused operators in onnxruntime, as Markdown.

Usage: python export/local_attention.py [--lengths 4096 16384] [--rounds 5] [--output FILE.md]

Each graph attends from projected queries, keys and values (b, t, 3 h d) to what goes into the
output projection, with two heads of 64. Those of keras-seqattn are what it exports for target
"ort"; the fused operators of com.microsoft are graphs of one node. Each graph is measured at each
length in a process of its own, with two threads: the least time of all rounds, and the peak memory
beyond what is held before the call.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from attention_study import memory
from machine import description, table
from onnx import TensorProto, helper, numpy_helper

HEADS, SIZE = 2, 64
WIDTH = HEADS * SIZE
# Inclusive (left, right): 256 keys beside the query's own, and 256 with it.
BOTH, CAUSAL = (128, 128), (255, 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path(__file__).with_suffix(".md")
    )
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        file, length, rounds = arguments.measure
        print(json.dumps(measure(file, int(length), int(rounds))))
        return
    with tempfile.TemporaryDirectory() as folder:
        files = write_graphs(pathlib.Path(folder))
        check(files)
        sections = [
            _section(files, length, arguments.rounds) for length in sorted(arguments.lengths)
        ]
    head = f"{description(['onnxruntime'])}. {HEADS} heads of {SIZE}, batch 1, two threads."
    text = "\n\n".join(["# Local attention beside dense attention", head, *sections])
    arguments.output.write_text(text + "\n")
    print(arguments.output.read_text())


def write_graphs(folder):
    """Write every graph; dict of name -> file."""
    from keras_seqattn.ops import Attention, LocalAttention

    ours = {
        "local, 128 on each side": LocalAttention(*BOTH),
        "local, the last 256": LocalAttention(*CAUSAL),
        "dense": Attention(),
        "dense, causal": Attention(causal=True),
        "dense with the mask of a window": Attention(window=BOTH),
    }
    graphs = {f"keras-seqattn: {name}": _exported(operation) for name, operation in ours.items()}
    grouped = {"num_heads": HEADS, "kv_num_heads": HEADS}
    graphs |= {
        "MultiHeadAttention": _node("MultiHeadAttention", num_heads=HEADS),
        "GroupQueryAttention, causal": _node("GroupQueryAttention", **grouped),
        "GroupQueryAttention, the last 256": _node(
            "GroupQueryAttention", **grouped, local_window_size=CAUSAL[0] + 1
        ),
    }
    files = {name: folder / f"{number}.onnx" for number, name in enumerate(graphs)}
    for name, graph in graphs.items():
        files[name].write_bytes(graph)
    return files


def _exported(operation):
    import keras
    import onnx_ir as ir

    from keras_seqattn.onnx import build_graph

    inputs = {
        "input_ids": keras.Input((None, 3 * WIDTH), name="input_ids"),
        "attention_mask": keras.Input((None,), dtype="int32", name="attention_mask"),
    }
    thirds = keras.ops.split(inputs["input_ids"], 3, axis=-1)
    heads = [keras.layers.Reshape((-1, HEADS, SIZE))(x) for x in thirds]
    out = operation(*heads, inputs["attention_mask"])
    model = keras.Model(inputs, {"y": keras.layers.Reshape((-1, WIDTH))(out)})
    return ir.to_proto(build_graph(model, "ort")).SerializeToString()


def _node(op_type, **attributes):
    """One operator of com.microsoft; neither pads here, so that the fast kernels are taken."""
    split = helper.make_node("Split", ["input_ids", "thirds"], ["q", "k", "v"], axis=-1)
    inputs, outputs, lead = ["q", "k", "v"], ["y"], [split]
    if op_type == "GroupQueryAttention":
        # Its fast kernel is taken where the caches are wanted.
        inputs, outputs = [*inputs, "", "", "last", "total"], ["y", "key", "value"]
        lead += [
            helper.make_node("Shape", ["input_ids"], ["length"], start=1, end=2),
            helper.make_node("Cast", ["length"], ["lengths"], to=TensorProto.INT32),
            helper.make_node("Squeeze", ["lengths"], ["total"]),
            helper.make_node("Sub", ["lengths", "one"], ["last"]),
        ]
    node = helper.make_node(op_type, inputs, outputs, domain="com.microsoft", **attributes)
    constants = {"thirds": np.array([WIDTH] * 3), "one": np.array([1], np.int32)}
    graph = helper.make_graph(
        [*lead, node],
        op_type,
        [helper.make_tensor_value_info("input_ids", TensorProto.FLOAT, ["b", "t", 3 * WIDTH])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return model.SerializeToString()


def check(files, length=777):
    """Graphs of the same attention must agree."""
    x = _inputs(length)
    found = {name: _run(_session(file), x) for name, file in files.items()}
    for ours, other in (
        ("local, 128 on each side", "keras-seqattn: dense with the mask of a window"),
        ("local, the last 256", "GroupQueryAttention, the last 256"),
        ("dense", "MultiHeadAttention"),
        ("dense, causal", "GroupQueryAttention, causal"),
    ):
        np.testing.assert_allclose(found[f"keras-seqattn: {ours}"], found[other], atol=1e-4)


def measure(file, length, rounds):
    """The least milliseconds of a call, and the MiB that one needs, of a graph."""
    memory.give_back_freed()
    x, session, frugal = _inputs(length), _session(file), _session(file, arena=False)
    _run(frugal, _inputs(8))
    extra = memory.extra_peak(lambda: _run(frugal, x))
    memory.keep_freed()
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        _run(session, x)
        times.append(time.perf_counter() - start)
    return min(times) * 1e3, extra / 2**20


def _session(file, arena=True):
    from keras_seqattn.runtime.session import create_session

    return create_session(file, threads=2, spinning=False, arena=arena)


def _inputs(length):
    x = np.random.default_rng(0).standard_normal((1, length, 3 * WIDTH), dtype=np.float32)
    return {"input_ids": x, "attention_mask": np.ones((1, length), np.int64)}


def _run(session, inputs):
    return session.run(["y"], {i.name: inputs[i.name] for i in session.get_inputs()})[0]


def _section(files, length, rounds):
    found = {}
    for name, file in files.items():
        command = [sys.executable, __file__, "--measure", str(file), str(length), str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout)
    local = found[next(iter(files))]
    rows = [
        [name, f"{ms:.1f}", f"{mib:.0f}", f"{ms / local[0]:.1f}", f"{mib / local[1]:.1f}"]
        for name, (ms, mib) in found.items()
    ]
    header = ["graph", "ms", "extra MiB", "time, of the first", "memory, of the first"]
    return f"## {length:,} tokens\n\n" + table(header, rows)


if __name__ == "__main__":
    main()
