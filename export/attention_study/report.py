"""The document: a text of ours, in which the program fills in its results between markers.

The results stand between the lines `<!-- NAME -->` and `<!-- end of NAME -->`. The program never
changes text outside the markers.
"""

import json
import pathlib
import re

from machine import table

from attention_study import choices, costs, engines, figures, fits, quality, streaming, tasks
from attention_study.mechanisms import MECHANISMS
from attention_study.settings import (
    COMPARED,
    FITTED,
    HEAD_DIM,
    HEADS,
    MEMORY_EXPONENT,
    MEMORY_SHARE,
    SPEEDUP,
    TIME_EXPONENT,
    WIDE_HEADS,
)

_TEMPLATE = pathlib.Path(__file__).with_name("document.md")
_FACTORS = {"seconds": 1e3, "bytes": 2.0**-20}


def write(results, chosen, document):
    """Fill the document, made from the template if absent, and write figures and results beside it.

    Args:
        results: Results.
        chosen: engines, in the order of the tables' columns.
        document: pathlib.Path of the .md file.

    Returns:
        dict name of the part -> Markdown.
    """
    folder = document.with_suffix("")
    captions = figures.draw_all(results, chosen, folder)
    (folder / "results.json").write_text(json.dumps(results.content, indent=1) + "\n", "utf-8")
    parts = {
        "machine": results.content["machine"].get("description", ""),
        "claims": _claims(results, chosen),
        "local": _local(results, chosen),
        "onnxruntime": _by_length(results, chosen[0]),
        "backends": _at_one_length(results, chosen, engines.FORWARD),
        "training": _at_one_length(results, chosen, engines.TRAINING),
        "streaming": _streaming(results),
        "quality": _quality(results),
        "choices": choices.table_of_choices(results, chosen[0]),
        "figures": "\n".join(
            f"![{text}]({folder.name}/{name}.png)" for name, text in captions.items()
        ),
    }
    text = (document if document.exists() else _TEMPLATE).read_text("utf-8")
    for name, content in parts.items():
        text = _filled(text, name, content)
    document.write_text(text, "utf-8")
    return parts


def _filled(text, name, content):
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if start not in text or end not in text:
        raise SystemExit(f"the document lacks the markers {start} and {end}")
    pattern = re.escape(start) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: f"{start}\n\n{content}\n\n{end}", text, flags=re.DOTALL)


def number(value):
    """A number with three digits, or "-" for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _claims(results, chosen):
    """Exponents of time and of memory, and whether they keep what is claimed."""
    low, high = FITTED
    parts = [
        f"Exponents of time / memory of a forward pass, from {low:,} to {high:,} tokens. PASS "
        f"means that the exponent of time is at most {TIME_EXPONENT} and that of memory at most "
        f"{MEMORY_EXPONENT}. A row without PASS or **over** makes no claim."
    ]
    for part, heads in ((engines.WIDE, WIDE_HEADS), (engines.FORWARD, HEADS)):
        found = {
            (c["mechanism"], c["engine"], c["quantity"]): c
            for c in fits.claims(results, chosen, part)
            if c["exponent"] is not None
        }
        kept = sum(claim["ok"] for claim in found.values())
        sizes = f"A layer with {heads} heads of size {HEAD_DIM}, width {heads * HEAD_DIM}"
        parts.append(f"{sizes}: {kept} of {len(found)} claims are true.")
        parts.append(_table_of_claims(results, chosen, part, found))
    return "\n\n".join(parts)


def _table_of_claims(results, chosen, part, found):
    rows = []
    for name, entry in MECHANISMS.items():
        row = []
        for engine in chosen:
            judged = [found.get((name, engine, quantity)) for quantity in fits.LIMITS]
            row.append(_exponents(results, name, engine, part) + _verdict(judged))
        if set(row) != {"-"}:
            rows.append([entry.title, *row])
    return table(["mechanism", *chosen], rows)


def _verdict(judged):
    if None in judged:
        return ""
    return " PASS" if all(claim["ok"] for claim in judged) else " **over**"


def _exponents(results, name, engine, part):
    curves = [fits.measured(results, name, engine, part, quantity) for quantity in fits.LIMITS]
    fitted = [fits.exponent(curve) for curve in curves]
    if None in fitted:
        return "-"
    longest = max(curves[0])
    shorter = (
        f" (to {longest:,})" if longest < min(FITTED[1], max(costs.lengths(results, part))) else ""
    )
    return " / ".join(f"{p:.2f}" for p in fitted) + shorter


def _local(results, chosen):
    rows = []
    for engine in chosen:
        found = fits.local_against_dense(results, engine)
        if found and engine in engines.TARGETS:
            verdict = "PASS" if found["ok"] else "**not reached**"
            rows.append([engine, f"{found['speedup']:.1f}", f"{found['memory']:.3f}", verdict])
    claim = (
        f"The claim: at {COMPARED:,} tokens, local attention is at least {SPEEDUP:.0f} times as "
        f"fast as full attention and takes at most {MEMORY_SHARE} of its memory."
    )
    header = ["engine", "times as fast", "share of the memory", "claim"]
    return claim + "\n\n" + table(header, rows) if rows else "Not measured."


def _by_length(results, engine):
    """Every length in one engine: time, then memory."""
    lengths = costs.lengths(results, engines.FORWARD)
    parts = []
    for quantity, title in (("seconds", "Milliseconds"), ("bytes", "MiB")):
        rows = [
            [
                entry.title,
                *(_cell(results, name, engine, engines.FORWARD, n, quantity) for n in lengths),
            ]
            for name, entry in MECHANISMS.items()
        ]
        header = ["tokens", *(f"{n:,}" for n in lengths)]
        parts.append(
            f"{title} of a forward pass in {engine}, by number of tokens:\n\n{table(header, rows)}"
        )
    return "\n\n".join(parts)


def _cell(results, name, engine, part, length, quantity):
    cell = costs.curve(results, name, engine, part).get(length, {})
    if "calls" in cell:
        return number(cell[quantity] * _FACTORS[quantity])
    if "failed" in cell:
        return "failed"
    return f"({cell['skipped']})" if "skipped" in cell else "-"


def _at_one_length(results, chosen, part):
    """Time and memory of each engine at the longest length of a training step, with exponents."""
    length = max(costs.lengths(results, engines.TRAINING))
    used = [e for e in chosen if part == engines.FORWARD or e in engines.BACKENDS]
    rows = []
    for name, entry in MECHANISMS.items():
        row = [entry.title]
        for engine in used:
            pair = [_cell(results, name, engine, part, length, quantity) for quantity in _FACTORS]
            row.append(pair[0] if pair[0] == pair[1] else f"{pair[0]} ms, {pair[1]} MiB")
            if part == engines.TRAINING:
                row.append(_exponents(results, name, engine, part))
        rows.append(row)
    header = ["mechanism"]
    for engine in used:
        header += [engine] if part == engines.FORWARD else [engine, "exponents"]
    return f"At {length:,} tokens:\n\n" + table(header, rows)


def _streaming(results):
    rows = []
    for kind, found in results.stage(streaming.STAGE).items():
        first, last = found["seconds"][0] * 1e3, found["seconds"][-1] * 1e3
        rows.append(
            [
                kind,
                f"{found['tokens']:,}",
                f"{first:.3f}",
                f"{last:.3f}",
                f"{found['bytes'][-1] / 2**20:.1f}",
                f"{found['equal']:,} of {found['compared']:,}",
            ]
        )
    header = ["cache", "tokens", "ms per token, first", "ms per token, last", "MiB more at the end"]
    return (
        table([*header, "tokens equal to those without a cache"], rows) if rows else "Not measured."
    )


def _quality(results):
    """Accuracy by task and difficulty."""
    settings, cells = results.content["settings"], results.stage(quality.STAGE)
    header, columns = ["mechanism"], []
    for task in settings["quality"]:
        found = quality.accuracies(results, task)
        difficulties = list(next(iter(found.values()), {}))
        unit = tasks.TASKS[task].name_of_difficulty
        header += [f"{tasks.TITLES[task]}: {x} {unit}" for x in difficulties]
        columns.append((task, difficulties))
    rows = []
    for name, entry in MECHANISMS.items():
        row = [entry.title]
        for task, difficulties in columns:
            cell = cells.get(quality.key(name, task), {})
            accuracy = cell.get("accuracy", {})
            missing = "failed" if "failed" in cell else "-"
            row += [f"{accuracy[x]:.3f}" if x in accuracy else missing for x in difficulties]
        if not entry.causal_cost:
            rows.append(row)
    return table(header, rows)
