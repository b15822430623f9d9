"""JSON schemas that no grammar can express are refused by path and reason; nothing is approximated."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

from agentkit.errors import SchemaError
from agentkit.llm.arguments import schema_text
from agentkit.llm.checkable import fault
from agentkit.llm.grounding import DEFINITIONS

_EXACT = 2**53
_BRANCHES = ("anyOf", "allOf", "oneOf", "prefixItems")


class SchemaCheck:
    """Checks schemas for one tokenizer.

    Args:
        ll_tokenizer: llguidance's own form of it.
    """

    def __init__(self, ll_tokenizer: Any) -> None:
        self._ll_tokenizer = ll_tokenizer
        self._checked: set[tuple[str, bool]] = set()
        """Schemas that passed: a turn need not find it out again."""

    def check(self, schema: dict[str, Any], owner: str, *, arguments: bool = False) -> None:
        """Refuse a schema that the grammar cannot express, or that its output could not be checked against.

        Args:
            schema: Of a tool's arguments, or of an answer.
            owner: Whose it is, for the message.
            arguments: It is that of a tool's arguments, which are an object.

        Raises:
            SchemaError: Names ``owner``, the path in the schema and the reason.
        """
        text = canonical(schema)
        if text is not None and (text, arguments) in self._checked:
            return
        reason = self._reason(schema)
        path = "#"
        if reason:
            with suppress(RecursionError):  # then it is the whole that is told
                path, reason = self._locate(schema, schema, "#", reason)
        elif found := fault(json.loads(text or "{}"), arguments=arguments):
            path, reason = found
        if reason:
            raise SchemaError(
                f"{owner}: the schema at {path} cannot be made a grammar: {reason}", "simplify it there"
            )
        if text is not None:
            self._checked.add((text, arguments))

    def _reason(self, schema: Any) -> str:
        import llguidance

        if inexact := _inexact(schema):
            return inexact
        try:
            json.dumps(schema, allow_nan=False)
            text = f"start: %json {schema_text(schema)}"
        except (TypeError, ValueError) as error:
            return str(error)
        except RecursionError:
            return "it is nested too deeply"
        message = llguidance.LLMatcher.validate_grammar(text, self._ll_tokenizer)
        lines = [line.strip() for line in message.splitlines() if line.strip()] or [""]
        # A complaint about a pattern stands below the pattern itself.
        told = [line for line in lines if line.startswith("error: ")]
        reason = told[0].removeprefix("error: ") if told else lines[0]
        return re.sub(r"^at \d+\(\d+\): failed to compile JSON schema: ", "", reason)

    def _locate(self, schema: Any, root: dict[str, Any], path: str, reason: str) -> tuple[str, str]:
        """The deepest sub-schema that fails by itself, and why."""
        for part, child in _children(schema):
            shared = {key: root[key] for key in DEFINITIONS if key in root}
            alone = {**child, **shared} if isinstance(child, dict) else child
            if own := self._reason(alone):
                return self._locate(child, root, f"{path}/{part}", own)
        return path, reason


def _inexact(schema: Any) -> str:
    """Why a number that must be met exactly cannot be: llguidance computes in doubles, and bounds that leave one value
    beyond them bring it down."""
    if not isinstance(schema, dict):
        return ""
    options = schema.get("enum")
    wanted = [schema.get("const"), *(options if isinstance(options, list) else ())]
    if "minimum" in schema and schema["minimum"] == schema.get("maximum"):
        wanted.append(schema["minimum"])
    for number in wanted:
        if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) > _EXACT:
            return f"{number!r} is beyond the numbers that a double tells apart; use a text"
    return next(filter(None, (_inexact(child) for _, child in _children(schema))), "")


def canonical(schema: Any) -> str | None:
    """A schema, or what holds one, as text to know it again by; none where it is no JSON."""
    try:
        return json.dumps(schema)
    except (TypeError, ValueError, RecursionError):
        return None


def _children(schema: Any) -> list[tuple[str, Any]]:
    if not isinstance(schema, dict):
        return []
    found: list[tuple[str, Any]] = []
    for key in (*DEFINITIONS, "properties", "patternProperties"):
        if isinstance(schema.get(key), dict):
            found += [(f"{key}/{name}", child) for name, child in schema[key].items()]
    for key in _BRANCHES:
        if isinstance(schema.get(key), list):
            found += [(f"{key}/{n}", child) for n, child in enumerate(schema[key])]
    return found + [
        (key, schema[key]) for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)
    ]
