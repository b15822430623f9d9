"""Questions that go on from the conversation."""

from __future__ import annotations

import time

import pytest

from agentkit.messages import Message
from agentkit.retrieval.followup import LEANING, STANDING, alone, leans, understood

LEANING_QUESTIONS = [
    "and how long does that take?",
    "what about bulky items?",
    "does it cost anything?",
    "how long?",
    "Why?",
    "Can I do that online?",
    "who pays for that?",
    "What if it's broken?",
    "Do they expire?",
    "and to Norway?",
    "Does that also apply to pillows?",
    "Is there a fee?",
    "where do I find it",
]
STANDING_QUESTIONS = [
    "How do I return a lamp that I bought in a shop?",
    "Is it possible to change my delivery address?",
    "Do you sell outdoor furniture?",
    "What are the opening hours of your showroom?",
    "I cannot log in, the password that you sent me is refused",
]


def said(*texts: str, **meta: object) -> list[Message]:
    """User and assistant in turn; ``meta`` is of the last message."""
    roles = ("user", "assistant")
    messages = [Message(roles[n % 2], text) for n, text in enumerate(texts)]  # type: ignore[arg-type]
    messages[-1].meta.update(meta)
    return messages


@pytest.mark.parametrize("question", LEANING_QUESTIONS)
def test_what_says_too_little_leans(question: str) -> None:
    assert leans(question)


@pytest.mark.parametrize("question", STANDING_QUESTIONS)
def test_what_says_enough_stands(question: str) -> None:
    assert not leans(question)


def test_a_follow_up_is_joined_to_the_question_before() -> None:
    question = understood("and how long does that take?", said("How do I return a lamp?", "You post it."))
    assert question.standalone == "How do I return a lamp? and how long does that take?"
    assert question.weight == LEANING


def test_a_chain_of_follow_ups_keeps_the_nearest_two() -> None:
    history = said("What do sofas cost?", "€900.", "How much is delivery?", "€5.", "and abroad?", "€12.")
    assert understood("how long?", history).standalone == "How much is delivery? and abroad? how long?"


def test_a_question_that_stands_keeps_its_own_words() -> None:
    question = understood("Do you sell outdoor furniture?", said("How much is delivery?", "€5."))
    assert question.standalone == question.text
    assert question.weight == STANDING


def test_without_history_nothing_is_joined() -> None:
    assert understood("and how long?", []) == alone("and how long?")
    assert understood("and how long?", [Message("system", "You are kind.")]) == alone("and how long?")


def test_what_the_last_answer_cited_is_known() -> None:
    cited = [{"document": "returns.md", "quote": "You have 30 days."}]
    question = understood(
        "and then?", said("How long can I return it?", "You have 30 days. [1]", citations=cited)
    )
    assert question.documents == {"returns.md"}
    assert question.said == {"You have 30 days."}


def test_a_long_message_before_does_not_drown_the_question() -> None:
    question = understood("and then?", said("word " * 10_000, "Yes."))
    assert len(question.joined) < 500


def test_thanks_are_not_gone_on_from() -> None:
    cited = [{"document": "returns.md", "quote": "You have 30 days."}]
    history = said("How do I return a lamp?", "You have 30 days. [1]", citations=cited)
    history += said("Thanks a lot!", "You are welcome!", "Ok.", "Anything else?")
    question = understood("and how long does that take?", history)
    assert question.standalone == "How do I return a lamp? and how long does that take?"
    assert question.documents == {"returns.md"}


def test_earlier_questions_are_corrected_too() -> None:
    history = said("how much is delivry?", "€5.")
    question = understood(
        "and abrod?", history, lambda text: text.replace("delivry", "delivery").replace("abrod", "abroad")
    )
    assert question.standalone == "how much is delivery? and abroad?"


@pytest.mark.parametrize("text", ["is it " * 20_000, "there " * 20_000, "and " * 20_000, "'" * 100_000])
def test_a_long_message_is_looked_at_in_part(text: str) -> None:
    start = time.thread_time()
    understood(text, said(text, text))
    assert time.thread_time() - start < 2
