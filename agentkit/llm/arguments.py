"""Lark rules for a call's arguments: a JSON object whose copied parameters take their values from the turn."""

from __future__ import annotations

import json
import re
from typing import Any

from agentkit.llm.grounding import DEFINITIONS, Source

_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""The separators of ``json.dumps``: what the model has seen, and no white space to loop on."""

_SHORT_PIECE = 2_000
"""Characters up to which the lexer can afford to intersect the runs of words of a text with a condition."""
_OBJECT_KEYS = {"type", "properties", "required", "additionalProperties", "title", "description", "default",
                "examples", "$schema", "$id", *DEFINITIONS}  # fmt: skip
"""What `_object_rules` expresses; any other key may forbid what they allow."""


def argument_rules(name: str, schema: dict[str, Any], found: dict[str, Source]) -> list[str]:
    """The rule ``name`` for an object of ``schema``, in which the parameters of ``found`` are copied.

    Args:
        name: Of the rule; the rules that it needs begin with it.
        schema: JSON schema of the arguments.
        found: What parameters may be filled with; of no effect where the schema is more than a plain object.
    """
    if found and is_plain_object(schema):
        return _object_rules(name, schema, found)
    return [f"{name}: %json {schema_text(_closed(schema))}"]


def _object_rules(name: str, schema: dict[str, Any], found: dict[str, Source]) -> list[str]:
    """Lark rules for an object in which the parameters of ``found`` are copied from the turn.

    Properties come in the schema's order, as llguidance writes them; optional ones may be left out. For every
    property there is a rule for "nothing written yet" (``first``) and one for "after another one" (``rest``).
    """
    definitions = {key: schema[key] for key in DEFINITIONS if key in schema}
    left_out = [key for key, source in found.items() if not source.values and not source.pieces]
    # nothing could be the value of what is `false`
    left_out += [key for key, child in schema["properties"].items() if child is False]
    properties = {key: child for key, child in schema["properties"].items() if key not in left_out}
    needed = {*schema.get("required", ()), *(key for key, source in found.items() if source.wanted)}
    rules = [f'{name}: "{{" {name}_first0 "}}"']
    for n, (key, child) in enumerate(properties.items()):
        follow = f"{name}_rest{n + 1}"
        member = f"{name}_key{n} {follow}"
        skip = [] if key in needed else [f"{name}_first{n + 1}"]
        rules.append(f"{name}_first{n}: " + " | ".join([member, *skip]))
        skip = [] if key in needed else [follow]
        rules.append(f"{name}_rest{n}: " + " | ".join([f'", " {member}', *skip]))
        rules.append(f"{name}_key{n}: {json.dumps(json.dumps(key) + ': ')} {name}_value{n}")
        if key in found:
            rules += _copy_rules(f"{name}_value{n}", found[key])
        else:
            child = _closed(child) if isinstance(child, dict) else {}  # `true`
            rules.append(f"{name}_value{n}: %json {schema_text({**child, **definitions})}")
    end = len(properties)
    return [*rules, f'{name}_first{end}: ""', f'{name}_rest{end}: ""']


def _copy_rules(name: str, source: Source) -> list[str]:
    item = f"{name}_item" if source.is_list else name
    options = [
        json.dumps(json.dumps(value, ensure_ascii=False), ensure_ascii=False) for value in source.values
    ]
    terminals = [f"{name.upper()}_{n}" for n in range(len(source.pieces))]
    options += [f'"\\"" {terminal} "\\""' for terminal in terminals]
    rules = [f"{item}: " + " | ".join(options)]
    for terminal, piece in zip(terminals, source.pieces, strict=True):
        run = f"%regex {json.dumps({'substring_words': piece}, ensure_ascii=False)}"
        if len(piece) > _SHORT_PIECE:
            rules.append(f"{terminal}: {run}")
        else:  # the runs of words of a text include the empty one and blank space, which answer nothing
            rules += [f"{terminal}: {terminal}_RUN & /\\S(.*\\S)?/", f"{terminal}_RUN: {run}"]
    if source.is_list:
        rules.append(f'{name}: "[" {item} (", " {item})* "]"')
    return rules


def is_plain_object(schema: dict[str, Any]) -> bool:
    properties = schema.get("properties", {})
    references = re.findall(r'"\$ref": "([^"]*)"', json.dumps(schema))
    local = tuple(f"#/{key}/" for key in DEFINITIONS)
    return (
        set(schema) <= _OBJECT_KEYS
        and set(schema.get("required", ())) <= set(properties)
        and all(reference.startswith(local) for reference in references)
    )


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object without properties that nobody declared: a tool would have no use for them."""
    if not is_plain_object(schema) or "properties" not in schema:
        return schema
    children = {key: _closed(c) if _is_object(c) else c for key, c in schema["properties"].items()}
    return {"additionalProperties": False, **schema, "properties": children}


def _is_object(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "object"


def schema_text(schema: Any) -> str:
    return json.dumps({**schema, "x-guidance": _COMPACT} if isinstance(schema, dict) else schema)
