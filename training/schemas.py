"""The same function in many manners of writing a schema."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from domains import Function, Json, value_of

ISO = "YYYY-MM-DD"
DATES = {ISO: 6, "MM/DD/YYYY": 1, "MM-DD-YYYY": 1, "DD.MM.YYYY": 1, "DD/MM/YYYY": 1, "YYYY/MM/DD": 1}
"""Ways of writing a day, and how often."""
_DAY = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_WANTED = re.compile(ISO + "(?!.?HH)")


@dataclass(frozen=True, slots=True)
class Manner:
    """How one author writes schemas."""

    name: str
    """``snake``, ``camel``, ``dotted`` or ``pascal``."""
    defaults: str
    """Where defaults are told: ``schema``, ``words`` or ``none``."""
    options: str
    """``enum``, ``words`` or ``both``: where the values of an enum stand."""
    descriptions: bool
    """Of parameters."""
    strict: bool
    """``additionalProperties: false``, and titles."""
    dates: str = ISO
    """How a day is written that a domain file wants as ``YYYY-MM-DD``."""
    examples: float = 0.0
    """Share of free words whose description gives an example."""


def manner(random: Random) -> Manner:
    """Any."""
    return Manner(
        random.choices(("snake", "camel", "dotted", "pascal"), (6, 2, 3, 1))[0],
        random.choices(("schema", "words", "none"), (3, 4, 3))[0],
        random.choices(("enum", "words", "both"), (6, 2, 2))[0],
        random.random() < 0.93,
        random.random() < 0.1,
        random.choices(list(DATES), list(DATES.values()))[0],
        random.choice((0.0, 0.0, 0.0, 0.3, 0.8)),
    )


def name_of(function: Function, style: Manner) -> str:
    """The function's name in an author's manner."""
    words = function.name.split("_")
    if style.name == "camel":
        return words[0] + "".join(word.capitalize() for word in words[1:])
    if style.name == "pascal":
        return "".join(word.capitalize() for word in words)
    if style.name == "dotted":
        return f"{function.domain.split('_')[0]}.{function.name}"
    return function.name


def tool_of(function: Function, style: Manner) -> Json:
    """An OpenAI tool."""
    parameters = _object(function.params, style)
    body = {"name": name_of(function, style), "description": function.description, "parameters": parameters}
    return {"type": "function", "function": body}


def parameter_name(name: str, style: Manner) -> str:
    """A parameter's name in an author's manner."""
    if style.name != "camel":
        return name
    return re.sub(r"_([a-z0-9])", lambda letter: letter[1].upper(), name)


def arguments_of(given: Json, params: Json, style: Manner) -> Json:
    """Arguments under the names that the schema gives them, days as it wants them."""
    found: Json = {}
    for name, value in given.items():
        param = params[name]
        if isinstance(value, dict) and "properties" in param:
            value = arguments_of(value, param["properties"], style)
        elif _WANTED.search(param["description"]):
            value = [_day(day, style) for day in value] if isinstance(value, list) else _day(value, style)
        found[parameter_name(name, style)] = value
    return found


def _day(value: Any, style: Manner) -> Any:
    day = _DAY.fullmatch(value) if isinstance(value, str) else None
    if day is None:
        return value
    return style.dates.replace("YYYY", day[1]).replace("MM", day[2]).replace("DD", day[3])


def _object(params: dict[str, Json], style: Manner) -> Json:
    properties = {parameter_name(name, style): _schema(param, style) for name, param in params.items()}
    required = [parameter_name(name, style) for name, param in params.items() if not param.get("optional")]
    body: Json = {"type": "object", "properties": properties, "required": required}
    if style.strict:
        body["additionalProperties"] = False
    return body


def _schema(param: Json, style: Manner) -> Json:
    if param["type"] == "object":
        body = _object(param["properties"], style)
        return {"type": "object", "description": param["description"], **body} if style.descriptions else body
    random = Random(f"{style}/{param}")  # the same in all of a tool's dialogues
    words = _WANTED.sub(style.dates, param["description"])
    body = {"type": param["type"]}
    if param["type"] == "array":
        body["items"] = {"type": _item_type(param)}
    if "enum" in param:
        if style.options != "words":
            body["enum"] = param["enum"]
        if style.options != "enum":
            words = f"{words.rstrip('.')}{_options(param['enum'], random)}"
    elif param["type"] == "string" and "," not in words and random.random() < style.examples:
        words = f"{words.rstrip('.')}, e.g. {value_of(param, random).called}"
    if "default" in param and style.defaults == "schema":
        body["default"] = param["default"]
    elif "default" in param and style.defaults == "words":
        default = _shown(param["default"])
        words = f"{words.rstrip('.')}. {random.choice(DEFAULT).replace('…', default)}"
    if style.descriptions:
        body = {"type": body.pop("type"), "description": words, **body}
    return body


DEFAULT = ["Default is ….", "Default …", "Defaults to ….", "Optional, default is …", "If not given, …."]


def _options(values: Sequence[Any], random: Random) -> str:
    """The values of an enum in words."""
    plain, quoted = ", ".join(map(str, values)), ", ".join(f"'{value}'" for value in values)
    *most, last = (f"'{value}'" for value in values)
    listed = f"{', '.join(most)} or {last}" if most else last
    return random.choice(
        (
            f". One of: {plain}.",
            f" ({plain}).",
            f". Options: {quoted}.",
            f", can be {listed}.",
            f": {listed}.",
        )
    )


def _item_type(param: Json) -> str:
    kind = str(param.get("value", "")).split(":")
    if "items" in param and len(kind) == 2:
        entry: Any = param["items"][0]
        if isinstance(entry, str) and " => " in entry:
            try:
                entry = json.loads(entry.split(" => ", 1)[1])
            except ValueError:
                return "string"
        return {int: "number", float: "number", bool: "boolean"}.get(type(entry), "string")
    return {
        "int": "integer",
        "year": "integer",
        "float": "number",
        "money": "number",
        "rate": "number",
        "percent": "number",
    }.get(kind[1] if len(kind) > 1 else "", "string")


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)
