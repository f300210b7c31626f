"""Plots carry the tokens, show the scores, and say what is wrong."""

import builtins

import numpy as np
import pytest

from keras_seqattn import analysis
from keras_seqattn.errors import InputError

pytestmark = pytest.mark.backend_free

SOURCE = ["a", "$x$", "<b>", "città"]
TARGET = ["c", "d", "</s>"]


@pytest.fixture
def scores():
    # Five heads, and one padded query and two padded keys more than there are tokens.
    scores = np.random.default_rng(1).random((5, len(TARGET) + 1, len(SOURCE) + 2))
    return scores / scores.sum(-1, keepdims=True)


def labels(axes):
    return (
        [label.get_text() for label in axes.get_xticklabels()],
        [label.get_text() for label in axes.get_yticklabels()],
    )


def test_alignment_shows_the_mean_over_heads(scores):
    figure = analysis.plot_alignment(scores, SOURCE, TARGET, title="who looks where")
    (axes,) = figure.axes
    assert labels(axes) == (SOURCE, TARGET)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("source", "target")
    shown = axes.images[0].get_array()
    np.testing.assert_allclose(shown, scores.mean(0)[: len(TARGET), : len(SOURCE)])
    assert figure.get_suptitle() == "who looks where"


def test_alignment_of_one_map(scores):
    shown = analysis.plot_alignment(scores[2], SOURCE, TARGET).axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, scores[2, : len(TARGET), : len(SOURCE)])


def test_heads_have_a_map_each(scores):
    figure = analysis.plot_heads(scores, SOURCE, TARGET)
    assert [axes.get_title() for axes in figure.axes] == [f"head {i}" for i in range(5)]
    for axes, head in zip(figure.axes, scores, strict=True):
        assert labels(axes) == (SOURCE, TARGET)
        np.testing.assert_allclose(axes.images[0].get_array(), head[:3, :4])


def test_heads_of_self_attention_have_the_same_tokens_on_both_axes():
    scores = np.full((2, 3, 3), 1 / 3)
    for axes in analysis.plot_heads(scores, TARGET).axes:
        assert labels(axes) == (TARGET, TARGET)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_figures_can_be_saved(scores, tmp_path, suffix):
    # "$x$" must be drawn as it stands, and not be read as mathematics.
    for name, figure in {
        "alignment": analysis.plot_alignment(scores, SOURCE, TARGET),
        "heads": analysis.plot_heads(scores, ["$\\broken$", *SOURCE[1:]], TARGET),
    }.items():
        path = tmp_path / f"{name}.{suffix}"
        figure.savefig(path)
        assert path.stat().st_size > 1000


def test_too_many_tokens_are_refused(scores):
    with pytest.raises(InputError, match="7 key"):
        analysis.plot_alignment(scores, ["x"] * 7, TARGET)
    with pytest.raises(InputError, match="one row"):
        analysis.plot_heads(scores[None], SOURCE, TARGET)


def test_without_matplotlib_the_extra_is_named(scores, monkeypatch):
    original = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=r"keras-seqattn\[plot\]"):
        analysis.plot_alignment(scores, SOURCE, TARGET)
