"""Schemas that refer to themselves without an end: a grammar of one compiles, but no output ever satisfies it."""

from __future__ import annotations

from typing import Any, TypeGuard
from urllib.parse import unquote

ENDLESS = "it refers to itself without an end"


def endless_path(schema: dict[str, Any]) -> str | None:
    """The path of the reference that has no finite value, if the schema has none because of one."""
    targets: dict[str, Any] = {}
    _collect(schema, schema, targets)
    finite: set[str] = set()
    grown = True
    while grown:
        found = {ref for ref in targets if ref not in finite and _is_finite(targets[ref], finite)}
        finite |= found
        grown = bool(found)
    return None if _is_finite(schema, finite) else _path(schema, finite, "#")


def _collect(node: Any, root: dict[str, Any], targets: dict[str, Any]) -> None:
    pending = [node]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            reference = node.get("$ref")
            if _is_pointer(reference) and reference not in targets:
                targets[reference] = _follow(root, reference)
            pending += node.values()
        elif isinstance(node, list):
            pending += node


def _is_pointer(reference: Any) -> TypeGuard[str]:
    """A reference by path; what others lead to is taken to have an end."""
    return isinstance(reference, str) and (reference == "#" or reference.startswith("#/"))


def _follow(root: dict[str, Any], reference: str) -> Any:
    node: Any = root
    for part in reference.split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            node = node.get(key, True) if isinstance(node, dict) else True
    return node


def _is_finite(schema: Any, finite: set[str]) -> bool:
    """Whether a finite value satisfies ``schema`` if the references of ``finite`` have one."""
    if not isinstance(schema, dict):
        return True
    reference = schema.get("$ref")
    if _is_pointer(reference) and reference not in finite:
        return False
    for key in ("anyOf", "oneOf"):
        if schema.get(key) and not any(_is_finite(child, finite) for child in schema[key]):
            return False
    return all(_is_finite(child, finite) for _, child in _needed(schema))


def _needed(schema: dict[str, Any]) -> list[tuple[str, Any]]:
    """Parts without which there is no value."""
    needed = [(f"allOf/{n}", child) for n, child in enumerate(schema.get("allOf") or ())]
    if schema.get("type", "object") == "object":
        properties = schema.get("properties") or {}
        needed += [(f"properties/{k}", properties[k]) for k in schema.get("required", ()) if k in properties]
    if schema.get("type", "array") == "array" and schema.get("minItems", 0) > 0:
        first = (schema.get("prefixItems") or [schema.get("items", True)])[0]
        needed.append(("items", first))
    return needed


def _path(schema: dict[str, Any], finite: set[str], path: str) -> str:
    for part, child in _needed(schema):
        if not _is_finite(child, finite):
            return _path(child, finite, f"{path}/{part}")
    return path
