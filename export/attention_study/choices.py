"""Which mechanism to take: rules choose it from the measurements."""

import dataclasses

from machine import table

from attention_study import fits, quality, tasks
from attention_study.engines import FORWARD
from attention_study.mechanisms import BIDIRECTIONAL, CAUSAL, MECHANISMS

# Accuracies that differ by less are equal, and speed decides.
_EQUAL = 0.01
# Dense attention is good enough where nothing is faster by more.
_WORTHWHILE = 1.25


@dataclasses.dataclass
class _View:
    """What the rules look at, in one engine.

    Attributes:
        results: Results.
        engine: str.
        longest: int, the longest text.
    """

    results: object
    engine: str
    longest: int

    def cost(self, name, quantity="seconds"):
        """At the longest text, or None."""
        curve = fits.measured(self.results, name, self.engine, FORWARD, quantity)
        return curve.get(self.longest)

    def affordable(self, unwanted=None):
        """The mechanisms whose cost was measured at the longest text, of wanted directions."""
        return [
            name
            for name, entry in MECHANISMS.items()
            if self.cost(name) is not None and entry.direction != unwanted
        ]

    def milliseconds(self, name):
        """As text."""
        return f"{self.cost(name) * 1e3:,.0f} ms for {self.longest:,} tokens"


def table_of_choices(results, engine):
    """The table, as Markdown.

    Args:
        results: Results.
        engine: str, the one whose costs decide.
    """
    view = _View(results, engine, max(results.content["settings"]["lengths"]))
    rules = (_short_texts, _documents, _recall, _longer_than_trained, _fastest, _smallest)
    rows = [row for row in (rule(view) for rule in rules) if row is not None]
    return table(["when", "take", f"because ({engine})"], rows)


def _short_texts(view):
    curves = {
        name: fits.measured(view.results, name, view.engine, FORWARD, "seconds")
        for name in MECHANISMS
    }
    dense, enough = curves.pop("dense"), None
    for length, seconds in dense.items():
        if any(c.get(length, seconds) * _WORTHWHILE < seconds for c in curves.values()):
            break
        enough = length
    if enough is None:
        return None
    reason = f"no other mechanism is {_WORTHWHILE} times as fast, and dense gives up nothing"
    return [f"texts have up to {enough:,} tokens", "dense", reason]


def _documents(view):
    return _best(view, "emails", "long documents are classified, read in both directions", CAUSAL)


def _recall(view):
    return _best(view, "recall", "the model must find again what was said", BIDIRECTIONAL)


def _longer_than_trained(view):
    return _best(view, "copying", "texts are longer than those of the training", BIDIRECTIONAL)


def _best(view, task, when, unwanted):
    """The most accurate one at the greatest difficulty; of equals the fastest."""

    def cost(name):
        return view.cost(_timed(name, task))

    found = quality.accuracies(view.results, task)
    names = [n for n in view.affordable(unwanted) if n in found and cost(n) is not None]
    scores = {name: list(found[name].values())[-1] for name in names}
    if not scores:
        return None
    difficulty = list(next(iter(found.values())))[-1]
    good = [name for name in scores if scores[name] >= max(scores.values()) - _EQUAL]
    name = min(good, key=cost)
    unit = tasks.TASKS[task].name_of_difficulty
    reason = f"{scores[name]:.3f} at {difficulty} {unit} ({tasks.TITLES[task]}"
    if "dense" in found:
        reason += f"; dense {list(found['dense'].values())[-1]:.3f}"
    return [when, MECHANISMS[name].title, f"{reason}), {view.milliseconds(_timed(name, task))}"]


def _timed(name, task):
    """The entry that has the cost of the form in which a task is learnt."""
    causal = f"{name}_causal"
    return causal if tasks.TASKS[task].causal and causal in MECHANISMS else name


def _fastest(view):
    names = view.affordable()
    if not names:
        return None
    name = min(names, key=view.cost)
    return ["time is short", MECHANISMS[name].title, view.milliseconds(name)]


def _smallest(view):
    names = view.affordable()
    if not names:
        return None
    name = min(names, key=lambda each: view.cost(each, "bytes"))
    reason = f"{view.cost(name, 'bytes') / 2**20:,.0f} MiB for {view.longest:,} tokens"
    return ["memory is short", MECHANISMS[name].title, reason]
