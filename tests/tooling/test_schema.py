"""`@tool`: schemas from signatures, coercion, and every error at decoration."""

from __future__ import annotations

import dataclasses
import enum
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from agentkit.errors import SchemaError, UsageError
from agentkit.messages import ToolExample, ToolSpec
from agentkit.tooling.tool import Tool, tool


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    """Where to."""

    street: str
    title: str = "Ms"
    """A property that is called like a schema keyword."""


@dataclasses.dataclass
class Item:
    sku: str
    count: int = 1


class Node(BaseModel):
    name: str
    children: list[Node] = []


def test_words_of_ones_own_in_a_schema_stay_as_they_are() -> None:
    words = {"title": ["name of the book"], "format": ["layout"]}

    @tool
    def sort(by: Annotated[str, Field(json_schema_extra={"x-synonyms": words})]) -> str:
        """Sort.

        Args:
            by: What by.
        """
        return by

    assert sort.spec.parameters["properties"]["by"]["x-synonyms"] == words


def test_the_whole_schema_of_a_tool() -> None:
    @tool
    def order_status(order_id: str, verbose: bool = False) -> dict[str, Any]:
        """Look up
        an order.

        More words that the model does not need.

        Args:
            order_id: The order number printed
                on the receipt.
            verbose (bool): Every step.

        Returns:
            status: Not a parameter.
        """
        return {"order": order_id, "verbose": verbose}

    assert order_status.spec.to_openai() == {
        "type": "function",
        "function": {
            "name": "order_status",
            "description": "Look up an order.",
            "parameters": {
                "type": "object",
                "properties": {
                    "order_id": {"type": "string", "description": "The order number printed on the receipt."},
                    "verbose": {"type": "boolean", "description": "Every step.", "default": False},
                },
                "required": ["order_id"],
                "additionalProperties": False,
            },
        },
    }
    assert order_status("7") == {"order": "7", "verbose": False}


@pytest.mark.parametrize(
    ("annotation", "schema", "given", "received"),
    [
        (str, {"type": "string"}, "a", "a"),
        (int, {"type": "integer"}, 3, 3),
        (float, {"type": "number"}, 3, 3.0),
        (bool, {"type": "boolean"}, True, True),
        (date, {"type": "string", "format": "date"}, "2024-02-29", date(2024, 2, 29)),
        (
            datetime,
            {"type": "string", "format": "date-time"},
            "2024-02-29T10:00:00",
            datetime(2024, 2, 29, 10),
        ),
        (Path, {"type": "string"}, "a/b", Path("a/b")),
        (set[int], {"type": "array", "items": {"type": "integer"}}, [1, 2, 2], {1, 2}),
        (bytes, {"type": "string"}, "ab", b"ab"),
        (
            dict[Literal["a", "b"], int],
            {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "additionalProperties": False,
            },
            {"a": 1},
            {"a": 1},
        ),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}, "b", "b"),
        (Colour, {"type": "string", "enum": ["red", "blue"]}, "blue", Colour.BLUE),
        (list[int], {"type": "array", "items": {"type": "integer"}}, [1, 2], [1, 2]),
        (
            dict[str, float],
            {"type": "object", "additionalProperties": {"type": "number"}},
            {"a": 1},
            {"a": 1.0},
        ),
        (str | None, {"anyOf": [{"type": "string"}, {"type": "null"}]}, None, None),
        (Any, {}, [1], [1]),
        (Annotated[int, Field(ge=1, description="How many")],
         {"type": "integer", "minimum": 1, "description": "How many"}, 2, 2),
        (
            Address,
            {
                "type": "object",
                "description": "Where to.",
                "properties": {"street": {"type": "string"}, "title": {"type": "string", "default": "Ms"}},
                "required": ["street"],
                "additionalProperties": False,
            },
            {"street": "Main"},
            Address(street="Main"),
        ),
        (
            list[Item],
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"sku": {"type": "string"}, "count": {"type": "integer", "default": 1}},
                    "required": ["sku"],
                    "additionalProperties": False,
                },
            },
            [{"sku": "x"}],
            [Item("x")],
        ),
    ],
)  # fmt: skip
def test_every_kind_of_parameter(annotation: Any, schema: Any, given: Any, received: Any) -> None:
    def take(value) -> str:  # type: ignore[no-untyped-def]
        """Take it."""
        seen.append(value)
        return "ok"

    seen: list[Any] = []
    take.__annotations__ = {"value": annotation}
    made = tool(take)
    assert made.spec.parameters["properties"]["value"] == schema
    assert made.call({"value": given}) == "ok"
    assert seen == [received]


def test_a_recursive_type_keeps_its_definitions() -> None:
    @tool
    def plant(tree: Node) -> str:
        """Plant it."""
        return tree.children[0].name

    assert plant.spec.parameters["$defs"]["Node"]["additionalProperties"] is False
    assert plant.call({"tree": {"name": "a", "children": [{"name": "b"}]}}) == "b"


def test_names_that_pydantic_uses_itself_are_legal_parameters() -> None:
    @tool
    def odd(json: str, model_config: int, copy: bool = True, _hidden: str = "h") -> str:
        """Odd names."""
        return f"{json}{model_config}{copy}{_hidden}"

    assert list(odd.spec.parameters["properties"]) == ["json", "model_config", "copy", "_hidden"]
    assert odd.call({"json": "a", "model_config": 1}) == "a1Trueh"


def test_a_local_type_and_a_default_without_json_form() -> None:
    class Size(enum.Enum):
        S = "s"

    @tool
    def fit(size: Size, like: Decimal = Decimal("1.5"), other: Any = object) -> str:
        """Fit it."""
        return size.name

    assert fit.call({"size": "s"}) == "S"
    assert "default" not in fit.spec.parameters["properties"]["other"]


def test_a_coroutine_is_awaited() -> None:
    @tool
    async def slow(x: int) -> int:
        """Later."""
        return x + 1

    assert slow.call({"x": 1}) == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "order: Field required"),
        ({"order": "x"}, "order: Input should be a valid integer"),
        ({"order": 1, "more": 2}, "more: Extra inputs are not permitted"),
    ],
)
def test_wrong_arguments_name_the_parameter(arguments: dict[str, Any], text: str) -> None:
    @tool
    def look(order: int) -> int:
        """Look."""
        return order

    with pytest.raises(UsageError, match=text):
        look.call(arguments)


def test_options_and_examples() -> None:
    @tool(name="cancel", side_effect=True, timeout_s=2, output_limit=500, examples=[("stop 7", {"order": 7})])
    def cancel_order(order: int) -> str:
        """Cancel it."""
        return f"cancelled {order}"

    assert (cancel_order.name, cancel_order.side_effect) == ("cancel", True)
    assert (cancel_order.timeout_s, cancel_order.output_limit) == (2, 500)
    assert cancel_order.spec.examples == (ToolExample("stop 7", {"order": 7}),)


def no_annotation(x) -> str:  # type: ignore[no-untyped-def]
    """Words."""
    return str(x)


def variadic(*parts: str) -> str:
    """Words."""
    return "".join(parts)


def keywords(**parts: str) -> str:
    """Words."""
    return "".join(parts)


def positional(x: str, /) -> str:
    """Words."""
    return x


def no_json(x: threading.Lock) -> str:  # type: ignore[name-defined]  # noqa: F821
    """Words."""
    return str(x)


def arbitrary(x: SchemaError) -> str:
    """Words."""
    return str(x)


def undocumented(x: str) -> str:
    return x


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (no_annotation, "tool 'no_annotation', parameter 'x' has no type annotation"),
        (variadic, "tool 'variadic', parameter 'parts': .* variadic"),
        (keywords, "tool 'keywords', parameter 'parts': .* variadic"),
        (positional, "tool 'positional', parameter 'x': .* positional-only"),
        (no_json, "tool 'no_json': an annotation cannot be resolved .*threading"),
        (arbitrary, "tool 'arbitrary', parameter 'x': .* has no JSON schema"),
        (undocumented, "tool 'undocumented' has no docstring"),
        (lambda: 1, "'<lambda>' is no name for a tool"),
    ],
)
def test_what_cannot_become_a_tool(function: Any, text: str) -> None:
    with pytest.raises(SchemaError, match=text):
        tool(function)


@pytest.mark.parametrize("name", ["", "7up", "a b", "a.b", "é", "a" * 65, "a\n"])
def test_bad_names(name: str) -> None:
    with pytest.raises(SchemaError, match="no name for a tool"):
        tool(name=name)(Path.home)


def test_a_reply_that_is_no_template_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"tool 'home': its reply is no template: .*unexpected '}'"):
        tool(name="home", reply="It is {{ result }.")(Path.home)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout_s": 0},
        {"output_limit": -1},
        {"timeout_s": True},
        {"timeout_s": float("nan")},
        {"output_limit": 1e4},
    ],
)
def test_bad_limits(options: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match="is no limit"):
        tool(**options)(variadic)


@pytest.mark.parametrize("example", [("text",), ("text", {"order": "x"}), ("text", {"other": 1}), 5])
def test_bad_examples(example: Any) -> None:
    def look(order: int) -> int:
        """Look."""
        return order

    with pytest.raises(SchemaError, match=r"the example .* does not fit"):
        tool(examples=[example])(look)


def test_a_tool_from_an_openai_schema() -> None:
    function = {"name": "math.add", "description": "Add.", "parameters": {"type": "object", "properties": {}}}
    made = Tool.from_schema({"type": "function", "function": function})
    assert made.spec.to_openai()["function"] == function
    assert Tool.from_schema({"name": "bare"}).spec.parameters == {"type": "object", "properties": {}}
    with pytest.raises(UsageError, match="only a schema"):
        made()


@pytest.mark.parametrize(
    "schema", [{}, {"function": {"name": ""}}, {"name": "a\x1b[2J"}, {"name": 3}, "x", None]
)
def test_schemas_without_a_usable_name(schema: Any) -> None:
    with pytest.raises(SchemaError, match="no usable name"):
        Tool.from_schema(schema)


def test_parameters_of_another_kind() -> None:
    with pytest.raises(SchemaError, match="JSON schema of an object"):
        Tool.from_schema({"name": "a", "parameters": {"type": "array"}})


def test_a_field_is_no_default() -> None:
    with pytest.raises(
        SchemaError, match=r"parameter 'count' has a Field as its default; write count: Annotated"
    ):

        @tool
        def order(count: int = Field(5, ge=1)) -> int:
            """Order."""
            return count


def test_what_a_tool_returns_need_not_be_known() -> None:
    @tool
    def vector(text: str) -> np.ndarray:  # type: ignore[name-defined]  # noqa: F821
        """A vector."""
        return [len(text)]

    assert vector("abc") == [3]


def test_examples_are_plain_json() -> None:
    @tool(examples=[("Book it for 3 March", {"day": date(2025, 3, 3), "colour": Colour.RED})])
    def book(day: date, colour: Colour) -> str:
        """Book."""
        return f"{day} {colour}"

    (example,) = book.spec.examples
    assert example.arguments == {"day": "2025-03-03", "colour": "red"}


def test_older_drafts_are_read_as_today_s() -> None:
    spec = ToolSpec(
        "t",
        "",
        {
            "type": "object",
            "properties": {
                "pair": {
                    "type": "array",
                    "items": [{"type": "integer"}, {"type": "string"}],
                    "additionalItems": False,
                },
                "above": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
                "most": {"type": "number", "maximum": 9, "exclusiveMaximum": False},
            },
        },
    )
    assert spec.schema["properties"] == {
        "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
        "above": {"type": "number", "exclusiveMinimum": 0},
        "most": {"type": "number", "maximum": 9},
    }
