"""`Answer.plot`: Figure 2 of the paper."""

import re
import struct
import sys
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragengine import Answer, Document, GenerationOptions, Hypothesis
from ragengine.errors import DependencyError, InputError
from ragengine.installation import pip_install


def answer_of(tokens: list[str], titles: list[str], marginalize: Any = "token") -> Answer:
    rng = np.random.default_rng(len(tokens))
    posteriors = rng.dirichlet(np.full(len(titles), 0.3), len(tokens)).astype(np.float32)
    documents = tuple(
        Document(title, "text", id=str(n), score=1.0, prior=1 / len(titles), posterior=float(share))
        for n, (title, share) in enumerate(zip(titles, posteriors.mean(axis=0), strict=True))
    )
    found = Hypothesis(np.arange(len(tokens)), -1.0, -2.0, np.zeros(len(tokens), np.float32), posteriors)
    options = GenerationOptions(marginalize=marginalize)
    return Answer("a $question$?", ("".join(tokens),), documents, (found,), tuple(tokens), (), {}, options)


def texts(figure: Any) -> list[str]:
    drawn = [text.get_text() for text in figure.texts]
    return drawn + [text.get_text() for axes in figure.axes for text in axes.texts]


ODD = ["<s>", " $5", " and $6", "東京", "\n", " ", "\ufffd", "", "\x07", " مرحبا", "</s>"]


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".svg"])
def test_a_plot_is_a_picture_of_its_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"figure{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no font without a character, no mathematics in dollars
        answer_of(ODD, ["$x$ \\frac{", "東京", ""]).plot(path)
    content = path.read_bytes()
    if suffix == ".svg":
        assert ElementTree.fromstring(content).tag.endswith("svg")
    else:
        assert content.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", content[16:24])
        assert 500 < width < 2500
        assert 200 < height < 1500


@pytest.mark.parametrize(("count", "panels"), [(1, 1), (24, 1), (25, 2), (100, 5)])
def test_long_answers_continue_below_and_nothing_is_left_out(count: int, panels: int) -> None:
    tokens = [f"t{number}" for number in range(count)]
    titles = [f"document {number}" for number in range(20)]
    answer = answer_of(tokens, titles)
    figure = answer.plot()
    maps = [axes for axes in figure.axes if axes.collections]
    assert len(maps) == panels
    shades = np.concatenate([axes.collections[0].get_array() for axes in maps], axis=1)
    np.testing.assert_array_equal(shades, answer.token_posteriors.T)
    assert set(tokens) <= set(texts(figure))
    assert all(sum(title in text for text in texts(figure)) >= panels for title in titles[2:])
    assert figure.get_figwidth() < 15


def test_plots_leave_the_global_state_of_matplotlib_alone(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    loaded = "matplotlib.pyplot" in sys.modules
    answer_of(["a"], ["b"]).plot(tmp_path / "f.png")
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == loaded


@pytest.mark.parametrize("name", ["figure.pdf", "figure", "missing/figure.png"])
def test_a_path_that_cannot_be_used_is_one_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.png or \.svg|cannot be written"):
        answer_of(["a"], ["b"]).plot(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        DependencyError, match=re.escape(f"matplotlib, which is not installed; run {pip_install('plot')}.")
    ):
        answer_of(["a"], ["b"]).plot()
