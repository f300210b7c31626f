"""The plots of the document."""

import numpy as np
from matplotlib.figure import Figure

from keras_seqattn import analysis
from translation_study.settings import FAMILIES, TITLES

_STYLES = dict(zip(FAMILIES, ("C1o-", "C2s-", "C0^-"), strict=True))


def draw_all(results, folder):
    """Draw every figure.

    Args:
        results: dict of everything that was measured, by stage.
        folder: pathlib.Path for the .png files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "training": _training(results["training"]),
        "quality_by_length": _quality(results["quality"]),
        "throughput": _throughput(results["throughput"]),
        "gradients": _gradients(results["gradients"]),
        "memory": _memory(results["memory"]),
        **_alignments(results["alignments"]),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=80)


def _axes(*titles, width=5.5):
    figure = Figure(figsize=(width * len(titles), 3.8), layout="constrained")
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for part, title in zip(axes, titles, strict=True):
        part.set_title(title)
        part.grid(alpha=0.3)
    return figure, axes


def _lines(axes, curves, xlabel, ylabel):
    """Curves by family, each a dict x -> y; lengths are on a logarithmic axis."""
    for family, curve in curves.items():
        axes.plot(
            [int(x) for x in curve], list(curve.values()), _STYLES[family], label=TITLES[family]
        )
    axes.set_xscale("log", base=2)
    ticks = [int(x) for x in next(iter(curves.values()))]
    axes.set_xticks(ticks, [str(x) for x in ticks])
    axes.minorticks_off()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.legend()


def _training(training):
    figure, (axes,) = _axes("Training loss at equal time")
    for family, found in training.items():
        seconds, losses = zip(*found["curve"], strict=True)
        axes.plot(seconds, losses, _STYLES[family][:2] + "-", label=TITLES[family])
    axes.set_xlabel("seconds on two cores")
    axes.set_ylabel("loss (label smoothing included)")
    axes.legend()
    return figure


def _quality(quality):
    figure, parts = _axes("BLEU by source length", "chrF by source length")
    for axes, name in zip(parts, ("bleu", "chrf"), strict=True):
        labels = length_labels(quality)
        for family, found in quality.items():
            scores = [scores[name] for scores in found["by_length"].values()]
            places = [i for i, score in enumerate(scores) if score is not None]
            axes.plot(places, [scores[i] for i in places], _STYLES[family], label=TITLES[family])
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel("source tokens")
        axes.set_ylabel("BLEU" if name == "bleu" else "chrF")
        axes.legend()
    return figure


def length_labels(quality):
    """The ranges of source lengths by which scores are reported, as text."""
    edges = [0, *map(int, next(iter(quality.values()))["by_length"])]
    return [
        f"{low + 1}-{high}" if high < 1000 else f">{low}"
        for low, high in zip(edges, edges[1:], strict=False)
    ]


def _throughput(throughput):
    figure, (axes,) = _axes("Training throughput, equal tokens per batch")
    _lines(axes, throughput, "source and target tokens of a pair", "target tokens per second")
    axes.set_ylim(bottom=0)
    return figure


def _gradients(gradients):
    figure, parts = _axes("untrained", "trained")
    for axes, state in zip(parts, ("untrained", "trained"), strict=True):
        curves = first_norms(gradients, state)
        _lines(axes, curves, "source and target tokens of a pair", "gradient norm")
        axes.set_yscale("log")
    figure.suptitle("Loss at the last target token: gradient in the first source token's embedding")
    return figure


def first_norms(gradients, state):
    """family -> length -> norm at the first source token, "trained" or "untrained"."""
    return {
        family: {length: norms["first"] for length, norms in found[state].items()}
        for family, found in gradients.items()
    }


def _memory(memory):
    figure, (axes,) = _axes("Peak memory of a training step, equal rows")
    _lines(axes, memory, "source and target tokens of a pair", "MiB")
    axes.set_yscale("log", base=2)
    return figure


def _alignments(alignments):
    figures = {}
    for family, found in alignments.items():
        path = sharpest(found)
        tokens, targets = found["source_tokens"], found["target_tokens"]
        scores = np.array(found["layers"][path])
        figures[f"alignment_{family}"] = analysis.plot_alignment(
            scores, tokens, targets, title=f"{TITLES[family]}: {path}"
        )
        if len(scores) > 1:
            figures[f"heads_{family}"] = analysis.plot_heads(scores, tokens, targets, title=path)
    return figures


def sharpest(alignment):
    """The path of the layer whose attention to the source has the lowest entropy."""
    entropies = alignment["entropies"]
    return min(entropies, key=entropies.get)
