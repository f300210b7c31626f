"""How costs grow: exponents, and what the study set out to show."""

import numpy as np

from attention_study import costs, engines
from attention_study.mechanisms import MECHANISMS
from attention_study.settings import (
    COMPARED,
    FITTED,
    MEMORY_EXPONENT,
    MEMORY_SHARE,
    SPEEDUP,
    TIME_EXPONENT,
)

LIMITS = {"seconds": TIME_EXPONENT, "bytes": MEMORY_EXPONENT}


def measured(results, name, engine, part, quantity):
    """dict length -> "seconds" or "bytes", of the cells that were measured."""
    curve = costs.curve(results, name, engine, part)
    return {length: cell[quantity] for length, cell in curve.items() if "calls" in cell}


def exponent(curve):
    """p of `c n^p`, by least squares of the logarithms, between the lengths of FITTED.

    Args:
        curve: dict length -> cost.

    Returns:
        float, or None with fewer than three lengths.
    """
    points = {n: y for n, y in curve.items() if FITTED[0] <= n <= FITTED[1] and y > 0}
    if len(points) < 3:
        return None
    slope, _ = np.polyfit(*(np.log(list(x)) for x in (points.keys(), points.values())), 1)
    return float(slope)


def claims(results, chosen, part):
    """What is claimed of forward passes, and whether it was found.

    Args:
        results: Results.
        chosen: engines.
        part: str, FORWARD or WIDE, for which layer.

    Returns:
        List of dicts of mechanism, engine, quantity, exponent, longest length measured, and ok.
    """
    found = []
    for name, entry in MECHANISMS.items():
        for engine in chosen if entry.linear else ():
            for quantity, limit in LIMITS.items():
                curve = measured(results, name, engine, part, quantity)
                fitted, longest = exponent(curve), max(curve, default=0)
                complete = fitted is not None and longest == FITTED[1]
                found.append(
                    {
                        "mechanism": name,
                        "engine": engine,
                        "quantity": quantity,
                        "exponent": fitted,
                        "longest": longest,
                        "ok": complete and fitted <= limit,
                    }
                )
    return found


def local_against_dense(results, engine):
    """Local attention beside dense at COMPARED tokens.

    Returns:
        dict of speedup, memory (a share), and ok; or None where one of them was not measured.
    """
    curves = {
        name: [measured(results, name, engine, engines.FORWARD, q) for q in LIMITS]
        for name in ("local", "dense")
    }
    if any(COMPARED not in curve for pair in curves.values() for curve in pair):
        return None
    (seconds, memory), (dense_seconds, dense_memory) = (
        [curve[COMPARED] for curve in curves[name]] for name in ("local", "dense")
    )
    speedup, share = dense_seconds / seconds, memory / dense_memory
    return {"speedup": speedup, "memory": share, "ok": speedup >= SPEEDUP and share <= MEMORY_SHARE}
