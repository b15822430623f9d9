"""FunctionGemma: ``<start_function_call>call:name{key:<escape>text<escape>,n:3}<end_function_call>``.

Its arguments are no JSON: keys are bare and texts stand between ``<escape>`` delimiters. A text cannot hold the
delimiter, so one that comes from elsewhere is told with a backslash in it: ``<\\escape>``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from agentkit.llm.formats.base import ArgumentSyntax, Format, Markup, Parts, example_calls
from agentkit.llm.formats.gemma_rules import ESCAPE, argument_rules
from agentkit.llm.grounding import Source
from agentkit.llm.strict import read_json
from agentkit.messages import Message, ToolSpec

_CALL, _CALL_END = Markup("<start_function_call>"), Markup("<end_function_call>")
_ESCAPE = Markup(ESCAPE)
_SCALAR = re.compile(r"true|false|null|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


class Gemma(Format):
    name = "gemma"
    triggers = (_CALL,)
    between = ()
    before_call = ""
    between_results = ""
    around_result = (
        r"\A<end_of_turn>\n<start_of_turn>user\n\Z",
        r"\A<end_of_turn>\n<start_of_turn>model\n\Z",
    )
    escape = ESCAPE

    def fits(self, template: str, tokens: Collection[str]) -> bool:
        return _CALL in template or _CALL in tokens

    def system(self, prompt: str, tools: Sequence[ToolSpec]) -> Parts:
        if not tools:
            return (prompt,)
        # Google's documentation: without this very sentence the model does not call.
        activation = "You are a model that can do function calling with the following functions"
        parts: Parts = (f"{prompt}\n{activation}" if prompt else activation,)
        for tool in tools:
            body = {"description": tool.description, "parameters": _typed(tool.schema)}
            parts += (Markup("<start_function_declaration>"), f"declaration:{_plain(tool.name)}")
            parts += (*_write(body), Markup("<end_function_declaration>"))
        examples = example_calls(self, tools)
        return parts + (("\nExamples:", *sum(examples, ())) if examples else ())

    def head(self, name: str) -> Parts:
        return (_CALL, f"call:{_plain(name)}")

    def tail(self, call_id: str) -> Parts:
        return (_CALL_END,)

    def result(self, message: Message) -> Parts:
        try:
            value = json.loads(message.content)
        except (ValueError, RecursionError):
            value = message.content
        body = value if isinstance(value, dict) else {"result": value}
        head = f"response:{_plain(message.name or 'function')}"
        return (
            Markup("<start_function_response>"),
            head,
            *_write(body),
            Markup("<end_function_response>"),
        )

    def arguments(self, values: dict[str, Any]) -> Parts:
        return tuple(_write(values))

    def argument_rules(
        self, name: str, schema: dict[str, Any], found: dict[str, Source], syntax: ArgumentSyntax
    ) -> list[str]:
        return argument_rules(name, schema, found, syntax)

    def read_arguments(self, text: str, start: int) -> tuple[dict[str, Any], int]:
        value, end = _read(text, start)
        if not isinstance(value, dict):
            raise ValueError("arguments are no object")
        return value, end


def _plain(text: str) -> str:
    return text.replace(ESCAPE, f"<\\{ESCAPE[1:]}")


def _write(value: Any) -> list[str]:
    """A JSON value in the format's own syntax."""
    if isinstance(value, str):
        return [_ESCAPE, _plain(value), _ESCAPE]
    if isinstance(value, dict):
        items = [[f"{_plain(str(key))}:", *_write(child)] for key, child in value.items()]
    elif isinstance(value, list | tuple):
        items = [_write(child) for child in value]
    else:
        return [json.dumps(value)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    inner = [part for n, item in enumerate(items) for part in ([","] if n else []) + item]
    return [opening, *inner, closing]


def _typed(schema: Any) -> Any:
    """The schema with its types in capitals, as declarations have them."""
    if isinstance(schema, list):
        return [_typed(child) for child in schema]
    if not isinstance(schema, dict):
        return schema
    typed: dict[str, Any] = {}
    for key, child in schema.items():
        if key == "type" and isinstance(child, str):
            typed[key] = child.upper()
        elif key == "type" and isinstance(child, list):
            typed[key] = [str(option).upper() for option in child]
        elif key in ("properties", "$defs", "definitions") and isinstance(child, dict):
            typed[key] = {name: _typed(part) for name, part in child.items()}
        else:
            typed[key] = child if key in ("enum", "const", "default", "examples") else _typed(child)
    return typed


def _read(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at ``at`` and where it ends; ValueError where it is not whole."""
    if text.startswith(ESCAPE, at):
        end = text.index(ESCAPE, at + len(ESCAPE))
        return text[at + len(ESCAPE) : end], end + len(ESCAPE)
    opening = text[at : at + 1]
    if opening and opening in "{[":
        return _read_items(text, at + 1, "}" if opening == "{" else "]")
    scalar = _SCALAR.match(text, at)
    if scalar is None:
        raise ValueError(f"no value at {at}")
    return read_json(scalar.group()), scalar.end()


def _read_items(text: str, at: int, closing: str) -> tuple[Any, int]:
    keys: list[str] = []
    values: list[Any] = []
    while not text.startswith(closing, at):
        if values:
            if not text.startswith(",", at):
                raise ValueError(f"no comma at {at}")
            at += 1
        if closing == "}":
            colon = text.index(":", at)
            keys.append(text[at:colon])
            at = colon + 1
        value, at = _read(text, at)
        values.append(value)
    return (dict(zip(keys, values, strict=True)) if closing == "}" else values), at + 1


FORMAT = Gemma()
