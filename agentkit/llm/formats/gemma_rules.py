"""JSON schema to Lark rules for FunctionGemma's syntax of arguments; what it cannot express is refused by path."""

from __future__ import annotations

import json
import re
from typing import Any

from agentkit.errors import SchemaError
from agentkit.llm.arguments import schema_text
from agentkit.llm.formats.base import MAX_RULES, ArgumentSyntax
from agentkit.llm.grounding import DEFINITIONS, Source

ESCAPE = "<escape>"
"""Stands before and after every text."""

_KEY = re.compile(r"[^\s:,{}\[\]<>\"'\\]+")
_NOTES = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema", "$id",
          "$comment", *DEFINITIONS}  # fmt: skip
_NUMERIC = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_KEYS = {
    "string": {"pattern", "minLength", "maxLength", "format"},
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
    "integer": _NUMERIC,
    "number": _NUMERIC,
    "boolean": set(),
    "null": set(),
}
_DAY = "(19|20)[0-9][0-9]-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_FORMATS = {"date": _DAY, "time": f"{_TIME}Z", "date-time": f"{_DAY}T{_TIME}Z",
            "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"}  # fmt: skip
_ANY = ("string", "number", "boolean", "null", "array", "object")


def argument_rules(
    name: str, schema: dict[str, Any], found: dict[str, Source], syntax: ArgumentSyntax
) -> list[str]:
    """The rule ``name`` for an object of ``schema``, in which the parameters of ``found`` are copied.

    Raises:
        SchemaError: Names the path of what the syntax cannot express.
    """
    writer = _Writer(name, schema, syntax)
    writer.value(name, schema, "#", found)
    return writer.rules


class _Writer:
    """Collects rules; those of references and of free values are made once."""

    def __init__(self, prefix: str, root: dict[str, Any], syntax: ArgumentSyntax) -> None:
        self.rules: list[str] = []
        self._prefix, self._root = prefix, root
        self._in_vocabulary = syntax.escape is not None
        self._escape = json.dumps(ESCAPE) if syntax.escape is None else f"<[{syntax.escape}]>"
        self._shared: dict[str, str] = {}

    def value(self, name: str, schema: Any, path: str, found: dict[str, Source] | None = None) -> None:
        """The rule ``name`` for any value of ``schema``."""
        if len(self.rules) > MAX_RULES:
            raise _refused(path, "it is too large")
        if schema is True or (isinstance(schema, dict) and not set(schema) - _NOTES):
            self._add(name, self._anything())
            return
        if not isinstance(schema, dict):
            raise _refused(path, "nothing satisfies it")
        if "$ref" in schema:
            self._add(name, self._reference(schema, path))
        elif "enum" in schema or "const" in schema:
            self._constants(name, schema, path)
        elif options := schema.get("anyOf") or schema.get("oneOf"):
            self._only(schema, {"anyOf", "oneOf", "type"}, path)
            key = "anyOf" if "anyOf" in schema else "oneOf"
            self._alternatives(name, [(child, f"{path}/{key}/{n}") for n, child in enumerate(options)])
        else:
            self._typed(name, schema, path, found)

    def _typed(self, name: str, schema: dict[str, Any], path: str, found: dict[str, Source] | None) -> None:
        types = schema.get("type", "object" if "properties" in schema else None)
        if isinstance(types, list):
            options = [self._restricted(schema, kind) for kind in types]
            self._alternatives(name, [(option, path) for option in options])
            return
        if not isinstance(types, str) or types not in _KEYS:
            raise _refused(path, f"it has no type that can be written ({types!r})")
        self._only(schema, {*_KEYS[types], "type"}, path)
        if types == "string":
            self._string(name, schema, path)
        elif types == "array":
            self._array(name, schema, path)
        elif types == "object":
            self._object(name, schema, path, found or {})
        else:
            self._add(name, f"%json {schema_text({k: v for k, v in schema.items() if k not in _NOTES})}")

    @staticmethod
    def _restricted(schema: dict[str, Any], kind: Any) -> dict[str, Any]:
        others = set().union(*_KEYS.values()) - _KEYS.get(str(kind), set())
        return {**{key: part for key, part in schema.items() if key not in others}, "type": kind}

    def _add(self, name: str, body: str) -> None:
        self.rules.append(f"{name}: {body}")

    @staticmethod
    def _only(schema: dict[str, Any], known: set[str], path: str) -> None:
        other = sorted(set(schema) - known - _NOTES)
        if other:
            raise _refused(path, f"{other[0]!r} cannot be told in this format")

    def _alternatives(self, name: str, options: list[tuple[Any, str]]) -> None:
        self._add(name, " | ".join(f"{name}_{n}" for n in range(len(options))))
        for n, (option, path) in enumerate(options):
            self.value(f"{name}_{n}", option, path)

    def _reference(self, schema: dict[str, Any], path: str) -> str:
        self._only(schema, {"$ref"}, path)
        reference = str(schema["$ref"])
        if reference not in self._shared:
            target = _follow(self._root, reference, path)
            self._shared[reference] = f"{self._prefix}_ref{len(self._shared)}"
            self.value(self._shared[reference], target, reference)
        return self._shared[reference]

    def _anything(self) -> str:
        if "" not in self._shared:
            self._shared[""] = name = f"{self._prefix}_any"
            self.value(name, {"anyOf": [{"type": kind} for kind in _ANY]}, "#")
        return self._shared[""]

    def _constants(self, name: str, schema: dict[str, Any], path: str) -> None:
        from jsonschema import Draft202012Validator

        rest = {key: part for key, part in schema.items() if key not in ("enum", *_NOTES)}
        values = [v for v in schema.get("enum", [schema.get("const")]) if not isinstance(v, dict | list)]
        if rest:
            valid = Draft202012Validator(
                {**rest, **{k: self._root[k] for k in DEFINITIONS if k in self._root}}
            )
            values = [value for value in values if valid.is_valid(value)]
        values = [value for value in values if not (isinstance(value, str) and ESCAPE in value)]
        if not values:
            raise _refused(path, "none of its values can be written")
        texts = [value for value in values if isinstance(value, str) and value]
        others = [value for value in values if value == "" or not isinstance(value, str)]
        options = [self._literal("")] if "" in others else []
        if numbers := [value for value in others if value != ""]:
            options.append(f"%json {schema_text({'enum': numbers})}")
        if texts:  # one word to the lexer: it takes thousands, the parser does not
            listed = f"{name.upper()}_OPTIONS"
            options.append(self._text(name, listed))
            self._add(listed, " | ".join(json.dumps(text, ensure_ascii=False) for text in texts))
        self._add(name, " | ".join(options))

    def _text(self, name: str, terminal: str) -> str:
        """A text that ``terminal`` describes, with its delimiters."""
        if self._in_vocabulary:
            return f"{self._escape} {terminal} {self._escape}"
        # The lexer never looks back: written-out delimiters must be part of the word.
        self._add(f"{name.upper()}_DELIMITED", f"{self._escape} {terminal} {self._escape}")
        return f"{name.upper()}_DELIMITED"

    def _literal(self, value: Any) -> str:
        if not isinstance(value, str):
            return json.dumps(json.dumps(value))
        # an empty literal is no word to the lexer
        text = [json.dumps(value, ensure_ascii=False)] if value else []
        return " ".join([self._escape, *text, self._escape])

    def _string(self, name: str, schema: dict[str, Any], path: str) -> None:
        least, most = schema.get("minLength", 0), schema.get("maxLength", "")
        conditions = [f"/(?s:.{{{least},{most}}})/", f"~/(?s:.*{ESCAPE}.*)/"]
        patterns = [schema["pattern"]] if "pattern" in schema else []
        if "format" in schema:
            if schema["format"] not in _FORMATS:
                raise _refused(path, f"the format {schema['format']!r} is unknown")
            patterns.append(f"^({_FORMATS[schema['format']]})$")
        conditions += [f"/{_whole(pattern, path)}/" for pattern in patterns]
        if not self._in_vocabulary:  # what ends a text must not be able to begin within it
            conditions.append("/[^<]*/")
        self._add(name, self._text(name, f"{name.upper()}_TEXT"))
        self._add(f"{name.upper()}_TEXT", " & ".join(conditions))

    def _array(self, name: str, schema: dict[str, Any], path: str) -> None:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most is not None and most < max(least, 1):
            if least:
                raise _refused(path, "maxItems is less than minItems")
            self._add(name, '"[" "]"')
            return
        self.value(f"{name}_item", schema.get("items", True), f"{path}/items")
        more = f'("," {name}_item){{{max(least - 1, 0)},{"" if most is None else most - 1}}}'
        more = "" if most == 1 else more  # no grammar knows a repetition of nothing
        self._add(name, f'"[" ({name}_item {more}){"?" if least == 0 else ""} "]"')

    def _object(self, name: str, schema: dict[str, Any], path: str, found: dict[str, Source]) -> None:
        properties = schema.get("properties") or {}
        undeclared = set(schema.get("required", ())) - set(properties)
        if undeclared:
            raise _refused(path, f"the required {sorted(undeclared)[0]!r} is not declared")
        if not properties:
            self._map(name, schema.get("additionalProperties", "properties" not in schema), path)
            return
        left_out = [key for key, source in found.items() if not source.values and not source.pieces]
        properties = {key: child for key, child in properties.items() if key not in left_out}
        needed = {*schema.get("required", ()), *(key for key, source in found.items() if source.wanted)}
        self._add(name, f'"{{" {name}_first0 "}}"')
        for n, (key, child) in enumerate(properties.items()):
            if not _KEY.fullmatch(key):
                raise _refused(f"{path}/properties/{key}", "a name with such characters cannot be written")
            member, follow = f"{name}_key{n} {name}_rest{n + 1}", f"{name}_rest{n + 1}"
            skip = [] if key in needed else [f"{name}_first{n + 1}"]
            self._add(f"{name}_first{n}", " | ".join([member, *skip]))
            self._add(f"{name}_rest{n}", " | ".join([f'"," {member}', *([follow] if skip else [])]))
            self._add(f"{name}_key{n}", f"{json.dumps(f'{key}:', ensure_ascii=False)} {name}_value{n}")
            if key in found:
                self._copied(f"{name}_value{n}", found[key])
            else:
                self.value(f"{name}_value{n}", child, f"{path}/properties/{key}")
        self._add(f"{name}_first{len(properties)}", '""')
        self._add(f"{name}_rest{len(properties)}", '""')

    def _map(self, name: str, values: Any, path: str) -> None:
        if values is False:
            self._add(name, '"{" "}"')
            return
        self.value(f"{name}_item", values, f"{path}/additionalProperties")
        self._add(name, f'"{{" ({name}_member ("," {name}_member)*)? "}}"')
        # Short and without capitals: where the budget ends, a capital letter tells that a text is open.
        self._add(f"{name}_member", f"/[a-z_][a-z0-9_]{{0,19}}:/ {name}_item")

    def _copied(self, name: str, source: Source) -> None:
        """Any of the source's values, or a run of words of its pieces."""
        item = f"{name}_item" if source.is_list else name
        options = [self._offered(value) for value in source.values if ESCAPE not in str(value)]
        pieces = [piece for piece in source.pieces if "<" not in piece]
        for n, piece in enumerate(pieces):
            run = f"{name.upper()}_{n}"
            options.append(f"{self._escape} {run} {self._escape}")
            words = json.dumps({"substring_words": piece}, ensure_ascii=False)
            self.rules += [f"{run}: {run}_RUN & /\\S(.*\\S)?/", f"{run}_RUN: %regex {words}"]
        if not options:
            self.value(item, {"type": "string"}, "#")
        else:
            self._add(item, " | ".join(options))
        if source.is_list:
            self._add(name, f'"[" {item} ("," {item})* "]"')

    def _offered(self, value: Any) -> str:
        if isinstance(value, list):
            return " ".join(['"["', ' "," '.join(self._literal(item) for item in value), '"]"'])
        return self._literal(value)


def _refused(path: str, reason: str) -> SchemaError:
    cause = f"the schema at {path} cannot be written in the gemma tool_format: {reason}"
    return SchemaError(cause, "simplify it there")


def _follow(root: dict[str, Any], reference: str, path: str) -> Any:
    target: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, dict) or key not in target:
            raise _refused(path, f"{reference!r} leads nowhere")
        target = target[key]
    return target


def _whole(pattern: str, path: str) -> str:
    """The pattern, which is searched for, as one for whole texts."""
    depth, escaped, in_class, bars, anchors = 0, False, False, False, []
    for n, letter in enumerate(pattern):
        if escaped or letter == "\\":
            escaped = not escaped
        elif in_class:
            in_class = letter != "]"
        elif letter == "[":
            in_class = True
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter in "^$":
            anchors.append(n)
        bars = bars or (letter == "|" and depth == 0 and not in_class)
    at_start, at_end = pattern.startswith("^"), len(pattern) - 1 in anchors
    if len(anchors) > at_start + at_end or (bars and anchors):
        raise _refused(path, "its pattern has anchors within")
    bare = pattern[at_start : len(pattern) - at_end]
    inner = re.sub(r"\\.|/", lambda found: "\\/" if found[0] == "/" else found[0], bare, flags=re.DOTALL)
    return f"{'' if at_start else '(?s:.*)'}({inner}){'' if at_end else '(?s:.*)'}"
