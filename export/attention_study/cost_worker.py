"""A process of its own that measures one mechanism in one engine; JSON lines of cells.

First it measures the memory of every length, then the time, for which the process keeps what is
freed; of each length there are so two lines, and the second has all.

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
    memory.give_back_freed()
    engine, cells = make_engine(request), {}
    for part, lengths in request["parts"].items():
        cells[part] = {int(length): cell for length, cell in request["known"][part].items()}
        for length in lengths:
            cells[part][length] = weighed(engine, part, length, cells[part], request)
            print(json.dumps([part, length, cells[part][length]]), flush=True)
    memory.keep_freed()
    for part, lengths in request["parts"].items():
        for length in lengths:
            cell = cells[part][length]
            if "bytes" in cell:
                cell = {**cell, **timed(engine, part, length, request)}
                print(json.dumps([part, length, cell]), flush=True)


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


def weighed(engine, part, length, cells, request):
    """What a length needs: bytes, the seconds of the first call and of one more; or why not.

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
        call = _call(engine, part, length, request)
        first, seconds = _seconds(call), []
        extra = engine.extra_peak(lambda *session: _noted(lambda: call(*session), seconds))
        return {"bytes": extra, "first": first, "seconds": seconds[-1]}
    except Exception as error:  # an engine's own errors share no base class
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return {"failed": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}


def timed(engine, part, length, request):
    """The median of the seconds of a call, and how many there were; arguments as of `weighed`."""
    call, seconds = _call(engine, part, length, request), []
    call()
    while len(seconds) < request["fewest_calls"] or sum(seconds) < request["cell_seconds"]:
        seconds.append(_seconds(call))
        if sum(seconds) > request["longest_call"]:
            break
    return {"seconds": statistics.median(seconds), "calls": len(seconds)}


def _call(engine, part, length, request):
    from attention_study import engines
    from attention_study.settings import HEAD_DIM

    width = request["num_heads"] * HEAD_DIM
    return engine.call(part, engines.random_inputs(length, width, request["masks"]))


def _noted(call, seconds):
    start = time.perf_counter()
    result = call()
    seconds.append(time.perf_counter() - start)
    return result


def _seconds(call):
    seconds = []
    _noted(call, seconds)
    return seconds[-1]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
