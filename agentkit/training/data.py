"""Chats from a JSONL file, as token ids and labels. Nothing is silently cut, repaired or skipped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from agentkit.errors import AgentkitError, TrainingError, UsageError
from agentkit.messages import Message, ToolExample, ToolSpec
from agentkit.training.checks import check_chat
from agentkit.training.reading import read_objects

if TYPE_CHECKING:
    from agentkit.llm.encoding import ChatEncoder

IGNORED = -100
"""Label of a token that is no assistant's: the index that cross entropy leaves out."""
Split = Literal["train", "validation", "test"]
"""What a chat is for: to learn from, to watch the training by, or to judge its result by."""
SPLITS: tuple[Split, ...] = get_args(Split)
EXAMPLES = "x-examples"
"""Key of a tool in a line, beside ``function``."""
FORM = 'write one {"messages": [{"role": …, "content": …}, …]} a line'


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation to learn from."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    origin: str = ""
    """File and line, for messages to the user."""
    describe_tools: bool = True
    """Whether the model reads the tools in its system prompt. Where a router chose the tool and the turn itself
    describes it, they are only there to check the calls against."""
    split: Split | None = None
    """What the chat is for; ``None`` leaves it to `prepare`."""
    keep: bool = False
    """Whether what is learned is how likely each token was to the untuned model, not the text itself: a model that
    learns something new is kept from changing here (learning without forgetting, arXiv:1606.09282)."""
    key: str = ""
    """What `prepare` goes by instead of the content: of a session, which may grow, its id."""


@dataclass(frozen=True, slots=True)
class Row:
    """One conversation as the model reads it."""

    ids: list[int]
    labels: list[int]
    """As long as ``ids``: the id where an assistant wrote it, else `IGNORED`."""
    split: Split = "train"
    weight: float = 1.0
    """Of each of its labels in the loss."""
    keep: bool = False
    """As of its example."""
    example: Example | None = field(default=None, repr=False, compare=False)
    """What it was made from."""


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

    A line may also say ``"describe_tools": false``, ``"keep": true`` and ``"split": "train" | "validation" | "test"``.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A line cannot be used; names file and line.
    """
    examples = [_example(body, origin) for origin, body in read_objects(path, "chats, as JSONL", FORM)]
    if not examples:
        raise UsageError(f"{path} is empty", FORM)
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
        row = encode_one(example, encoder, context_length, system=system)
        if row is None:
            cut += 1
            continue
        rows.setdefault(tuple(row.ids), row)
    if not rows:
        cause = f"none of the {len(examples)} examples fits into {context_length} tokens"
        raise TrainingError(cause, "shorten the chats, or raise max_length if the model allows it")
    kept = list(rows.values())
    learned = sum(label != IGNORED for row in kept for label in row.labels)
    tokens = sum(len(row.ids) for row in kept)
    return kept, Report(len(kept), len(examples) - cut - len(kept), cut, tokens, learned)


def encode_one(
    example: Example, encoder: ChatEncoder, context_length: int, *, system: str = ""
) -> Row | None:
    """One row, as `encode` makes it; ``None`` where part of what the assistant said would not fit."""
    row = _row(example, encoder, system)
    spoken = [n for n, label in enumerate(row.labels) if label != IGNORED]
    if not spoken or spoken[-1] >= context_length:
        return None
    return replace(row, ids=row.ids[:context_length], labels=row.labels[:context_length])


def _example(body: dict[str, Any], origin: str) -> Example:
    from agentkit.llm.options import read_tools

    messages, tools = body.get("messages"), body.get("tools") or []
    described, split, keep = body.get("describe_tools", True), body.get("split"), body.get("keep", False)
    if not isinstance(messages, list) or not messages:
        raise UsageError(f"{origin}: 'messages' is no list of messages", FORM)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise UsageError(f"{origin}: 'tools' is no list of tool schemas", "use the OpenAI form")
    if body.get("functions"):
        raise UsageError(f"{origin}: 'functions' are OpenAI's older form of tools", "write them as 'tools'")
    if not isinstance(described, bool):
        raise UsageError(f"{origin}: 'describe_tools' is neither true nor false", "leave it out for true")
    if not isinstance(keep, bool):
        raise UsageError(f"{origin}: 'keep' is neither true nor false", "leave it out for false")
    if split is not None and split not in SPLITS:
        raise UsageError(
            f"{origin}: unknown split {split!r}", f"use one of {', '.join(SPLITS)}, or leave it out"
        )
    try:
        read = tuple(_message(raw, f"message {number}") for number, raw in enumerate(messages, 1))
        for number, (message, raw) in enumerate(zip(read, messages, strict=True), 1):
            _check_message(message, raw, f"message {number}")
        specs = tuple(
            replace(spec, examples=_examples(tool))
            for spec, tool in zip(read_tools(tools), tools, strict=True)
        )
        check_chat(read, specs)
    except UsageError as error:
        raise UsageError(f"{origin}: {error.cause}", error.remedy) from error
    except (AttributeError, TypeError) as error:
        raise UsageError(f"{origin}: a message cannot be read ({error})", "use the OpenAI form") from error
    return Example(read, specs, origin, described, split, keep)


def _check_message(message: Message, body: dict[str, Any], where: str) -> None:
    """Refuse what would be learned otherwise than it is meant, or could not be stored.

    Args:
        message: As it was read.
        body: As it stands in the file.
        where: For the message to the user.
    """
    if message.role == "assistant" and body.get("weight", 1) not in (None, 1):
        cause = f"{where} has the weight {body['weight']!r}, but all that an assistant says is learned alike"
        raise UsageError(cause, "leave the chat out, or take the weight away")
    if body.get("function_call"):
        raise UsageError(f"{where} has a function_call, OpenAI's older form", "write it as tool_calls")
    if message.role == "assistant" and not message.content.strip() and not message.tool_calls:
        cause = f"{where}: the assistant says nothing, and that is what would be learned"
        raise UsageError(cause, "leave that message out")
    content = body.get("content")
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict) or "text" not in part:
            kind = part.get("type") if isinstance(part, dict) else part
            raise UsageError(
                f"{where} has a part that is no text ({kind!r})", "leave the chat out, or that part"
            )
    for call in message.tool_calls:
        try:
            json.dumps(call.arguments, ensure_ascii=False).encode()  # JSON can spell half a character: \ud800
        except UnicodeError as error:
            cause = f"{where}: the arguments of {call.name} are not UTF-8: they hold half a character"
            raise UsageError(cause, "write it as a whole one") from error


def _message(raw: Any, where: str) -> Message:
    try:
        return Message.from_openai(raw)
    except UsageError as error:
        raise UsageError(f"{where}: {error.cause}", error.remedy) from error


def _examples(tool: dict[str, Any]) -> tuple[ToolExample, ...]:
    """agentkit's own addition to a tool: turns that call it, which stand in the system prompt beside the schema."""
    listed = tool.get(EXAMPLES, [])
    try:
        found = tuple(ToolExample(example["text"], example["arguments"]) for example in listed)
        if not all(isinstance(one.text, str) and isinstance(one.arguments, dict) for one in found):
            raise TypeError("text and arguments expected")
    except (KeyError, TypeError) as error:
        remedy = "write {'text': …, 'arguments': {…}}"
        raise UsageError(f"the {EXAMPLES!r} of a tool cannot be read ({error})", remedy) from error
    return found


def _row(example: Example, encoder: ChatEncoder, system: str) -> Row:
    messages = list(example.messages)
    if system and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    tools = example.tools if example.describe_tools else ()
    try:
        encoded = encoder.encode(messages, tools, generation_prompt=False)
    except AgentkitError as error:
        raise UsageError(f"{example.origin}: {error.cause}", error.remedy) from error
    labels = [token if own else IGNORED for token, own in zip(encoded.ids, encoded.assistant, strict=True)]
    return Row(encoded.ids, labels, example.split or "train", keep=example.keep, example=example)
