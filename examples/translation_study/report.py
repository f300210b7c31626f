"""The document: our text around the tables and figures of a run."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path

import jinja2

from translation_study import figures
from translation_study.settings import FAMILIES, TITLES

NAME = "seq2seq_vs_transformer"
_TEMPLATE = "document.md"
_STATES = ("untrained", "trained")
_PACKAGES = ("keras", "jax", "onnxruntime", "sacrebleu")


def write(results, settings, folder):
    """Write NAME.md, and beside it the folder NAME with the figures and results.json.

    Args:
        results: dict of everything that was measured, by stage.
        settings: dict, the settings of the run.
        folder: pathlib.Path.

    Returns:
        pathlib.Path of the document.
    """
    parts = folder / NAME
    parts.mkdir(parents=True, exist_ok=True)
    figures.draw_all(results, parts)
    content = {"settings": settings, "machine": machine(), "results": _without_texts(results)}
    (parts / "results.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"number": number, "cell": lambda text: text.replace("|", "\\|")}
    text = environment.get_template(_TEMPLATE).render(
        name=NAME,
        families=FAMILIES,
        titles=TITLES,
        table=table,
        curve_table=curve_table,
        sharpest=figures.sharpest,
        rows=_rows(results),
        first={state: figures.first_norms(results["gradients"], state) for state in _STATES},
        length_labels=figures.length_labels(results["quality"]),
        **content,
    )
    document = folder / f"{NAME}.md"
    document.write_text(text, "utf-8")
    return document


def _without_texts(results):
    """The results less the translations, which are Debian's texts and no measurement."""
    quality = {
        family: {name: found[name] for name in found if name != "translations"}
        for family, found in results["quality"].items()
    }
    return {**results, "quality": quality}


def show(results):
    """Print the scores, the example translations, and how the exported model compares."""
    for family, found in results["quality"].items():
        scores = found["all"]
        print(f"{TITLES[family]}: BLEU {scores['bleu']:.1f}, chrF {scores['chrf']:.1f}")
    for example in results["examples"]:
        print(f"\n  {example['source']}\n    reference: {example['reference']}")
        for family in FAMILIES:
            print(f"    {TITLES[family]}: {example[family]}")
    deployed = results["deployment"]
    print(f"\n{TITLES[deployed['family']]} deployed; {deployed['verification']}")
    for name, way in deployed["ways"].items():
        difference = way["bleu"] - deployed["ways"]["keras"]["bleu"]
        print(f"  {name}: BLEU {way['bleu']:.2f} ({difference:+.2f}), {way['seconds']:.1f} s")


def machine():
    """dict of what the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def number(value):
    """A number with three significant digits or, above 1000, to the unit; "-" for None."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def table(header, rows):
    """A Markdown table.

    Args:
        header: list of str.
        rows: list of lists of str or numbers.
    """
    lines = [header, ["---"] * len(header)]
    lines += [[x if isinstance(x, str) else number(x) for x in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def curve_table(first, curves):
    """A Markdown table of curves by family, dict x -> y, with one column for each x."""
    header = [first, *next(iter(curves.values()))]
    return table(header, [[TITLES[name], *curve.values()] for name, curve in curves.items()])


def _rows(results):
    """The rows of the document's tables."""
    training, quality = results["training"], results["quality"]
    counts = ("parameters", "steps", "epochs", "target_tokens", "target_tokens_per_second")
    deployment = results["deployment"]
    return {
        "training": [
            [TITLES[f], *(found[key] for key in counts), found["validation_perplexity"]]
            for f, found in training.items()
        ],
        "quality": [
            [TITLES[f], *(found[part][key] for part in ("all", "far") for key in ("bleu", "chrf"))]
            for f, found in quality.items()
        ],
        "by_length": [
            [
                "sentences",
                *(part["sentences"] for part in quality[FAMILIES[0]]["by_length"].values()),
            ],
            *(
                [f"{TITLES[f]}, {name}", *(part[key] for part in found["by_length"].values())]
                for key, name in (("bleu", "BLEU"), ("chrf", "chrF"))
                for f, found in quality.items()
            ),
        ],
        "entropies": [
            [f"{TITLES[f]}: `{path}`", entropy]
            for f, found in results["alignments"].items()
            for path, entropy in found["entropies"].items()
        ],
        "deployment": [
            [
                name,
                f"{way['bleu']:.2f}",
                f"{way['chrf']:.2f}",
                f"{deployment['equal_to_keras'][name]:.1%}",
                way["seconds"],
                way.get("megabytes"),
            ]
            for name, way in deployment["ways"].items()
        ],
    }


def _processor():
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
