"""A process of its own that measures one mechanism in one engine; a JSON line for each cell.

Usage: python -m attention_study.cost_worker REQUEST, a JSON object as costs.py makes it.
"""

import json
import os
import pathlib
import statistics
import sys
import time


def main(request):
    from attention_study import memory

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: request["threads"]])
    memory.give_way()
    engine = make_engine(request)
    for part, lengths in request["parts"].items():
        cells = {int(length): cell for length, cell in request["known"][part].items()}
        for length in lengths:
            cells[length] = measured(engine, part, length, cells, request)
            print(json.dumps([part, length, cells[length]]), flush=True)


def make_engine(request):
    """The engine with the layer, or onnxruntime with the file of it."""
    from attention_study import engines

    if request["engine"] in engines.TARGETS:
        return engines.Onnxruntime(pathlib.Path(request["file"]), request["threads"])
    from attention_study import exported

    built = exported.model(
        request["mechanism"], request["num_heads"], request["size"], request["longest"]
    )
    return engines.ENGINES[request["engine"]](built)


def measured(engine, part, length, cells, request):
    """What a length costs: seconds, bytes, calls and the seconds of the first; or why not.

    Args:
        engine: as `make_engine` returns it.
        part: str, FORWARD, TRAINING or WIDE.
        length: int.
        cells: dict length -> cell, those known before.
        request: dict.

    Returns:
        dict.
    """
    from attention_study import limits

    limit = (request["longest_call"], request["most_bytes"])
    reason = limits.reason_to_skip(cells, length, *limit)
    if reason:
        cost = limits.expected(cells, length)
        return {"skipped": reason, **({} if cost is None else {"expected": cost})}
    try:
        return _measure(engine, part, length, request)
    except Exception as error:  # an engine's own errors share no base class
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}


def _measure(engine, part, length, request):
    from attention_study import engines
    from attention_study.settings import HEAD_DIM

    width = request["num_heads"] * HEAD_DIM
    call = engine.call(part, engines.random_inputs(length, width, request["masks"]))
    first = _seconds(call)
    extra = engine.extra_peak(call)
    seconds = []
    while len(seconds) < request["fewest_calls"] or sum(seconds) < request["cell_seconds"]:
        seconds.append(_seconds(call))
        if sum(seconds) > request["longest_call"]:
            break
    return {
        "seconds": statistics.median(seconds),
        "bytes": extra,
        "calls": len(seconds),
        "first": first,
    }


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
