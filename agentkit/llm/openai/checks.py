"""Calls and answers are checked here. What does not pass is never yielded, and so never run."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agentkit.errors import SchemaError
from agentkit.llm.checkable import fault
from agentkit.llm.openai.answer import CallDraft
from agentkit.llm.openai.plain import plain
from agentkit.llm.strict import TooLarge, read_json
from agentkit.llm.validator import validator_class
from agentkit.messages import ToolCall, ToolSpec

_SHOWN = 400
"""Characters of a wrong answer that its correction repeats."""
_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]+")
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


class Invalid(Exception):
    """A call or an answer does not pass; the message is for the model as well as for people."""

    def __init__(self, message: str) -> None:
        super().__init__(plain(message))


@dataclass(frozen=True, slots=True)
class Checked:
    """One answer's calls."""

    calls: tuple[ToolCall, ...]
    problems: tuple[str, ...]
    """One for each draft, empty where it is right."""

    @property
    def problem(self) -> str:
        """The first thing that is wrong, or nothing."""
        return next((problem for problem in self.problems if problem), "")


def check_calls(drafts: Sequence[CallDraft], specs: Sequence[ToolSpec]) -> Checked:
    """Validate every call against the tools that may be called."""
    calls: list[ToolCall] = []
    problems: list[str] = []
    for draft in drafts:
        try:
            arguments = _arguments(draft, specs)
        except Invalid as invalid:
            problems.append(str(invalid))
            continue
        problems.append("")
        known = {call.id for call in calls}
        usable = _ID.fullmatch(draft.id) and draft.id not in known
        calls.append(ToolCall(draft.id if usable else new_id(), draft.name, arguments))
    return Checked(tuple(calls), tuple(problems))


def _arguments(draft: CallDraft, specs: Sequence[ToolSpec]) -> dict[str, Any]:
    spec = next((spec for spec in specs if spec.name == draft.name), None)
    if spec is None:
        offered = ", ".join(spec.name for spec in specs)
        name = _shown(draft.name) or "(no name)"
        if not offered:
            raise Invalid(f"{name} was called, but no tool may be called now: answer in words")
        raise Invalid(f"there is no tool {name}; the tools are: {offered}")
    arguments = _json(draft.arguments or "{}", f"the arguments of {spec.name}")
    if not isinstance(arguments, dict):
        raise Invalid(f"the arguments of {spec.name} are no JSON object")
    _fits(arguments, spec.schema, f"the arguments of {spec.name} do not fit its schema")
    return arguments


def check_answer(text: str, schema: Mapping[str, Any]) -> Any:
    """The value of an answer that must be JSON.

    Raises:
        Invalid: It is none, or does not fit the schema.
    """
    value = _json(text, "the answer")
    _fits(value, schema, "the answer does not fit its schema")
    return value


def check_schema(schema: Mapping[str, Any], owner: str, *, arguments: bool = False) -> None:
    """Refuse a schema that cannot be sent, or that nothing could ever be checked against.

    Args:
        schema: Of a tool's arguments, or of an answer.
        owner: Whose it is, for the message.
        arguments: It is that of a tool's arguments, which are an object.

    Raises:
        SchemaError: Names the owner and the place in its schema.
    """
    try:
        found = _schema_fault(json.dumps(schema, allow_nan=False), arguments)
    except RecursionError as error:
        raise SchemaError(f"{owner}: the schema at # is nested too deeply", "simplify it") from error
    except (TypeError, ValueError) as error:
        raise SchemaError(f"{owner}: its schema is no JSON ({error})", "use plain JSON values") from error
    if found:
        raise SchemaError(f"{owner}: {found}", "write JSON schema")


@lru_cache(maxsize=256)
def _schema_fault(text: str, arguments: bool) -> str:
    """What is wrong with a schema, and where; nothing mostly, and asked for at every call."""
    import jsonschema

    schema = json.loads(text)
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        return f"#/{'/'.join(map(str, error.absolute_path))}: {_shown(error.message)}"
    found = fault(schema, arguments=arguments)
    return f"{_shown(found[0])}: {_shown(found[1])}" if found else ""


def correction(drafts: Sequence[CallDraft], checked: Checked, said: str) -> list[dict[str, Any]]:
    """The messages that answer wrong calls back to the model: its own, and a result for each call."""
    ids = [draft.id if _ID.fullmatch(draft.id) else new_id() for draft in drafts]  # some want their own form
    calls = [
        {
            "id": id,
            "type": "function",
            "function": {
                "name": _NO_NAME.sub("_", draft.name)[:64] or "unknown",
                # Templates and servers parse it, so what is no object must not be repeated as one.
                "arguments": draft.arguments if draft.is_whole() and len(draft.arguments) < _SHOWN else "{}",
            },
        }
        for id, draft in zip(ids, drafts, strict=True)
    ]
    messages: list[dict[str, Any]] = [{"role": "assistant", "content": said, "tool_calls": calls}]
    for id, call, draft, problem in zip(ids, calls, drafts, checked.problems, strict=True):
        error = f"not run: {problem}" if problem else "not run, because another call was wrong: call it again"
        content: dict[str, str] = {"error": error}
        if problem and call["function"]["arguments"] != draft.arguments:  # type: ignore[index]
            content["arguments"] = _shown(draft.arguments)
        body = {"role": "tool", "tool_call_id": id, "content": json.dumps(content, ensure_ascii=False)}
        messages.append(body)
    return messages


def new_id() -> str:
    """The id of a call that came with none, or with one that cannot be used."""
    return f"call_{uuid.uuid4().hex[:12]}"


def _json(text: str, what: str) -> Any:
    try:
        value = read_json(text)
        json.dumps(
            value, ensure_ascii=False, allow_nan=False
        ).encode()  # half a character could not be stored
    except TooLarge as error:
        raise Invalid(f"{what}: the number {error} is too large") from error
    except UnicodeEncodeError as error:
        raise Invalid(f"{what} hold half a character") from error
    except RecursionError as error:
        raise Invalid(f"{what}: nested too deeply") from error
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or error.msg.startswith(
            "Unterminated"
        ):  # not every server tells of it
            raise Invalid(f"{what} came to an end in the middle; max_new_tokens may be too few") from error
        raise Invalid(f"{what}: no JSON ({_shown(str(error))})") from error
    except ValueError as error:
        raise Invalid(f"{what}: no JSON ({_shown(str(error))})") from error
    if _depth(value) > _DEEPEST:
        raise Invalid(f"{what}: nested too deeply")
    return value


_DEEPEST = 100
"""Levels; what is deeper cannot be handed on as plain values, and no tool means it."""


def _depth(value: Any) -> int:
    level, found = [value], 0
    while level:
        found += 1
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
        ]
    return found


def _fits(value: Any, schema: Mapping[str, Any], complaint: str) -> None:
    import jsonschema
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    try:
        error = best_match(_validator(json.dumps(schema)).iter_errors(value))
    except (jsonschema.SchemaError, Unresolvable, re.error) as wrong:
        raise SchemaError(
            f"{complaint}, which cannot be read: {_shown(str(wrong))}", "write JSON schema"
        ) from wrong
    except RecursionError as wrong:
        raise Invalid(f"{complaint}: nested too deeply") from wrong
    if error is not None:
        place = "/".join(map(str, error.absolute_path))
        raise Invalid(f"{complaint}: {place + ': ' if place else ''}{_shown(error.message)}")


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    from referencing import Registry

    # An empty registry: a reference to another document is an error, not a download.
    return validator_class()(json.loads(schema), registry=Registry())


def _shown(text: str) -> str:
    """A text on one line, with its middle left out where it is long: what is wrong often stands at the end."""
    text = plain(text)
    half = _SHOWN // 2
    return text if len(text) <= _SHOWN else f"{text[:half]} … {text[-half:]}"
