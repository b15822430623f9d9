"""What becomes of chats before a run: personal data replaced, copies left out, each given its split."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentkit.errors import UsageError
from agentkit.messages import Message, ToolSpec
from agentkit.training.checks import check_chat
from agentkit.training.data import EXAMPLES, SPLITS, Example, Split
from agentkit.training.personal import Redactor, Value, conversation_of, house_values, normal
from agentkit.training.report import DataReport

MIN_CHATS = 2
MIN_TO_HOLD_OUT = 10
"""Of fewer chats none is held out: what is left would teach too little."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Chats from sessions."""

    examples: list[Example]
    skipped: tuple[str, ...]
    """Id and reason of each session that cannot be learned from."""
    house: frozenset[Value]
    """Contacts that stand in the knowledge base's passages: the house's own, nobody's personal data."""


def prepare(
    examples: Sequence[Example],
    *,
    shares: Mapping[Split, float],
    keep_personal_data: bool = False,
    house: Iterable[Value] = (),
    skipped: Sequence[str] = (),
) -> tuple[list[Example], DataReport]:
    """Redact, leave out copies, split by conversation.

    Args:
        examples: As `load_chats` gives them; a split that an example already has stays.
        shares: Of ``validation`` and ``test``; the rest is learned.
        keep_personal_data: Leave e-mail addresses and the like as they are.
        house: Values that are the house's own, besides those found in the chats.
        skipped: Goes into the report.

    Raises:
        UsageError: Fewer than two different chats are left, or none to learn from.
    """
    kept = frozenset(house) | house_values([example.messages for example in examples])
    unique: dict[str, Example] = {}
    places: dict[str, float] = {}
    counts: Counter[str] = Counter()
    unredactable = duplicates = 0
    for example in examples:
        redactor = Redactor(kept)
        clean = replace(example, messages=tuple(redactor.message(message) for message in example.messages))
        if redactor.counts and not keep_personal_data and not _is_valid(clean):
            unredactable += 1
            continue
        chosen = example if keep_personal_data else clean
        key = fingerprint(chosen)
        if key in unique:
            duplicates += 1
            continue
        unique[key] = chosen
        # Which contacts are the house's depends on all chats, a chat's place on what it says alone.
        places[key] = place_of(_bare(example) if kept else clean)
        counts += redactor.counts
    if len(unique) < MIN_CHATS:
        cause = f"{len(unique) or 'no'} usable chat{'s' * (len(unique) != 1)} in {len(examples)}"
        raise UsageError(
            _named(examples) + cause,
            f"at least {MIN_CHATS} different chats are needed; some dozen teach a tone",
        )
    splits = split(
        {key: places[key] for key in unique}, shares, {k: e.split for k, e in unique.items() if e.split}
    )
    ready = [replace(example, split=splits[key]) for key, example in unique.items()]
    by_split = Counter(example.split for example in ready)
    if not by_split["train"]:
        cause = _named(examples) + "no chat is left to learn from"
        raise UsageError(cause, "mark fewer as validation and test")
    personal = {} if keep_personal_data else dict(counts)
    sizes: dict[str, int] = {name: by_split[name] for name in SPLITS}
    return ready, DataReport(
        len(examples), duplicates, personal, unredactable, skipped=tuple(skipped), splits=sizes
    )


def _named(examples: Sequence[Example]) -> str:
    """The file that they are from, for an error's beginning; empty for chats of sessions."""
    file, found, _ = examples[0].origin.rpartition(", line ") if examples else ("", "", "")
    return f"{file}: " if found else ""


def _bare(example: Example) -> Example:
    """Without any contact, be it the house's."""
    redactor = Redactor()
    return replace(example, messages=tuple(map(redactor.message, example.messages)))


def split(
    places: Mapping[str, float], shares: Mapping[Split, float], given: Mapping[str, Split]
) -> dict[str, Split]:
    """The split of each chat, by its place between 0 and 1 alone: more chats move none from one split to another.

    The one exception: of ten chats or more, a split that would be empty, or take all, gets what is nearest to it, which
    may return to the training data when others come. Chats of one place, a session and its forks, are never parted:
    where more than half of what is left are of one, it goes on to be learned, and a split may stay empty.

    Args:
        places: Of each chat, by `place_of`.
        shares: Of ``validation`` and ``test``.
        given: Splits that are fixed; where there are some, only they hold out anything.
    """
    found: dict[str, Split] = {key: given.get(key, "train") for key in places}
    if given or len(places) < MIN_TO_HOLD_OUT:
        return found
    for name in ("test", "validation"):
        share = shares.get(name, 0.0)
        # From both ends, so that a change of one share leaves the other split as it is.
        distance = {
            key: place if name == "test" else 1 - place
            for key, place in places.items()
            if found[key] == "train"
        }
        within = [key for key, far in distance.items() if far < share]
        if share and len(within) in (0, len(distance)):
            sizes = Counter(distance.values())
            nearest = min((far for far, size in sizes.items() if 2 * size <= len(distance)), default=None)
            within = [key for key, far in distance.items() if far == nearest]
        found |= dict.fromkeys(within, name)
    return found


def fingerprint(example: Example) -> str:
    """Equal for chats that say the same, but for spaces and capitals."""
    tools = sorted(json.dumps(_tool_to_json(tool), sort_keys=True) for tool in example.tools)
    return _hash([_said(example.messages), tools, example.describe_tools])


def place_of(example: Example) -> float:
    """A number in [0, 1) that depends on how the conversation begins, not on system prompt and tools: a log may have a
    line for every turn of it."""
    return place(example.key or conversation_of(example.messages))


def place(content: Any) -> float:
    """A number in [0, 1) that depends on a JSON value alone."""
    return int(_hash(content)[:13], 16) / 16**13


def to_lines(examples: Iterable[Example]) -> bytes:
    """JSONL that `load_chats` reads again as the same examples."""
    return b"".join(
        json.dumps(_to_json(example), ensure_ascii=False).encode() + b"\n" for example in examples
    )


def _to_json(example: Example) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": [message.to_openai() for message in example.messages]}
    if example.tools:
        body["tools"] = [_tool_to_json(tool) for tool in example.tools]
    if not example.describe_tools:
        body["describe_tools"] = False
    if example.keep:
        body["keep"] = True
    return body | ({"split": example.split} if example.split else {})


def _tool_to_json(tool: ToolSpec) -> dict[str, Any]:
    examples = [{"text": example.text, "arguments": example.arguments} for example in tool.examples]
    return tool.to_openai() | ({EXAMPLES: examples} if examples else {})


def _said(messages: Iterable[Message]) -> list[Any]:
    return [
        [
            m.role,
            normal(m.content),
            [[call.name, normal(json.dumps(call.arguments, sort_keys=True))] for call in m.tool_calls],
        ]
        for m in messages
    ]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _is_valid(example: Example) -> bool:
    try:
        check_chat(example.messages, example.tools)
    except UsageError:
        return False
    return True
