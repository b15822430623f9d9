"""A function's signature and docstring to a pydantic model and the JSON schema of its arguments."""

from __future__ import annotations

import inspect
import re
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import PydanticJsonSchemaWarning

from agentkit.errors import SchemaError, UsageError

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?|Notes?):\s*$")
_ENTRY = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")
_PLAIN_VALUES = ("default", "const", "enum", "examples")
_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
"""What a grammar can keep to; pydantic tells more of them (``path``, ``password``), and checks them itself."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one function: how they are described, validated and coerced."""

    parameters: dict[str, Any]
    """JSON schema, an object without additional properties."""
    model: type[BaseModel]
    """Fields ``p0``, ``p1``, … with the parameters' names as aliases: any name is a legal parameter."""

    def validate(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments for the function, coerced to its annotations; defaults are left to it.

        Raises:
            UsageError: An argument is missing, unknown or of the wrong type.
        """
        try:
            values = self.model.model_validate(dict(arguments))
        except ValidationError as error:
            problems = "; ".join(_problem(dict(item)) for item in error.errors()[:3])
            raise UsageError(f"wrong arguments: {problems}", "see the tool's schema") from error
        names = {key: field.alias or key for key, field in self.model.model_fields.items()}
        return {names[key]: getattr(values, key) for key in names if key in values.model_fields_set}


def _problem(item: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "arguments"
    return f"{where}: {item['msg']}"


def describe(fn: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The docstring's first paragraph, and the descriptions of its Google-style ``Args:`` section.

    Raises:
        SchemaError: There is no docstring.
    """
    text = inspect.getdoc(fn) if getattr(fn, "__doc__", None) else None
    if not text or not text.strip():
        name = getattr(fn, "__name__", repr(fn))
        raise SchemaError(f"tool {name!r} has no docstring", "say in its first paragraph what the tool does")
    description = " ".join(text.strip().split("\n\n", 1)[0].split())
    return description, _argument_texts(text.splitlines())


def _argument_texts(lines: list[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    inside, indent, name = False, 0, ""
    for line in lines:
        if section := _SECTION.match(line):
            inside, indent, name = section[1] in ("Args", "Arguments", "Parameters"), 0, ""
        elif inside and line.strip():
            depth = len(line) - len(line.lstrip())
            if depth == 0:
                inside = False
                continue
            indent = indent or depth
            entry = _ENTRY.match(line.strip()) if depth <= indent else None
            if entry:
                name = entry[1]
                texts[name] = entry[2]
            elif name:
                texts[name] = f"{texts[name]} {line.strip()}".strip()
    return texts


def arguments_of(
    fn: Callable[..., Any], texts: Mapping[str, str], local_names: Mapping[str, Any] | None = None
) -> Arguments:
    """Read the parameters of a function.

    Args:
        fn: The function.
        texts: Descriptions by parameter, from `describe`.
        local_names: Names that annotations written as strings may use besides the module's.

    Raises:
        SchemaError: A parameter has no annotation, is variadic or positional-only, or its annotation
            has no JSON form; names function and parameter.
    """
    name = getattr(fn, "__name__", type(fn).__name__)
    hints = _type_hints(fn, name, local_names)
    fields: dict[str, Any] = {}
    for position, parameter in enumerate(inspect.signature(fn).parameters.values()):
        annotation = _annotation(name, parameter, hints)
        default = ... if parameter.default is parameter.empty else parameter.default
        if isinstance(default, FieldInfo):
            cause = f"tool {name!r}, parameter {parameter.name!r} has a Field as its default"
            raise SchemaError(cause, f"write {parameter.name}: Annotated[..., Field(...)] = default")
        fields[f"p{position}"] = (annotation, _field(parameter.name, default, texts.get(parameter.name)))
    model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    with warnings.catch_warnings():
        # a default without JSON form (a sentinel, say) is left out of the schema and still works
        warnings.simplefilter("ignore", PydanticJsonSchemaWarning)
        schema = model.model_json_schema(by_alias=True)
    schema.setdefault("properties", {})
    schema.pop("description", None)
    return Arguments(tidy_schema(schema), model)


def _field(alias: str, default: Any, description: str | None) -> FieldInfo:
    options: dict[str, Any] = {"description": description} if description else {}
    field: FieldInfo = Field(default, alias=alias, **options)
    return field


def _type_hints(fn: Callable[..., Any], name: str, local_names: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        written = dict(getattr(fn, "__annotations__", {}))
        written.pop("return", None)  # means nothing here, and its module may be there for type checkers only
        parameters = SimpleNamespace(
            __annotations__=written, __globals__=getattr(inspect.unwrap(fn), "__globals__", {})
        )
        return typing.get_type_hints(parameters, localns=dict(local_names or {}), include_extras=True)
    except Exception as error:  # annotations are evaluated: they may raise anything
        cause = f"tool {name!r}: an annotation cannot be resolved ({error})"
        raise SchemaError(cause, "import or define the type in the tool's module") from error


def _annotation(name: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    where = f"tool {name!r}, parameter {parameter.name!r}"
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        kind = "positional-only" if parameter.kind is parameter.POSITIONAL_ONLY else "variadic"
        raise SchemaError(
            f"{where}: {str(parameter).split(':')[0]} is {kind}", "declare every parameter by name"
        )
    if parameter.name not in hints:
        raise SchemaError(f"{where} has no type annotation", f"write e.g. `{parameter.name}: str`")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PydanticJsonSchemaWarning)
            TypeAdapter(hints[parameter.name]).json_schema()
    except (PydanticUserError, TypeError, AttributeError) as error:
        first = str(error).splitlines()[0]
        remedy = "use JSON-like types, Literal, Enum, date, a dataclass or a pydantic model"
        raise SchemaError(
            f"{where}: {hints[parameter.name]!r} has no JSON schema ({first})", remedy
        ) from error
    return hints[parameter.name]


def tidy_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema for models: no titles, references inlined (unless recursive), objects closed."""
    definitions: dict[str, Any] = schema.get("$defs", {})
    tidy = _Tidy({f"#/$defs/{key}": value for key, value in definitions.items()})
    body = tidy.node({key: value for key, value in schema.items() if key != "$defs"}, ())
    if tidy.recursive:
        body["$defs"] = {key: _Tidy({}).node(value, ()) for key, value in definitions.items()}
    return typing.cast(dict[str, Any], body)


_UNTOLD = frozenset(("title", "uniqueItems"))
"""Titles say nothing, and no grammar can see to ``uniqueItems``: a set is made one by pydantic."""


class _Tidy:
    def __init__(self, references: Mapping[str, Any]) -> None:
        self._references = references
        self.recursive = False

    def node(self, node: Any, open_references: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [self.node(item, open_references) for item in node]
        if not isinstance(node, dict):
            return node
        reference = str(node.get("$ref"))
        if reference in open_references:
            self.recursive = True
        elif reference in self._references:
            siblings = {key: value for key, value in node.items() if key != "$ref"}
            return self.node({**self._references[reference], **siblings}, (*open_references, reference))
        body: dict[str, Any] = {}
        for key, value in node.items():
            if key in _PLAIN_VALUES or key.startswith("x-"):
                body[key] = value
            elif key in ("properties", "patternProperties"):  # their keys are names, also the name "title"
                body[key] = {name: self.node(item, open_references) for name, item in value.items()}
            elif not (key in _UNTOLD or (key == "format" and value not in _FORMATS)):
                body[key] = self.node(value, open_references)
        names = body.pop("propertyNames", {})
        if "enum" in names or "const" in names:  # a dictionary whose keys are a Literal
            keys = names.get("enum", [names.get("const")])
            body["properties"] = dict.fromkeys(keys, body.pop("additionalProperties", {}))
            body["additionalProperties"] = False
        if "properties" in body and body.get("type") == "object":
            body.setdefault("additionalProperties", False)
        return body
