"""Chats from a JSONL file, as token ids and labels. Nothing is silently cut, repaired or skipped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.errors import AgentkitError, NotFoundError, TrainingError, UsageError
from agentkit.messages import Message, ToolSpec

if TYPE_CHECKING:
    from agentkit.llm.encoding import ChatEncoder

IGNORED = -100
"""Label of a token that is no assistant's: the index that cross entropy leaves out."""
_FORM = 'write one {"messages": [{"role": …, "content": …}, …]} a line'


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation to learn from."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    origin: str = ""
    """File and line, for messages to the user."""


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation as the model reads it."""

    ids: list[int]
    labels: list[int]
    """As long as ``ids``: the id where an assistant wrote it, else `IGNORED`."""
    weight: float = 1.0
    """Of each of its labels in the loss."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the examples of a file."""

    count: int
    """Examples to learn from."""
    duplicates: int
    cut: int
    """Dropped, because part of what the assistant said would not fit."""
    tokens: int
    assistant_tokens: int
    """The tokens that are learned."""


def load_chats(path: Path) -> list[Example]:
    """Read ``{"messages": […], "tools"?: […]}``, one a line; tool arguments as JSON text or as an object.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A line cannot be used; names file and line.
    """
    if not path.is_file():
        raise NotFoundError(f"no such file: {path}", "name a JSONL file of chats")
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "check the file's rights") from error
    lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
    examples = [_example(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not examples:
        raise UsageError(f"{path} is empty", _FORM)
    return examples


def encode(
    examples: Sequence[Example], encoder: ChatEncoder, context_length: int, *, system: str = ""
) -> tuple[list[Row], Report]:
    """Render with the encoder that serves, so that training and serving see the same ids.

    Args:
        examples: As `load_chats` gives them.
        encoder: Of the model that is trained.
        context_length: Tokens per row, at most. What follows the assistant's last token may be cut.
        system: System prompt for chats that have none.

    Raises:
        UsageError: The model's template refuses a conversation; names its line.
        TrainingError: No example is left.
    """
    rows: dict[tuple[int, ...], Row] = {}
    cut = 0
    for example in examples:
        row = _row(example, encoder, system)
        spoken = [n for n, label in enumerate(row.labels) if label != IGNORED]
        if not spoken or spoken[-1] >= context_length:
            cut += 1
            continue
        rows.setdefault(tuple(row.ids), Row(row.ids[:context_length], row.labels[:context_length]))
    if not rows:
        cause = f"none of the {len(examples)} examples fits into {context_length} tokens"
        raise TrainingError(cause, "shorten the chats, or raise max_length if the model allows it")
    kept = list(rows.values())
    learned = sum(label != IGNORED for row in kept for label in row.labels)
    tokens = sum(len(row.ids) for row in kept)
    return kept, Report(len(kept), len(examples) - cut - len(kept), cut, tokens, learned)


def _example(line: bytes, origin: str) -> Example:
    from agentkit.llm.options import read_tools

    body = _parse(line, origin)
    messages, tools = body.get("messages"), body.get("tools") or []
    if not isinstance(messages, list) or not messages:
        raise UsageError(f"{origin}: 'messages' is no list of messages", _FORM)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise UsageError(f"{origin}: 'tools' is no list of tool schemas", "use the OpenAI form")
    try:
        example = Example(
            tuple(Message.from_openai(message) for message in messages), tuple(read_tools(tools)), origin
        )
    except UsageError as error:
        raise UsageError(f"{origin}: {error.cause}", error.remedy) from error
    except (AttributeError, TypeError) as error:
        raise UsageError(f"{origin}: a message cannot be read ({error})", "use the OpenAI form") from error
    if not any(m.role == "assistant" and (m.content.strip() or m.tool_calls) for m in example.messages):
        raise UsageError(f"{origin}: no assistant message", "each chat needs an answer to learn from")
    return example


def _parse(line: bytes, origin: str) -> dict[str, Any]:
    try:
        body = json.loads(line.decode("utf-8"))
        json.dumps(body, ensure_ascii=False).encode("utf-8")  # JSON can spell half a character: \ud800
    except UnicodeError as error:
        raise UsageError(f"{origin} is not UTF-8", "save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{origin} is not JSON ({error})", _FORM) from error
    if not isinstance(body, dict):
        raise UsageError(f"{origin} is no JSON object", _FORM)
    return body


def _row(example: Example, encoder: ChatEncoder, system: str) -> Row:
    messages = list(example.messages)
    if system and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    try:
        encoded = encoder.encode(messages, example.tools, generation_prompt=False)
    except AgentkitError as error:
        raise UsageError(f"{example.origin}: {error.cause}", error.remedy) from error
    labels = [token if own else IGNORED for token, own in zip(encoded.ids, encoded.assistant, strict=True)]
    return Row(encoded.ids, labels)
