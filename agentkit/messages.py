"""Plain data that every layer shares: messages, tool calls and results, passages, usage, replies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from agentkit.errors import UsageError

Role = Literal["system", "user", "assistant", "tool"]
ToolChoice = Literal["auto", "none", "required"] | Mapping[str, str]
"""When the model may call a tool; ``{"name": ...}`` forces one tool."""

ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A complete, schema-valid call proposed by the model."""

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool returned. Failure is a value: ``ok`` is false and ``error`` says why."""

    call_id: str
    name: str
    ok: bool
    value: Any = None
    error: str | None = None
    seconds: float = 0.0
    truncated: bool = False
    """The value or the error was longer than the tool's output limit, or than the context had room for, and was cut."""

    def content(self) -> str:
        """The result as the model reads it: one line of JSON."""
        body = {"result": self.value} if self.ok else {"error": self.error}
        return json.dumps(body, ensure_ascii=False)

    def to_json(self) -> dict[str, Any]:
        """``{"ok", "value", "error", "seconds"}``, the form of `agentkit tools call --json`."""
        return {"ok": self.ok, "value": self.value, "error": self.error, "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a model needs to know of a tool. No code, so every layer may hold one."""

    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema (an object) of the arguments."""
    examples: tuple[ToolExample, ...] = ()
    """Turns that call this tool and the arguments they lead to: evidence for routing and few-shot prompts."""

    @property
    def schema(self) -> dict[str, Any]:
        """``parameters`` without agentkit's own ``x-`` keys, in the form of draft 2020-12."""
        bare: dict[str, Any] = _bare(self.parameters)
        return bare

    def to_openai(self) -> dict[str, Any]:
        """The OpenAI tool form ``{"type": "function", "function": {...}}``."""
        function = {"name": self.name, "description": self.description, "parameters": self.schema}
        return {"type": "function", "function": function}


def _bare(node: Any) -> Any:
    if isinstance(node, dict):
        return _of_today(
            {key: _bare_part(key, value) for key, value in node.items() if not key.startswith("x-")}
        )
    return [_bare(item) for item in node] if isinstance(node, list) else node


def _of_today(schema: dict[str, Any]) -> dict[str, Any]:
    """Tuples as draft 7 writes them and limits as draft 4 and OpenAPI 3.0 do: many tools still come so."""
    if isinstance(schema.get("items"), list):
        schema["prefixItems"] = schema.pop("items")
        if "additionalItems" in schema:
            schema["items"] = schema.pop("additionalItems")
    for limit, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(schema.get(exclusive), bool) and schema.pop(exclusive) and limit in schema:
            schema[exclusive] = schema.pop(limit)
    return schema


def _bare_part(key: str, value: Any) -> Any:
    if key in ("properties", "patternProperties", "$defs", "definitions") and isinstance(value, dict):
        return {name: _bare(child) for name, child in value.items()}  # these keys are names, "x-axis" too
    return value if key in ("const", "enum", "default", "examples") else _bare(value)


@dataclass(frozen=True, slots=True)
class ToolExample:
    """One user turn and the arguments a correct call for it has."""

    text: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls made by an assistant message."""
    tool_call_id: str | None = None
    """For a tool message: the call it answers."""
    name: str | None = None
    """For a tool message: the tool."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Kept in the store, never shown to the model (citations, usage, passages)."""

    def to_openai(self) -> dict[str, Any]:
        """The OpenAI chat form; arguments are a JSON string there."""
        body: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            body["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": json.dumps(call.arguments, ensure_ascii=False),
                    },
                }
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            body["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            body["name"] = self.name
        return body

    @classmethod
    def from_openai(cls, body: Mapping[str, Any] | Message) -> Message:
        """Read the OpenAI chat form; arguments may be a JSON string (OpenAI) or an object (TRL).

        Raises:
            UsageError: The role is unknown, or content or arguments are of the wrong kind.
        """
        if isinstance(body, Message):
            return body
        if not isinstance(body, Mapping):
            raise UsageError(
                f"a message must be an object, not {type(body).__name__}", "use {'role', 'content'}"
            )
        role = body.get("role")
        if role not in ROLES:
            raise UsageError(f"unknown message role {role!r}", f"use one of {', '.join(ROLES)}")
        content = body.get("content")
        if isinstance(content, Sequence) and not isinstance(content, str):
            content = "".join(map(_text_of, content))
        if content is not None and not isinstance(content, str):
            raise UsageError(f"message content must be text, not {type(content).__name__}", "pass a string")
        written = body.get("tool_calls") or ()
        if not isinstance(written, Sequence) or isinstance(written, str):
            raise UsageError(
                f"tool_calls must be a list, not {type(written).__name__}", "pass a list of calls"
            )
        for key in ("tool_call_id", "name"):
            if not isinstance(body.get(key), str | None):
                raise UsageError(f"a message's {key} must be text, not {body[key]!r}", "pass a string")
        calls = tuple(_call_from_openai(call, n) for n, call in enumerate(written))
        return cls(role, content or "", calls, body.get("tool_call_id"), body.get("name"))


def _text_of(part: Any) -> str:
    """The text of one part of a content: nothing else can be read, and nothing may be passed over."""
    if isinstance(part, str):
        return part
    kind = part.get("type", "text") if isinstance(part, Mapping) else None
    if kind in ("text", "refusal") and isinstance(part.get(kind), str):  # the latter is how a model declined
        return str(part[kind])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise UsageError(f"message content has a part of type {kind!r} that cannot be read", "pass text only")


def no_json(word: str) -> Any:
    """Python's reader takes NaN and Infinity, which are no JSON."""
    raise ValueError(f"{word} is no JSON")


def _call_from_openai(body: Any, position: int) -> ToolCall:
    try:
        function = body.get("function", body)
        arguments = function.get("arguments") or {}
        if isinstance(arguments, str):
            arguments = json.loads(arguments, parse_constant=no_json)
        if not isinstance(arguments, dict):
            raise TypeError("arguments must be an object")
        return ToolCall(str(body.get("id") or f"call_{position}"), str(function["name"]), arguments)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        remedy = "use {'function': {'name', 'arguments'}} with a JSON object as arguments"
        raise UsageError(f"tool call {position} of a message cannot be read ({error})", remedy) from error


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document that retrieval found."""

    id: int
    document: str
    """Path within the knowledge base, with forward slashes."""
    heading: str
    """Heading path, joined by `` > ``; the title alone for text above the first heading."""
    text: str
    score: float
    """Cosine similarity of query and passage, -1 to 1."""
    page: int | None = None
    start: int = 0
    """First character of the passage in the document's extracted text."""
    end: int = 0
    pages: tuple[tuple[int, int], ...] = ()
    """Of a passage put together from several chunks: where each begins, and its page."""
    chunks: tuple[int, ...] = ()
    """Of such a passage: their ids, in the order of the text; ``id`` is that of the best."""

    def page_at(self, offset: int) -> int | None:
        """The page on which character ``offset`` of the document stands, as far as chunks tell."""
        found = [page for start, page in self.pages if start <= offset]
        return found[-1] if found else self.page

    def to_json(self) -> dict[str, Any]:
        """The form of `agentkit knowledge search --json`."""
        return {
            "document": self.document,
            "heading": self.heading,
            "page": self.page,
            "text": self.text,
            "score": round(self.score, 4),
            "start": self.start,
            "end": self.end,
        }


@dataclass(frozen=True, slots=True)
class Citation:
    """The tie between a sentence of an answer and the passage that supports it."""

    number: int
    """Footnote number in the reply's text, from 1."""
    document: str
    heading: str
    page: int | None
    quote: str
    """The sentence of the passage that supports the answer."""
    score: float
    """Support of the answer's sentence by the passage, 0 to 1; 1 where the sentence is the quote."""
    start: int = 0
    """First character of the quote in the document's extracted text; of a list's line or a table's row without the
    lead-in and the column names that the quote repeats."""
    end: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a turn or a completion cost. Sums with ``+``; ``ttft_s`` is that of the first part."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens whose keys and values were already in the cache."""
    completion_tokens: int = 0
    forward_passes: int = 0
    ttft_s: float = 0.0
    """Seconds to the first token."""
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.forward_passes + other.forward_passes,
            self.ttft_s or other.ttft_s,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a model: text, or calls, never both halves of a broken call."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    usage: Usage
    finish_reason: Literal["stop", "length", "tool_calls", "cancelled"]


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of one turn."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_results: tuple[ToolResult, ...] = ()
    citations: tuple[Citation, ...] = ()
    notices: tuple[str, ...] = ()
    usage: Usage = Usage()
    session: str = ""

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON values."""
        return asdict(self)
