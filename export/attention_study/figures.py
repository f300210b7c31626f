"""The plots of the document."""

from matplotlib.figure import Figure

from attention_study import engines, fits, quality, streaming, tasks
from attention_study.mechanisms import MECHANISMS

_PARTS = {engines.FORWARD: "forward pass", engines.TRAINING: "training step"}
_UNITS = {"seconds": ("milliseconds", 1e3), "bytes": ("MiB beyond what is held before", 2.0**-20)}
_MARKERS = "osv^D"


def draw_all(results, chosen, folder):
    """Draw every figure for which there are results.

    Args:
        results: Results.
        chosen: engines.
        folder: pathlib.Path for the .png files.

    Returns:
        dict name of the file without suffix -> its caption.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = {}
    for engine in chosen:
        for part in (engines.FORWARD, engines.TRAINING):
            figure = _costs(results, engine, part)
            if figure:
                name = f"{engine}_{part}"
                figures[name] = (figure, f"{engine}, {_PARTS[part]}")
    if results.stage(streaming.STAGE):
        figures["streaming"] = (_streaming(results), "Decoding with a window")
    for task in results.content["settings"]["quality"]:
        figure = _quality(results, task)
        if figure:
            figures[task] = (figure, tasks.TITLES[task])
    for name, (figure, _) in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=80)
    return {name: caption for name, (_, caption) in figures.items()}


def _axes(*titles):
    figure = Figure(figsize=(5.2 * len(titles) + 2, 4.6), layout="constrained")
    parts = figure.subplots(1, len(titles), squeeze=False)[0]
    for axes, title in zip(parts, titles, strict=True):
        axes.set_title(title)
        axes.grid(alpha=0.3)
    return figure, parts


def _costs(results, engine, part):
    """Time and memory against length, or None where nothing was measured."""
    curves = {
        quantity: {
            name: fits.measured(results, name, engine, part, quantity) for name in MECHANISMS
        }
        for quantity in _UNITS
    }
    if not any(curves["seconds"].values()):
        return None
    figure, parts = _axes("time", "peak memory")
    for axes, (quantity, (unit, factor)) in zip(parts, _UNITS.items(), strict=True):
        for number, name in enumerate(MECHANISMS):
            curve = {n: y * factor for n, y in curves[quantity][name].items() if y > 0}
            if curve:
                axes.plot(list(curve), list(curve.values()), label=_title(name), **_style(number))
        _logarithmic(axes, results.content["settings"]["lengths"], "tokens", unit)
        axes.set_yscale("log")
    figure.suptitle(f"{engine}, {_PARTS[part]}")
    figure.legend(*parts[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def _style(number):
    marker = _MARKERS[number % len(_MARKERS)]
    if number == 0:
        return {"color": "black", "linewidth": 2.5, "marker": marker, "markersize": 4}
    style = "-" if number <= 10 else "--"
    return {"color": f"C{number % 10}", "linestyle": style, "marker": marker, "markersize": 4}


def _title(name):
    return MECHANISMS[name].title


def _logarithmic(axes, ticks, xlabel, ylabel):
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{n // 1024}k" if n >= 1024 else str(n) for n in ticks])
    axes.minorticks_off()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)


def _streaming(results):
    figure, parts = _axes("time of a token", "memory since the first tokens")
    for kind, found in results.stage(streaming.STAGE).items():
        for axes, (quantity, (_, factor)) in zip(parts, _UNITS.items(), strict=True):
            values = [value * factor for value in found[quantity]]
            axes.plot(found["lengths"], values, label=f"{kind} cache")
            axes.set_xlabel("tokens decoded")
            axes.set_ylabel("milliseconds" if quantity == "seconds" else "MiB")
            axes.legend()
    for axes in parts:
        axes.set_ylim(bottom=0)
    return figure


def _quality(results, task):
    """Accuracy against difficulty, or None where there is only one."""
    curves = quality.accuracies(results, task)
    difficulties = next(iter(curves.values()), {})
    if len(difficulties) < 2:
        return None
    figure, (axes,) = _axes(tasks.TITLES[task])
    for number, name in enumerate(MECHANISMS):
        if name in curves:
            axes.plot(
                [int(x) for x in difficulties],
                list(curves[name].values()),
                label=_title(name),
                **_style(number),
            )
    ticks = [int(x) for x in difficulties]
    _logarithmic(axes, ticks, tasks.TASKS[task].name_of_difficulty, "accuracy")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure
