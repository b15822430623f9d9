"""The same function in many manners of writing a schema."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from random import Random
from typing import Any

from domains import Function, Json


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


def manner(random: Random) -> Manner:
    """Any."""
    return Manner(
        random.choices(("snake", "camel", "dotted", "pascal"), (6, 2, 3, 1))[0],
        random.choices(("schema", "words", "none"), (3, 4, 3))[0],
        random.choices(("enum", "words", "both"), (6, 2, 2))[0],
        random.random() < 0.93,
        random.random() < 0.1,
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


def arguments_of(given: Json, style: Manner) -> Json:
    """Arguments under the names that the schema gives them."""
    return {
        parameter_name(name, style): arguments_of(value, style) if isinstance(value, dict) else value
        for name, value in given.items()
    }


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
    words = param["description"]
    body = {"type": param["type"]}
    if param["type"] == "array":
        body["items"] = {"type": _item_type(param)}
    if "enum" in param:
        if style.options != "words":
            body["enum"] = param["enum"]
        if style.options != "enum":
            words = f"{words.rstrip('.')}. One of: {', '.join(map(str, param['enum']))}."
    if "default" in param and style.defaults == "schema":
        body["default"] = param["default"]
    elif "default" in param and style.defaults == "words":
        words = f"{words.rstrip('.')}. Default is {_shown(param['default'])}."
    if style.descriptions:
        body = {"type": body.pop("type"), "description": words, **body}
    return body


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
