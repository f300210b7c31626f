"""Prints what does not match: `python -m tests.onnx.cases [NAME ...]`."""

import collections
import sys

from tests.onnx.cases import tables
from tests.onnx.cases.running import outcomes


def main():
    wanted = set(sys.argv[1:])
    counts = collections.Counter()
    for name, cases in (tables.op_cases() | tables.layer_cases()).items():
        if wanted and name not in wanted:
            continue
        for key, outcome in outcomes(cases).items():
            counts[outcome.state] += 1
            if outcome.state != "ok":
                print(f"{outcome.state:12} {key}: {outcome.error} {outcome.text}", flush=True)
    print(dict(counts))


main()
