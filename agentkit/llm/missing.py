"""Required arguments that nothing in the conversation supports: they are asked for, not invented."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from agentkit.events import Notice, TextDelta
from agentkit.llm.english import is_english
from agentkit.llm.fits import converted
from agentkit.llm.grounding import mentions
from agentkit.llm.named import named_in
from agentkit.llm.slots import Slot, slot_of, stems, text_kind
from agentkit.llm.spans import LIMIT, MONTH, Span, spans
from agentkit.messages import Completion, Message, ToolSpec, Usage

_RELATIVE = re.compile(
    r"\b(?:today|tonight|tomorrow|yesterday|now|noon|midnight|next|last|this|weekend"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)day|in (?:an?|\w+) (?:minute|hour|day|week|month|year)s?|o['’]clock"
    r"|(?:half|quarter) (?:past|to)|the \d{1,2}(?:st|nd|rd|th))\b"
    rf"|\b(?:{MONTH})\.? \d{{1,2}}(?:st|nd|rd|th)?\b|\b\d{{1,2}}(?:st|nd|rd|th)?(?: of)? (?:{MONTH})\b",
    re.I,
)
"""A day or a time is given, though not as a date."""
_WITHDRAWN = re.compile(
    r"\W*(?:(?:no|ok|okay|oh|sorry|please|thanks|thank you|actually)\b\W*)*"
    r"(?:never ?mind|forget (?:it|that|about it)|cancel|stop|leave it|don['’]t (?:bother|do (?:it|that))"
    r"|skip (?:it|that)|not now|nothing|no thanks?|(?:i(?:['’]ve| have)? )?changed my mind"
    r"|(?:i )?don['’]t want (?:it|that)(?: any ?more)?"
    r"|abbrechen|vergiss es|lass es|nein(?:,? danke)?)\b"
    r"(?:\W+(?:it|that|this|all|please|then|now|the|my|request|thanks?|thank|you|sorry)\b)*\W*$"
    r"|\W*(?:no|nope|thanks|thank you)(?:\W*(?:thanks|thank you))?\W*$|\W*never ?mind\b[^?]*$",
    re.I,
)
_UNKNOWN = re.compile(
    r"\b(?:do not|don.?t) (?:know|have)|\bno idea\b|\b(?:not|un)\s?sure\b"
    r"|\b(?:can.?t|cannot) (?:remember|recall|find)\b"
    r"|\bforg[eo]t(?:ten)?\b|\blost (?:it|the|my)\b|\bhave no\b|\bhaven.?t (?:got|any)\b"
    r"|^\W*(?:h+m+|uh+|um+|eh+|what|why|ok|okay|yes|yeah|hello|hi|none)\W*$",
    re.I,
)
_NOT_ASKED = {"default", "const", "enum", "anyOf", "oneOf", "allOf", "$ref"}
"""Where the schema itself offers a value, or leaves the type open, the model may choose."""
_REQUESTS = frozenset(
    stems("something anything thing someone job task request use run start begin call tool new")
)


_END = 1_000
"""Characters at the end of a turn that is longer than what is searched for spans."""
_QUESTION = "To do that I need to know: "


def words_for(tool: ToolSpec, turn: str, earlier: Iterable[Message]) -> tuple[str, list[str]]:
    """The words that a call's arguments are taken from, and the required parameters that nothing supports.

    Args:
        tool: To be called.
        turn: The user's turn; enough where it says everything.
        earlier: What was said before it; of that, users' turns and tools' results count.
    """
    if not missing_arguments(tool, turn):
        return turn, []
    said = [message.content for message in earlier if message.role in ("user", "tool")]
    words = "\n".join([turn, *reversed(said)])[:LIMIT]  # of several values that fit, the latest is meant
    missing = missing_arguments(tool, words)
    return (turn if missing else words), missing


def words_in(
    tool: ToolSpec, conversation: Sequence[Message], turn: str | None = None
) -> tuple[str, list[str]]:
    """`words_for` the last user's turn of a conversation; what answers a question is not asked for again.

    Args:
        tool: To be called.
        conversation: Ends with a user's turn, or with the results of calls that it led to, which count too.
        turn: The words of that turn, where they are not its own.
    """
    users = [n for n, message in enumerate(conversation) if message.role == "user"]
    last = users[-1] if users else 0
    results = [message for message in conversation[last + 1 :] if message.role == "tool"]
    earlier = [*conversation[:last], *results]
    words, missing = words_for(tool, going_on(conversation) if turn is None else turn, earlier)
    if missing and len(users) > 1 and _asks(conversation[last - 1]):
        before = conversation[:last]
        _, asked = words_for(tool, going_on(before), before[: users[-2]])
        missing = still_missing(tool, missing, asked, conversation[last].content)
    return words, missing


def still_missing(tool: ToolSpec, missing: Sequence[str], asked: Sequence[str], reply: str) -> list[str]:
    """What has to be asked for after a reply to the question for ``asked``.

    A reply in which nothing of it is recognised ("alice", "half past seven") is taken at its word, or the question
    would come again whatever is answered. Not so a question back, an "I don't know", and words for a number.
    """
    if set(missing) < set(asked) or reply.rstrip().endswith("?") or _UNKNOWN.search(reply):
        return list(missing)
    properties = tool.parameters.get("properties") or {}
    return [name for name in missing if properties[name].get("type") in ("number", "integer")]


def missing_arguments(tool: ToolSpec, said: str) -> list[str]:
    """The required parameters for which ``said`` holds nothing that could be their value.

    A number needs a number; a date, a time, an address or a path needs one of its kind; any other text needs a name,
    a quote, a code or a word that is not just the request itself ("What's the weather?" holds no city). Where no
    English is recognised, nothing is missing.
    """
    if not is_english(said[:LIMIT]):
        return []
    found = spans(said)
    if len(said) > LIMIT:  # whoever pastes a long text says at its end what is wanted
        found = [*found, *spans(said[-_END:])]
    parameters = tool.parameters
    own = {*stems(tool.name.replace("_", " ")), *stems(tool.description), *_REQUESTS}
    slots = [slot_of(name, child, True) for name, child in (parameters.get("properties") or {}).items()]
    for slot in slots:
        own |= slot.words | slot.about
    asked = [slot for slot in slots if slot.name in (parameters.get("required") or ())]
    asked = [slot for slot in asked if not _may_be_chosen(parameters["properties"][slot.name])]
    return [slot.name for slot in asked if not _supported(slot, found, said, own)]


def _may_be_chosen(schema: Any) -> bool:
    """Whether a parameter has a default, or a choice, or may be null."""
    if not isinstance(schema, Mapping) or "x-synonyms" in schema:
        return not isinstance(schema, Mapping)
    return bool(_NOT_ASKED & schema.keys()) or isinstance(schema.get("type"), list)


def is_withdrawn(answer: str) -> bool:
    """Whether the answer to a question takes the request back: "Never mind."."""
    return _WITHDRAWN.match(answer) is not None


def _supported(slot: Slot, found: Sequence[Span], said: str, own: set[str]) -> bool:
    schema: Mapping[str, Any] = slot.schema
    if "x-synonyms" in schema:
        return bool(mentions(schema["x-synonyms"], said))
    if slot.type not in ("string", "number", "integer"):
        return True
    if slot.type != "string":
        whole = slot.type == "integer"
        numbers = (converted(slot, span) for span in found if span.kind == "number")
        return any(not whole or float(number).is_integer() for number in numbers)
    if named_in(slot.choices, said, (0, len(said))):
        return True
    kind = text_kind(slot)
    if kind is not None:
        quoted = kind in ("path", "code")
        given = any(span.kind == kind or (quoted and span.kind == "quoted") for span in found)
        return given or (kind in ("date", "time") and _RELATIVE.search(said) is not None)
    return any(span.kind != "number" and _says_something(span, own) for span in found)


def _says_something(span: Span, own: set[str]) -> bool:
    if span.kind not in ("phrase", "name"):
        return True
    words = set(stems(span.text))
    if span.start == 0 and len(span.text.split()) == 1:
        return span.kind == "name" and span.text.isupper()  # mostly a verb
    return bool(words - own)


def ask_for(
    tool: ToolSpec, missing: Sequence[str], said: str = "", usage: Usage | None = None
) -> Iterator[Notice | TextDelta | Completion]:
    """The question in place of a call, as events; ``said`` is what the answer began with."""
    text = question(tool, missing)
    yield Notice(
        "missing_argument", f"{tool.name} waits for {', '.join(missing)}: nothing said so far gives it"
    )
    yield TextDelta(f"\n\n{text}" if said else text)
    yield Completion(f"{said}\n\n{text}" if said else text, (), usage or Usage(), "stop")


def question(tool: ToolSpec, missing: Sequence[str]) -> str:
    """Asks for the missing arguments in the words of their descriptions."""
    properties = tool.parameters.get("properties") or {}
    wanted = [_wanted(name, str(properties.get(name, {}).get("description", ""))) for name in missing]
    return f"{_QUESTION}{'; '.join(wanted)}."


def going_on(messages: Sequence[Message]) -> str:
    """The last user's turn; after a question of `ask_for`, with the turn that led to it."""
    turns = [n for n, message in enumerate(messages) if message.role == "user"]
    if not turns:
        return ""
    reply, asked = messages[turns[-1]].content, messages[turns[-1] - 1]
    if len(turns) < 2 or not _asks(asked) or is_withdrawn(reply):
        return reply
    return f"{going_on(messages[: turns[-1]])}\n{reply}"


def _asks(message: Message) -> bool:
    return message.role == "assistant" and _QUESTION in message.content


def _wanted(name: str, description: str) -> str:
    text = re.split(r"[.;](?:\s|$)|, e\.g\.| in the form | as a decimal", description.strip(), maxsplit=1)[
        0
    ].strip()
    if not text:
        return name.replace("_", " ")
    return text if text[:2].isupper() else text[0].lower() + text[1:]
