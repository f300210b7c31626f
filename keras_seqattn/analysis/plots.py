"""Plots of attention with the tokens on the axes. Only drawing a plot imports matplotlib."""

from keras_seqattn.analysis.statistics import score_array
from keras_seqattn.arguments import text, texts
from keras_seqattn.errors import InputError

_COLUMNS = 4


def plot_alignment(scores, source_tokens, target_tokens, title=None):
    """Plot how much each target token attends to each source token.

    Args:
        scores: float (t, s), or (h, t, s); the plot shows the mean over the heads.
        source_tokens: list of s str, or fewer: then the other keys are padding.
        target_tokens: list of t str, or fewer.
        title: str above the plot, or None.

    Returns:
        matplotlib.figure.Figure; it is not shown on the screen.

    Raises:
        InputError: matplotlib is missing, or there are more tokens than scores.
    """
    scores = score_array(scores, axes=(2, 3))
    _check_labels(title, source_tokens=source_tokens, target_tokens=target_tokens)
    scores = scores.mean(axis=0) if scores.ndim == 3 else scores
    scores = _cut(scores, target_tokens, source_tokens)
    height, width = (1.5 + 0.25 * len(x) for x in (target_tokens, source_tokens))
    figure = _figure(width, height)
    axes = figure.add_subplot()
    _draw(axes, scores, target_tokens, source_tokens)
    axes.set_xlabel("source")
    axes.set_ylabel("target")
    if title:
        figure.suptitle(title)
    return figure


def plot_heads(scores, tokens, query_tokens=None, title=None):
    """Plot one map for each head of a layer: rows are queries, columns are keys.

    Args:
        scores: float (h, t, s).
        tokens: list of str, the keys; fewer than s if the other keys are padding.
        query_tokens: list of str, the queries; None takes `tokens`.
        title: str above the maps, or None.

    Returns:
        matplotlib.figure.Figure; it is not shown on the screen.

    Raises:
        InputError: matplotlib is missing, or there are more tokens than scores.
    """
    queries = tokens if query_tokens is None else query_tokens
    _check_labels(title, tokens=tokens, query_tokens=queries)
    heads = [_cut(head, queries, tokens) for head in score_array(scores, axes=(3,))]
    if not heads:
        raise InputError("scores have no heads")
    columns = min(_COLUMNS, len(heads))
    rows = -(-len(heads) // columns)
    height, width = (1.2 + 0.2 * len(x) for x in (queries, tokens))
    figure = _figure(width * columns, height * rows)
    for index, head in enumerate(heads):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw(axes, head, queries, tokens)
        axes.set_title(f"head {index}")
    if title:
        figure.suptitle(title)
    return figure


def _check_labels(title, **tokens):
    if title is not None:
        text(title, "title")
    for name, pieces in tokens.items():
        texts(pieces if isinstance(pieces, (list, tuple)) else [pieces], name)


def _figure(width, height):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(
            'plots need matplotlib, which is not installed: pip install "keras-seqattn[plot]"'
        ) from None
    return Figure(figsize=(width, height), layout="constrained")


def _cut(scores, queries, keys):
    if scores.ndim != 2 or len(queries) > scores.shape[0] or len(keys) > scores.shape[1]:
        raise InputError(
            f"scores of shape {scores.shape} do not fit {len(queries)} query and {len(keys)} key "
            "tokens; give those of one row: scores[layer][row]"
        )
    return scores[: len(queries), : len(keys)]


def _draw(axes, scores, queries, keys):
    axes.imshow(scores, vmin=0, vmax=1, cmap="gray_r", aspect="equal")
    # Tokens are plain text. Otherwise matplotlib would read two $ as mathematics.
    plain = {"parse_math": False}
    axes.set_xticks(range(len(keys)), keys, rotation=90, **plain)
    axes.set_yticks(range(len(queries)), queries, **plain)
    axes.tick_params(length=0, labelsize=8)
