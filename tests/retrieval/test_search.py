"""Search: fused, without copies, neighbours together, follow-ups understood, narrowed, reranked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from agentkit.errors import UsageError
from agentkit.messages import Message
from agentkit.retrieval.embedder import MiniLMEmbedder
from agentkit.retrieval.knowledge import KnowledgeBase
from agentkit.retrieval.protocol import Index
from agentkit.retrieval.records import StoredChunk
from agentkit.retrieval.search import RRF_CONSTANT, Hit, merged, reciprocal_ranks

Base = Callable[[dict[str, str]], KnowledgeBase]

SENTENCES = [
    "A wool blanket is washed by hand in cold water with a little mild soap.",
    "It is dried lying flat on a towel, away from the sun and from every heater.",
    "Moths stay away from blankets that are kept in cedar boxes during the summer.",
    "A torn seam is mended with wool thread of the same colour and a blunt needle.",
    "Pilling on a new blanket is normal and is combed off with a fine brush.",
    "Stains are dabbed with cold water at once and never rubbed with a dry cloth.",
    "In winter a blanket may be aired in the snow, which freshens it without any water.",
    "A blanket that smells of smoke hangs for two days in the open air under a roof.",
    "The fringe is knotted anew when three or more of its threads have come loose.",
    "Felted places cannot be undone, so a wool blanket never goes into a machine.",
]


@pytest.fixture
def base(tmp_path: Path, minilm: MiniLMEmbedder) -> Iterator[Base]:
    made: list[KnowledgeBase] = []

    def make(files: dict[str, str]) -> KnowledgeBase:
        for name, text in files.items():
            path = tmp_path / "knowledge" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        made.append(KnowledgeBase(tmp_path / "knowledge", tmp_path / "index.db", minilm))
        made[-1].sync()
        return made[-1]

    yield make
    for knowledge in made:
        knowledge.close()


def test_reciprocal_ranks() -> None:
    fused = reciprocal_ranks([[7, 8], [8]])
    assert fused == {7: 1 / (RRF_CONSTANT + 1), 8: 1 / (RRF_CONSTANT + 2) + 1 / (RRF_CONSTANT + 1)}


WASHING = (
    "All of our terry towels and bath mats may be washed in the machine at up to 60 degrees with a mild powder, "
    "and may be dried in the tumble dryer on a low setting afterwards."
)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (WASHING, 1),
        (WASHING.replace("powder", "detergent"), 1),
        (WASHING.replace("60", "90"), 2),
        (WASHING.replace("may be dried", "may not be dried"), 2),
        (WASHING.replace("60 degrees", "6 times 0 degrees"), 2),
    ],
)
def test_copies_are_shown_once_and_other_facts_are_none(base: Base, other: str, found: int) -> None:
    files = {"a.md": WASHING, "b.md": other, "c.md": "Rugs are beaten outside."}
    knowledge = base({name: f"# Towels\n\n{text}" for name, text in files.items()})
    documents = [passage.document for passage in knowledge.search("How hot are towels washed?")]
    assert len([name for name in documents if name != "c.md"]) == found


def test_pieces_of_one_section_come_as_one_passage(base: Base) -> None:
    text = " ".join(SENTENCES)
    knowledge = base({"care.md": f"# Care\n\n## Wool\n\n{text}\n\n## Silk\n\nSilk is dry-cleaned."})
    assert knowledge.list()[0].chunks == 3
    found = knowledge.search("How do I care for a wool blanket?")
    assert [passage.heading for passage in found] == ["Care > Wool", "Care > Silk"]
    assert found[0].text == text
    assert found[0].end - found[0].start == len(text)


def test_a_follow_up_is_understood(base: Base) -> None:
    knowledge = base(
        {
            "repair.md": "# Repairs\n\nA repair takes two weeks and costs 30 euros.",
            "delivery.md": "# Delivery\n\nA delivery takes three days and costs 5 euros.",
            "gifts.md": "# Gifts\n\nGift wrapping takes no time and costs 2 euros.",
        }
    )
    for subject, document in (("repair", "repair.md"), ("delivery", "delivery.md")):
        history = [Message("user", f"Do you offer {subject} of lamps?"), Message("assistant", "Yes, we do.")]
        found = knowledge.search("and how long does it take?", 1, history=history)
        assert [passage.document for passage in found] == [document]


class Backwards:
    """Likes the shortest text best."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def scores(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(query)
        return np.array([-len(text) for text in texts], np.float32)


def test_a_reranker_has_the_last_word(base: Base) -> None:
    knowledge = base(
        {
            "a.md": "# Lamps\n\nLamps are tested for a whole night before they leave us.",
            "b.md": "# Odd\n\nHm.",
        }
    )
    query = "How are lamps tested?"
    assert knowledge.search(query)[0].document == "a.md"
    reranker = Backwards()
    knowledge._reranker = reranker
    assert knowledge.search(query)[0].document == "b.md"
    assert reranker.asked == [query]


@pytest.mark.parametrize(("query", "limit"), [("", 4), ("   ", 4), ("x", 0), ("x", -1)])
def test_a_search_for_nothing_is_refused(base: Base, query: str, limit: int) -> None:
    with pytest.raises(UsageError):
        base({"a.md": "# A\n\nText."}).search(query, limit)


class Text:
    """An index that has one document's text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def text(self, document: str, start: int, end: int) -> str:
        return self._text[start:end]


def hits_of(text: str, order: Sequence[int]) -> list[Hit]:
    """A hit for each sentence, which is a chunk on a page of its own."""
    vector = np.eye(4, dtype=np.float32)
    found, start = [], 0
    for n, sentence in enumerate(text.split("\n")):
        chunk = StoredChunk(
            n, "a.pdf", "A", sentence, n + 1, start, start + len(sentence), vector[:1], vector[:1], "", "", n
        )
        found.append(Hit(chunk, 0.0, 0.5))
        start += len(sentence) + 1
    return [found[n] for n in order]


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2, 1], [2, 1, 0], [1, 0, 2]])
def test_neighbours_are_merged_in_any_order(order: list[int]) -> None:
    text = "One is first.\nTwo is next.\nThree is last."
    (passage,) = merged(hits_of(text, order), 4, cast(Index, Text(text)))
    assert (passage.text, passage.start, passage.end, passage.id) == (text, 0, len(text), order[0])
    assert passage.chunks == (0, 1, 2)
    assert [passage.page_at(text.index(word)) for word in ("One", "Two", "Three")] == [1, 2, 3]


def test_sections_of_one_name_stay_apart(base: Base) -> None:
    rows = "question,answer,product\n" + "".join(
        f"How long is delivery?,{answer},{product}\n"
        for answer, product in (
            ("Four weeks.", "Oslo desk"),
            ("Two days.", "Lund lamp"),
            ("Ten days.", "Malmo bed"),
        )
    )
    texts = {"a.csv": rows, "b.md": "# Use\n\n## Example\n\nOne is first.\n\n## Example\n\nTwo is next.\n"}
    found = base(texts).search("How long is delivery?", 6)
    told = " ".join(passage.text for passage in found if passage.document == "a.csv")
    assert all(answer in told for answer in ("Four weeks.", "Two days.", "Ten days."))
    assert {passage.text for passage in found if passage.document == "b.md"} == {
        "One is first.",
        "Two is next.",
    }


def test_a_document_that_has_changed_meanwhile_gives_its_best_chunk() -> None:
    text = "One is first.\nTwo is next."
    for other in (
        "",
        "Something else altogether, which is longer.",
        "One is first. And a heading.\nTwo is next.",
    ):
        passage = merged(hits_of(text, [1, 0]), 4, cast(Index, Text(other)))[0]
        assert (passage.text, passage.start, passage.end, passage.page) == ("Two is next.", 14, 26, 2)
        assert passage.chunks == ()
