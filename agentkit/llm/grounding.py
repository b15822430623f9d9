"""Arguments that come from the conversation: what a tool's parameters may be filled with in this turn.

A small model garbles what it should copy and fills what nobody asked for. So the grammar offers it the turn's own
material. What a parameter takes is learnt from the tool's examples:

- a value that stands word for word in its turn is *copied*: a text set off by quotation marks or a colon, a file
  name, a word after a cue ("call it …"), an enumeration ("billing, shipping or returns"), or any run of words;
- a property with ``x-synonyms`` takes a value one of whose names is mentioned ("in French" offers ``fr``);
- an optional number is offered the numbers of the turn, and left out where there are none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from agentkit.errors import SchemaError
from agentkit.llm.english import is_small
from agentkit.llm.validator import validator_class
from agentkit.messages import ToolSpec

PATH = re.compile(r"(?<![\w./\\~-])[\w./\\~-]*\w\.[A-Za-z0-9]{2,5}\b")
"""A file name with a suffix, and the folders before it. Begins only where a run of such characters begins: looking
for it in a long word must not take quadratic time."""
IMAGE_LINE = "Image: "
"""Begins the line that names a message's picture."""

_REQUEST = 2_000
"""Characters in which numbers, cues and enumerations are looked for: the beginning says what is wanted."""
_OFFERS = 256
"""Values or pieces that one parameter is offered; llguidance refuses grammars of thousands of alternatives."""
_LONG = 20_000
"""A longer turn is material as a whole: quotation marks within it set nothing off."""

QUOTED = re.compile(
    r"„([^“”]+)[“”]|»([^«»]+)«|“([^”]+)”|«([^»]+)»|(?<!\d)\"([^\"]+)\""
    r"|(?<!\w)'((?:(?!(?<!\w)').){1,2000}?)(?<!s)'(?!\w)|(?<!\w)'(.{1,2000}?)'(?!\w)|‘(.{1,2000}?)’(?!\w)",
    re.DOTALL,
)
_AFTER_COLON = re.compile(r":\s+(\S.*)\Z", re.DOTALL)
_SUFFIX = re.compile(r"[^\s.]\.[A-Za-z0-9]{2,5}\Z")
_UNSAFE = re.compile(r"[\"\\\x00-\x1f]|\S{500,}")
"""What no run of words contains: characters that JSON escapes, and words of a length no grammar takes."""
_WORD_OR_NAME = r"[A-Z][\w.-]*(?: [A-Z][\w.-]*\w)+|[\w.-]*\w"
"""A word, or as many as begin with capitals: "New York"."""
_ITEM = r"[\w&/-]+(?: [\w&/-]+)?"
_OR_LIST = re.compile(rf"(?<![\w&/-])({_ITEM}(?:, {_ITEM})*),? (?:or|and) (?:an? )?({_ITEM})")
_BRACKETS = re.compile(r"[\[(]([^\])]+)[\])]")
_TOPIC_LIST = re.compile(r"(?<!\w)\w+: ([\w&/-]+(?:, [\w&/-]+)+)\.?\Z")
_NUMBER_WORDS = {"one": 1, "once": 1, "two": 2, "twice": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7,
                 "eight": 8, "nine": 9, "ten": 10, "twelve": 12, "twenty": 20}  # fmt: skip

DEFINITIONS = ("$defs", "definitions")
"""Where a schema keeps the parts that ``$ref`` points to."""

Kind = Literal["text", "path", "word", "list"]
Json = str | int | float | list[str]


@dataclass(frozen=True, slots=True)
class Source:
    """What one parameter may be filled with."""

    values: tuple[Json, ...] = ()
    """Whole values; with no values and no pieces the parameter is left out."""
    pieces: tuple[str, ...] = ()
    """Texts of which any run of whole words will do."""
    wanted: bool = False
    """The turn clearly gives this parameter, though it is optional."""
    is_list: bool = False
    """``pieces`` make the items of a list."""


def sources(tool: ToolSpec, turn: str) -> dict[str, Source]:
    """What ``turn`` offers the parameters of ``tool``; a parameter that is not a key is free.

    Without examples only ``x-synonyms`` are known for certain; see `agentkit.llm.evidence` for the rest.
    """
    required = set(tool.parameters.get("required", ()))
    kinds = copied_parameters(tool)
    material, request = _set_off(turn) if "text" in kinds.values() else ((), turn)
    request = request[:_REQUEST]
    found: dict[str, Source] = {}
    for name, schema in _properties(tool).items():
        source = None
        if "x-synonyms" in schema:
            named = mentions(schema["x-synonyms"], request)
            source = Source(named) if named else None
        elif name in kinds:
            source = _copied(kinds[name], tool, name, turn, material, request)
            if kinds[name] == "list" and name not in required and source is not None and not source.wanted:
                source = Source()  # nothing is listed: a small model would make a list of any words
        elif tool.examples and name not in required and _types(schema) & {"integer", "number"}:
            source = _number(name, request, whole="integer" in _types(schema))
        if source is not None:
            source = _valid(source, schema, tool.parameters)
        if source is None or (name in required and not (source.values or source.pieces)):
            continue
        found[name] = source
    return found


def copied_parameters(tool: ToolSpec) -> dict[str, Kind]:
    """Parameters whose value stands word for word in the turn, in every example that gives one."""
    kinds: dict[str, Kind] = {}
    for name, schema in _properties(tool).items():
        values = [(e.text, e.arguments[name]) for e in tool.examples if name in e.arguments]
        if not values or not _is_plain(schema):
            continue
        if all(isinstance(v, list) and v and all(_within(item, text) for item in v) for text, v in values):
            kinds[name] = "list"
        elif all(_within(v, text) for text, v in values):
            texts = [str(v) for _, v in values]
            if all(PATH.fullmatch(text) for text in texts):
                kinds[name] = "path"
            else:
                kinds[name] = "text" if any(len(text.split()) > 2 for text in texts) else "word"
    return kinds


def _properties(tool: ToolSpec) -> dict[str, Mapping[str, Any]]:
    """Without those of which the schema says nothing but ``true`` or ``false``."""
    properties = tool.parameters.get("properties", {})
    return {name: schema for name, schema in properties.items() if isinstance(schema, Mapping)}


def _valid(source: Source, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Source:
    """Without the values that the parameter's own schema forbids."""
    validator = validator_class()({**schema, **{key: root[key] for key in DEFINITIONS if key in root}})
    values = tuple(value for value in source.values if validator.is_valid(value))
    wanted = source.wanted and bool(values)
    return replace(source, values=values[:_OFFERS], pieces=source.pieces[:_OFFERS], wanted=wanted)


def _types(schema: Mapping[str, Any]) -> set[str]:
    options = [option for option in schema.get("anyOf", [schema]) if isinstance(option, Mapping)]
    return {str(option.get("type")) for option in options} - {"null"}


def _is_plain(schema: Mapping[str, Any]) -> bool:
    """Strings and lists of strings without further conditions: nothing the copy could violate."""
    options = [
        s for s in schema.get("anyOf", [schema]) if not (isinstance(s, Mapping) and s.get("type") == "null")
    ]
    if len(options) != 1 or not isinstance(options[0], Mapping):
        return False
    kind = options[0].get("items", {}) if options[0].get("type") == "array" else options[0]
    if not isinstance(kind, Mapping):
        return False
    keys = {key for part in (schema, options[0], kind) for key in part if not key.startswith("x-")}
    harmless = {"type", "anyOf", "items", "title", "description", "default", "examples"}
    return kind.get("type") == "string" and keys <= harmless


def _within(value: Any, text: str) -> bool:
    return isinstance(value, str) and bool(value) and value in text


def _copied(
    kind: Kind, tool: ToolSpec, name: str, turn: str, material: tuple[str, ...], request: str
) -> Source | None:
    if kind == "path":
        return Source(paths(turn))
    if kind == "word":
        return _after_cue(tool, name, request)
    if kind == "list":
        items = _enumeration(request)
        return Source((items,), wanted=True) if items else Source((), _pieces(request), is_list=True)
    return Source(material) if material else Source((), _pieces(turn))


def paths(turn: str) -> tuple[str, ...]:
    """Files that the turn names: the message's picture and quoted ones whole, others as far as no blank cuts them."""
    lines = [line for line in turn.splitlines() if line.startswith(IMAGE_LINE)]
    whole = [line.removeprefix(IMAGE_LINE).strip() for line in lines]
    for line in lines:
        turn = turn.replace(line, " ")
    if len(turn) <= _LONG:
        quoted = [(match[0], _inner(match).strip()) for match in QUOTED.finditer(turn)]
        for mark, text in quoted:
            if "\n" not in text and _SUFFIX.search(text):
                whole.append(text)
                turn = turn.replace(mark, " ")
    return tuple(dict.fromkeys((*whole, *PATH.findall(turn))))


def _inner(match: re.Match[str]) -> str:
    """What stands between the quotation marks."""
    return next(group for group in match.groups() if group)


def _set_off(turn: str) -> tuple[tuple[str, ...], str]:
    """The texts to work on (quoted, after a colon or on further lines), and the request without them."""
    if len(turn) > _LONG:
        return (), turn
    quotes = [match for match in QUOTED.finditer(turn) if _inner(match).strip()]
    quoted = [_inner(match).strip() for match in quotes]
    head, _, rest = turn.partition("\n")
    # A colon on a further line is one of the text's own.
    after = _AFTER_COLON.search(turn) if not rest.strip() or re.search(r":(?:\s|$)", head) else None
    start = after.start(1) if after else len(head) + 1 if rest.strip() else len(turn)
    set_off = turn[start:].strip()
    if quotes and start < quotes[0].start() and not turn[start : quotes[0].start()].rstrip().endswith(":"):
        quoted = [set_off, *quoted]  # a text that quotes something itself, or one that is told about
    if quotes:
        return tuple(dict.fromkeys(quoted)), QUOTED.sub("''", turn)
    return ((set_off,), turn[:start] if after else head) if set_off else ((), turn)


def _pieces(text: str) -> tuple[str, ...]:
    return tuple(piece.strip() for piece in _UNSAFE.split(text) if piece.strip())


def _after_cue(tool: ToolSpec, name: str, request: str) -> Source | None:
    """What follows a word that stands before the value in an example, and looks like the examples' values: no small
    word, and with a digit where all of them have one. Nothing where no cue is given."""
    cues, values = set(), []
    for example in tool.examples:
        if name in example.arguments:
            values.append(example.arguments[name])
            before = example.text[: example.text.index(values[-1])].split()
            cues.update(before[-1:])
    pattern = "|".join(re.escape(cue) for cue in sorted(cues))
    found = re.findall(rf"(?<!\S)(?:{pattern}) ({_WORD_OR_NAME})(?!['’]?\w)", request) if cues else []
    numbered = all(any(map(str.isdigit, value)) for value in values)
    words = [word for word in found if not is_small(word) and (not numbered or any(map(str.isdigit, word)))]
    return Source(tuple(words), wanted=bool(words))


def _enumeration(request: str) -> list[str]:
    """Alternatives that the request lists: ``billing, shipping or returns``, ``(a, b)``, ``Topics: a, b``."""
    for pattern in (_BRACKETS, _TOPIC_LIST):
        match = pattern.search(request)
        if match and "," in match.group(1):
            return [item.strip() for item in match.group(1).split(",") if item.strip()]
    match = _OR_LIST.search(request)
    if match is None:
        return []
    items = [item.strip() for item in match.group(1).split(",")]
    # A first item may have caught the word before it ("of billing", "it positive"): labels are mostly single words.
    items[0] = items[0].split()[-1]
    return [*items, match.group(2).split()[0]]


def mentions(synonyms: Mapping[str, list[str]], text: str) -> tuple[str, ...]:
    """The values of which one of the names stands in ``text``.

    Raises:
        SchemaError: They are no lists of names by value.
    """
    lists = synonyms.values() if isinstance(synonyms, Mapping) else [None]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise SchemaError("x-synonyms gives each value a list of its names", 'write {"fr": ["French"]}')
    lowered = text.lower()
    return tuple(value for value, names in synonyms.items() if any(_word(name, lowered) for name in names))


def _word(name: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name.lower())}(?!\w)", text) is not None


_LARGEST = 1e15
"""No call holds a larger number exactly, and a float may be none at all."""


def _number(name: str, request: str, *, whole: bool) -> Source:
    """The numbers of the request; wanted where one stands beside the parameter's name ("two epochs", "epochs 5")."""
    text = PATH.sub(" ", request).lower()
    stem = re.escape(name.lower().rstrip("s").replace("_", " "))
    digits = r"(?<![\w.,])-?(?:\d{1,3}(?:[,\u202f]\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?!\w|[.,]\d)"
    number = rf"({digits}|{'|'.join(_NUMBER_WORDS)})"
    beside = re.search(rf"\b{number} {stem}|{stem}s?[:=]? {number}\b", text)
    if beside and abs(value := _value(beside.group(1) or beside.group(2))) < _LARGEST:
        return Source((value,), wanted=True)
    found = [_value(match) for match in re.findall(rf"(?<!\w){number}(?!\w)", text)]
    found = [value for value in found if abs(value) < _LARGEST]
    return Source(tuple(n for n in dict.fromkeys(found) if not whole or isinstance(n, int)))


def _value(text: str) -> int | float:
    if text in _NUMBER_WORDS:
        return _NUMBER_WORDS[text]
    text = re.sub(r"[,\u202f]", "", text)
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)
