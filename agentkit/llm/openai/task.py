"""One call of `RemoteModel.stream`: what is asked for, what came of it, and whether that is what was asked for."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentkit.events import Notice, TextDelta, ToolCallProposed
from agentkit.llm.openai import request as form
from agentkit.llm.openai.answer import Answer, CallDraft
from agentkit.llm.openai.checks import Invalid, check_answer, check_calls, correction
from agentkit.llm.protocol import ModelEvent
from agentkit.messages import Completion, ToolCall, ToolChoice, ToolSpec, Usage
from agentkit.settings import SamplingSettings

_FILTERED = "content_filter"

Problem = tuple[str, list[dict[str, Any]]]
"""What is wrong with an answer, and the messages that tell the model."""


@dataclass(slots=True)
class Task:
    """One call of `stream`: what is asked for, and what has come of it so far."""

    messages: list[dict[str, Any]]
    specs: list[ToolSpec]
    choice: ToolChoice
    forced: list[ToolSpec]
    """The tools of which one must be called."""
    parallel: bool
    schema: dict[str, Any] | None
    choices: Sequence[str]
    sampling: SamplingSettings
    cancel: threading.Event | None
    said: str = ""
    """Exactly what was yielded as text."""
    usage: Usage = field(default_factory=Usage)

    @property
    def allowed(self) -> list[ToolSpec]:
        """The tools that may be called."""
        return [] if self.choice == "none" else self.forced or self.specs

    @property
    def held(self) -> bool:
        """Whether text waits until it is checked; what was yielded cannot be taken back."""
        return self.schema is not None or bool(self.forced)


def settle(task: Task, answer: Answer, text: str) -> Generator[ModelEvent, None, Problem | None]:
    """End the stream with what came; or return what is wrong with it, and nothing of it was yielded."""
    drafts = yield from _drafts(task, answer)
    checked = check_calls(drafts, task.allowed)
    if checked.calls and not checked.problem:
        ended = answer.finish != "length" or answer.calls[-1].is_whole()
        yield from _calls(task, text, checked.calls, cut=not ended)
        return None
    if answer.refused or answer.finish == _FILTERED:  # asked again, it would be the same
        yield from _withheld(task, answer, text)
        return None
    if checked.problem:
        return checked.problem, correction(drafts, checked, text)
    if not answer.calls:  # a call that was cut is told already
        if task.forced:
            names = ", ".join(spec.name for spec in task.forced)
            return "no tool was called", form.reply(text, f"Call one of these functions now: {names}.")
        if task.schema is not None:
            try:
                yield from _formed(task, text, task.schema)
            except Invalid as invalid:
                cut = (
                    f", cut after {task.sampling.max_new_tokens} tokens" if answer.finish == "length" else ""
                )
                complaint = f"{invalid}{cut}"
                return complaint, form.reply(text, f"{complaint}. {form.in_words(task.schema)}")
    yield from _ending(task, answer)
    return None


def _drafts(task: Task, answer: Answer) -> Generator[Notice, None, list[CallDraft]]:
    """The calls to be checked: without one that was cut, and without more than were asked for."""
    drafts = answer.calls
    if answer.finish == "length" and drafts and not drafts[-1].is_whole():
        drafts = drafts[:-1]
        cause = f"the call did not fit into {task.sampling.max_new_tokens} tokens and was dropped"
        yield Notice("call_cut", f"{cause}; raise max_new_tokens")
    if len(drafts) > 1 and not task.parallel:
        yield Notice("extra_calls", f"{len(drafts) - 1} more calls came than one and were dropped")
        drafts = drafts[:1]
    return drafts


def _calls(task: Task, text: str, calls: tuple[ToolCall, ...], *, cut: bool) -> Iterator[ModelEvent]:
    if task.held and text:
        task.said = text
        yield TextDelta(text)
    for call in calls:
        yield ToolCallProposed(call)
    yield Completion(task.said, calls, task.usage, "length" if cut else "tool_calls")


def _formed(task: Task, text: str, schema: dict[str, Any]) -> Iterator[TextDelta]:
    """The text that had to be JSON, or the choice in it."""
    value = check_answer(text, schema)
    task.said = value[form.CHOICE] if task.choices else text
    yield TextDelta(task.said)


def _withheld(task: Task, answer: Answer, text: str) -> Iterator[ModelEvent]:
    """The model refused, or the server's filter ended the answer: what had to be checked is no answer then."""
    if answer.refused:
        yield Notice("refused", "the model refused to answer; its reason is the text")
        if task.held and text:
            task.said = text
            yield TextDelta(text)
    else:
        yield Notice("filtered", "the server's content filter ended the answer")
    yield Completion(task.said, (), task.usage, "stop")


def _ending(task: Task, answer: Answer) -> Iterator[ModelEvent]:
    if answer.finish == "length":
        count = answer.completion_tokens or task.sampling.max_new_tokens
        yield Notice("truncated", f"the answer was cut after {count} tokens")
    elif not task.said:
        yield Notice("empty", "the model gave neither text nor a call")
    yield Completion(task.said, (), task.usage, "length" if answer.finish == "length" else "stop")
