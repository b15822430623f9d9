"""Claims against what they cite, and quotes against documents."""

from __future__ import annotations

import pytest

from agentkit.errors import NotFoundError
from agentkit.evaluation.grounded import (
    Form,
    cited_sentences,
    claims,
    quote_form,
    uncited_claims,
    without_marks,
)
from agentkit.messages import Citation, Passage
from agentkit.retrieval.embedder import MiniLMEmbedder

PERIOD = "You can return an item within 30 days of delivery."
KING = "King: duvet cover 230 x 220 cm, fitted sheet 160 x 200 cm"
TEXT = """Returns

You can return an item within
30 days of delivery. Gift cards stay with you.

A report needs:
- the order number,
- one photo.

It depends on the bed:

Bed | Duvet cover | Fitted sheet
Single | 140 x 200 cm | 90 x 200 cm
King | 230 x 220 cm | 160 x 200 cm
"""


@pytest.mark.parametrize(
    ("quote", "form"),
    [
        ("You can return an item within 30 days of delivery.", "verbatim"),
        ("You can return an item  within\n30 days of delivery.", "verbatim"),
        ("You can return an item within 14 days of delivery.", "absent"),
        ("A report needs: - one photo.", "list"),
        ("A report needs: - two photos.", "absent"),
        ("A claim needs: - one photo.", "absent"),
        ("King: duvet cover 230 x 220 cm, fitted sheet 160 x 200 cm", "table"),
        ("It depends on the bed: King: duvet cover 230 x 220 cm, fitted sheet 160 x 200 cm", "table"),
        ("It depends on you: King: duvet cover 230 x 220 cm, fitted sheet 160 x 200 cm", "absent"),
        ("King: duvet cover 140 x 200 cm, fitted sheet 160 x 200 cm", "absent"),
        ("King: duvet cover 230 x 220 cm, fitted sheet 160 x 200 cm, free", "absent"),
        ("Not King: duvet cover 230 x 220 cm, fitted sheet 160 x 200 cm", "absent"),
        ("", "absent"),
    ],
)
def test_how_a_quote_stands(quote: str, form: Form) -> None:
    assert quote_form(quote, TEXT) == form


def test_a_reply_is_read_sentence_by_sentence() -> None:
    text = "Sure! You have 30 days. [1] It is free [2][3]\n\nI hope that helps!"
    assert cited_sentences(text) == [
        ("Sure!", []),
        ("You have 30 days.", [1]),
        ("It is free", [2, 3]),
        ("I hope that helps!", []),
    ]
    assert without_marks(text).splitlines()[0] == "Sure! You have 30 days. It is free"


def citation(number: int, quote: str, document: str = "returns.md") -> Citation:
    return Citation(number, document, "Returns", None, quote, 0.9)


def text_of(name: str) -> str:
    if name != "returns.md":
        raise NotFoundError(f"there is no document {name!r}")
    return TEXT


@pytest.mark.parametrize(
    ("text", "quote", "grounded"),
    [
        (f"{PERIOD} [1]", PERIOD, True),
        ("Items can be returned within 30 days of delivery. [1]", PERIOD, True),
        ("Items can be returned within 14 days of delivery. [1]", PERIOD, False),
        ("Our showroom has a café. [1]", PERIOD, False),
        (PERIOD, PERIOD, False),
        ("You can return an item within 99 days. [1]", "You can return an item within 99 days.", False),
        (f"{KING}. [1]", KING, True),
        (f"{PERIOD} [2]", PERIOD, False),
    ],
)
def test_a_claim_needs_a_quote_that_stands_and_supports_it(
    minilm: MiniLMEmbedder, text: str, quote: str, grounded: bool
) -> None:
    found = claims(text, [citation(1, quote)], text_of, minilm)
    assert [claim.grounded for claim in found] == [grounded]


def test_courtesies_claim_nothing(minilm: MiniLMEmbedder) -> None:
    assert claims("Of course! I hope that helps!", [], text_of, minilm) == []


def test_a_document_that_is_gone_supports_nothing(minilm: MiniLMEmbedder) -> None:
    found = claims("Delivery is quick. [1]", [citation(1, "Delivery is quick.", "gone.md")], text_of, minilm)
    assert (found[0].grounded, found[0].quotes) == (False, ("absent",))


def test_answers_without_citations_are_held_against_passages(minilm: MiniLMEmbedder) -> None:
    passage = Passage(1, "returns.md", "Returns", "You can return an item within 30 days of delivery.", 0.8)
    text = "Hello! You can return items within 30 days of delivery. We were founded in 1850."
    found = uncited_claims(text, [passage], minilm)
    assert [claim.grounded for claim in found] == [True, False]
    assert uncited_claims(text, [], minilm)[0].grounded is False
