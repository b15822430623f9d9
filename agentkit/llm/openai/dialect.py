"""What a server takes of the protocol, learnt from what it refuses.

Only what a complaint itself says counts, never what it repeats of the request. A change is kept for later calls when
the request with it was accepted, and only where the complaint was about the server's knowledge, not about this call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agentkit.events import Notice
from agentkit.llm.openai import request as form
from agentkit.llm.openai.plain import plain
from agentkit.llm.openai.server import Refused
from agentkit.llm.openai.task import Task

_KNOWN = (400, 422)
"""Statuses with which servers refuse a field that they do not know."""
_COMPLAINTS = (*_KNOWN, 500, 501)
"""The same, and those with which some fail at it; but a server may fail at anything."""
_COMPLAINT_CHARS = 300
_REPEATED = re.compile(r"""['"]?\binput(?:_value)?\b['"]?\s*[:=]""")
"""What follows is the request, as pydantic repeats it."""
_RENAMED = "max_completion_tokens"
_UNANSWERED = re.compile(r"role ['\"]?user['\"]? after role ['\"]?tool\b")
"""Mistral's."""


@dataclass(slots=True)
class Dialect:
    """What a server turned out to take."""

    left_out: set[str] = field(default_factory=set)
    """Optional fields that it refuses."""
    form: int = 0
    """The form of ``response_format`` that it takes; see `agentkit.llm.openai.request.format_fields`."""
    renames: bool = False
    """It calls ``max_tokens`` by its newer name."""
    in_a_word: bool = False
    """It takes ``tool_choice`` as a word only, not the name of a tool."""
    answers: bool = False
    """It wants a word of the assistant between a tool's result and the user's next message."""
    silent: set[bool] = field(default_factory=set)
    """Whether it streams nothing where the model is free to call a tool, and where it is not."""

    def copy(self) -> Dialect:
        return replace(self, left_out=set(self.left_out), silent=set(self.silent))

    def learn(self, other: Dialect) -> None:
        """Add what another call found out; calls may run at once."""
        self.left_out |= other.left_out
        self.form = max(self.form, other.form)
        self.renames = self.renames or other.renames
        self.in_a_word = self.in_a_word or other.in_a_word
        self.answers = self.answers or other.answers
        self.silent |= other.silent


class Trial:
    """The requests of one call, each without what the server refused in those before.

    Args:
        known: What earlier calls found out; learns what this one finds out.
        task: What is asked for.
        name: Of the model, for messages.
    """

    def __init__(self, known: Dialect, task: Task, name: str) -> None:
        self._known, self._task, self._name = known, task, name
        self._now, self._lasting = known.copy(), known.copy()
        self._untold: list[Notice] = []

    def body(self, model: str | None) -> dict[str, Any]:
        """The request, as this server takes it."""
        task, now = self._task, self._now
        stream = self._free not in now.silent
        body = {
            "model": model,
            "messages": task.messages,
            "stream": stream,
            **({"stream_options": {"include_usage": True}} if stream else {}),
            **form.sampling_fields(task.sampling),
            **form.tool_fields(task.specs, task.choice, task.forced, task.parallel, in_a_word=now.in_a_word),
            **form.format_fields(task.schema, now.form),
        }
        if now.renames:
            body[_RENAMED] = body.pop("max_tokens")
        if task.schema is not None and "response_format" not in body:
            body["messages"] = form.with_request(task.messages, task.schema)
        if now.answers:
            body["messages"] = form.answered(body["messages"])
        return {key: value for key, value in body.items() if key not in now.left_out}

    def refused(self, body: Mapping[str, Any], refused: Refused) -> bool:
        """Take a refusal into account; False where nothing can be done about it."""
        if refused.status not in _COMPLAINTS:
            return False
        told = complaints(refused.body)
        lasting = refused.status in _KNOWN
        if "response_format" in body and (about := _naming("response_format", told)):
            self._now.form = 1 if body["response_format"]["type"] == "json_schema" else 2
            if lasting and not re.search(
                r"\bschema\b", about
            ):  # else the complaint is about this very schema
                self._lasting.form = self._now.form
            return self._tell("this response_format: it is told in another form")
        if "max_tokens" in body and _naming(_RENAMED, told):
            self._now.renames = True
            self._lasting.renames = self._lasting.renames or lasting
            return self._tell(f"max_tokens: it is called {_RENAMED}")
        if isinstance(body.get("tool_choice"), dict) and _naming("tool_choice", told):
            self._now.in_a_word = True
            self._lasting.in_a_word = self._lasting.in_a_word or lasting
            return self._tell("a tool_choice that names a tool: it is offered alone, and required")
        if not self._now.answers and any(map(_UNANSWERED.search, told)):
            self._now.answers = self._lasting.answers = True
            return self._tell("a message behind a tool's result: a word of the assistant goes between")
        field = next((name for name in form.OPTIONAL if name in body and _naming(name, told)), None)
        if field is None:
            return False
        self._now.left_out.add(field)
        if lasting:
            self._lasting.left_out.add(field)
        return self._tell(f"{field}: it is left out")

    def silent(self, body: Mapping[str, Any]) -> bool:
        """Ask for the whole answer at once next; False where that was done."""
        if not body["stream"]:
            return False
        # llama-cpp-python streams no call that its model is free to make, and dies of being asked
        for dialect in (self._now, self._lasting):
            dialect.silent.add(self._free)
        cause = f"{self._name} streamed nothing: asked for the whole answer at once"
        self._untold.append(Notice("unsupported", cause))
        return True

    def accepted(self) -> Iterator[Notice]:
        """The request was taken: what it went without is kept, and told once."""
        self._known.learn(self._lasting)
        while self._untold:
            yield self._untold.pop(0)

    @property
    def _free(self) -> bool:
        """Whether the model decides whether to call a tool."""
        return bool(self._task.specs) and self._task.choice == "auto"

    def _tell(self, what: str) -> bool:
        self._untold.append(Notice("unsupported", f"{self._name} does not take {what}"))
        return True


def complaints(body: str) -> list[str]:
    """What an error says and the places it names, without what it repeats of the request."""
    try:
        told = list(_told(json.loads(body)))
    except (ValueError, RecursionError):
        told = [body[: 4 * _COMPLAINT_CHARS]]
    return [_REPEATED.split(plain(text), maxsplit=1)[0][:_COMPLAINT_CHARS] for text in told]


def _told(error: Any) -> Iterator[str]:
    if isinstance(error, str):
        yield error
    elif isinstance(error, list):
        for each in error:
            yield from _told(each)
    elif isinstance(error, Mapping):
        said = [text for key in ("error", "message", "detail", "msg") for text in _told(error.get(key))]
        place = error.get("loc")
        if isinstance(place, list):  # FastAPI's form
            yield f"{'.'.join(map(str, place))}: {' '.join(said)}"
        elif isinstance(param := error.get("param"), str):  # OpenAI's
            yield f"{param}: {' '.join(said)}"
        else:
            yield from said


def _naming(field: str, told: list[str]) -> str:
    """The complaint that names a field, if one does."""
    return next((text for text in told if re.search(rf"(?<![\w-]){field}(?![\w-])", text)), "")
