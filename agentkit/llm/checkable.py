"""Schemas that no validator can ever decide about: refused where a tool is registered, not when it is called."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from agentkit.llm.endless import ENDLESS, endless_path

Fault = tuple[str, str]
"""The path of a part of the schema, and what is wrong there."""

_ONE = ("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then",
        "unevaluatedItems", "unevaluatedProperties")  # fmt: skip
_SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
_SAME_VALUE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
"""What stands there is about the very value that the schema is about."""
_REFERENCES = ("$ref", "$dynamicRef")


def fault(schema: dict[str, Any], *, arguments: bool = False) -> Fault | None:
    """What makes a schema one that nothing can be checked against, if anything does.

    Args:
        schema: Plain JSON values, in which no object stands twice.
        arguments: The schema is that of a tool's arguments, which are an object.
    """
    found = _fault(schema)
    if found is None and arguments and (reason := _no_object(schema)):
        found = "#", reason
    return found


def _fault(schema: dict[str, Any]) -> Fault | None:
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    pending = deque([(schema, "#", _resolver(schema))])
    paths: dict[int, str] = {}
    leads: dict[int, list[int]] = {}
    """From each part to those that the same value is checked against next."""
    while pending:
        node, path, resolver = pending.popleft()
        if id(node) in paths:
            continue
        paths[id(node)], leads[id(node)] = path, []
        if node is not schema:
            resolver = resolver.in_subresource(DRAFT202012.create_resource(node))
        if own := _own_fault(node):
            return f"{path}{own[0]}", own[1]
        for key, place, child in _children(node):
            pending.append((child, f"{path}/{place}", resolver))
            if key in _SAME_VALUE:
                leads[id(node)].append(id(child))
        for key in _REFERENCES:
            if not isinstance(node.get(key), str):
                continue
            try:
                target = resolver.lookup(node[key])
            except Unresolvable:
                return f"{path}/{key}", f"{node[key]} stands nowhere in the schema"
            if isinstance(target.contents, dict):
                pending.append((target.contents, f"{path}/{key}", target.resolver))
                leads[id(node)].append(id(target.contents))
    if endless := endless_path(schema):
        return endless, ENDLESS
    try:
        TopologicalSorter(leads).prepare()
    except CycleError as error:
        circle = set(error.args[1])
        return next(path for part, path in paths.items() if part in circle), ENDLESS
    return None


def _resolver(schema: dict[str, Any]) -> Any:
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    # An empty registry: a reference to another document is an error, not a download.
    registry: Any = Registry()
    return registry.resolver_with_root(DRAFT202012.create_resource(schema))


def _children(node: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The schemas in a schema: keyword, place and the schema itself."""
    for key in _ONE:
        if isinstance(node.get(key), dict):
            yield key, key, node[key]
    for key in _SEVERAL:
        if isinstance(node.get(key), list):
            for n, child in enumerate(node[key]):
                if isinstance(child, dict):
                    yield key, f"{key}/{n}", child
    for key in _NAMED:
        if isinstance(node.get(key), dict):
            for name, child in node[key].items():
                if isinstance(child, dict):
                    yield key, f"{key}/{name}", child


def _own_fault(node: dict[str, Any]) -> Fault | None:
    if node.get("enum") == []:
        return "/enum", "it is empty, so no value fits"
    named = node.get("patternProperties")
    patterns = [("/pattern", node.get("pattern"))]
    patterns += [("/patternProperties", name) for name in (named if isinstance(named, dict) else ())]
    for place, pattern in patterns:
        try:
            re.compile(pattern if isinstance(pattern, str) else "")
        except (re.error, OverflowError) as error:
            return place, f"the pattern cannot be checked: {error}"
    return None


def _no_object(schema: dict[str, Any]) -> str:
    """Why a schema is none of an object, if it says so itself; one without a type may be one."""
    node: Any = schema
    resolver = _resolver(schema)
    while isinstance(node, dict):
        kind = node.get("type", "object")
        if kind not in ("object", ["object"]):
            return f"arguments are an object, but its type is {kind!r}"
        values = node.get("enum", [node.get("const", {})])
        if not any(isinstance(value, dict) for value in values):
            return "arguments are an object, but none of its values is one"
        if "$ref" not in node:
            return ""
        target = resolver.lookup(node["$ref"])
        node, resolver = target.contents, target.resolver
    return "" if node else "nothing fits it"
