"""The page of a run, read as a browser would."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
from bs4 import BeautifulSoup

from agentkit.errors import MissingBackendError
from agentkit.evaluation.grounded import Claim
from agentkit.evaluation.page import render
from agentkit.evaluation.rows import Row
from agentkit.evaluation.summary import summarize


@pytest.fixture
def page(row: Callable[..., Row]) -> BeautifulSoup:
    rows = [
        row(id="good"),
        row(id="evil", question="<script>alert(1)</script>\x1b[2J\u202e", text="a & <b>", right=False),
        row(id="near", kind="unanswerable", near_miss=True, right=False, answerable=0.7),
        row(id="kept", kind="unanswerable", abstained=True, right=True, answerable=0.1),
        row(id="lost", abstained=True, right=False, claims=()),
        row(id="far", ranking=("a", "b", "c", "orders/returns.md")),
        row(id="loose", claims=(Claim("Ships are free.", False),)),
    ]
    text = render(rows, summarize(rows), {"model": "m<1>"}, 0.5)
    assert "\x1b" not in text
    assert "\u202e" not in text
    return BeautifulSoup(text, "html.parser")


def test_it_stands_alone(page: BeautifulSoup) -> None:
    assert page.find_all(["script", "link", "img", "iframe"]) == []
    addresses = [
        tag[name]
        for tag in page.find_all(True)
        for name in ("src", "href", "xlink:href")
        if tag.has_attr(name)
    ]
    assert addresses
    assert all(address.startswith("#") for address in addresses)


def test_its_plots_are_drawn_and_do_not_share_ids(page: BeautifulSoup) -> None:
    assert len(page.find_all("svg")) == 5
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    used = {
        tag[name].lstrip("#")
        for tag in page.find_all(True)
        for name in ("href", "xlink:href")
        if tag.has_attr(name)
    }
    assert used <= set(ids)
    labels = " ".join(tag.get_text() for tag in page.find_all("svg"))
    for label in (
        "hit@k",
        "cosine alone",
        "unanswerable",
        "precision",
        "recall",
        "threshold 0.50",
        "seconds",
    ):
        assert label in labels


def test_it_names_every_miss(page: BeautifulSoup) -> None:
    found = [str(tag["id"]) for tag in page.find_all(id=lambda name: name and name.startswith("miss-"))]
    assert found == ["miss-evil", "miss-near", "miss-lost", "miss-far", "miss-loose"]
    told = {name: page.find(id=name).parent.get_text(" ") for name in found}  # type: ignore[union-attr]
    assert "<script>alert(1)</script>" in told["miss-evil"]
    assert "30 days or thirty days" in told["miss-evil"]
    assert "a & <b>" in told["miss-evil"]
    assert "a fact is missing" in told["miss-evil"]
    assert "an abstention" in told["miss-near"]
    assert "answered" in told["miss-near"]
    assert "abstained" in told["miss-lost"]
    assert "no right document among the first three" in told["miss-far"]
    assert "unsupported: Ships are free." in told["miss-loose"]


def test_a_question_that_failed_tells_why(row: Callable[..., Row]) -> None:
    lost = row(id="lost", right=False, ranking=(), failed="the context is <full>")
    rows = [row(), row(id="no", kind="unanswerable"), lost]
    page = BeautifulSoup(render(rows, summarize(rows), {}, 0.5), "html.parser")
    told = page.find(id="miss-lost").parent.get_text(" ")  # type: ignore[union-attr]
    assert "failed: the context is <full>" in told
    assert "a fact is missing" not in told
    assert "1 failed: wrong answers, and in no other figure." in page.get_text(" ")


def test_its_figures_are_those_of_the_summary(page: BeautifulSoup) -> None:
    cells = page.find("table").find_all("td")  # type: ignore[union-attr]
    assert [cell.get_text().split()[0] for cell in cells[:4]] == ["search", "0.800", "0.800", "1.000"]
    assert page.find("h1").get_text() == "Retrieval and answers: 7 questions"  # type: ignore[union-attr]


def test_the_same_rows_give_the_same_page(row: Callable[..., Row]) -> None:
    rows = [row(), row(id="2", kind="unanswerable", abstained=True)]
    first, second = (render(rows, summarize(rows), {}, 0.5) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", ["plain", "unanswerable"])
def test_one_question_is_enough(row: Callable[..., Row], kind: str) -> None:
    rows = [row(kind=kind)]
    assert "<svg" in render(rows, summarize(rows), {}, 0.5)


def test_without_matplotlib_the_remedy_is_named(
    row: Callable[..., Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingBackendError, match=r"need matplotlib; pip install 'matplotlib>="):
        render([row()], summarize([row()]), {}, 0.5)
