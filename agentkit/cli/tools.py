"""`agentkit tools`: what the project can do, and doing it by hand."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentkit.cli.common import Common, common, group_app
from agentkit.cli.output import can_ask, confirm, data, json_line, json_text, note, one_line, table

if TYPE_CHECKING:
    from agentkit.tooling.tool import Tool

app = group_app("tools", "List, show and call tools.")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The tool.")]


@app.command("list")
@common
def list_tools(options: Common) -> None:
    """List the project's tools."""
    with options.workspace() as workspace:
        tools = list(workspace.registry)
        if options.as_json:
            for tool in tools:
                json_line(_describe(tool))
            return
        rows = [
            (tool.name, _signature(tool), one_line(tool.spec.description.split("\n")[0])) for tool in tools
        ]
        table(rows, ("NAME", "ARGUMENTS", "DOES"))
        if not rows:
            note(f"no tools in {workspace.project.tools_dir}")


@app.command()
@common
def show(options: Common, name: Name) -> None:
    """Show a tool's description, limits and JSON schema."""
    with options.workspace() as workspace:
        tool = workspace.registry.get(name)
        limits = workspace.settings.tools
        if options.as_json:
            json_line(_describe(tool))
            return
        data(f"{tool.name}({_signature(tool)})")
        data(f"  {tool.spec.description.strip()}")
        timeout = tool.timeout_s if tool.timeout_s is not None else limits.timeout_s
        output = tool.output_limit if tool.output_limit is not None else limits.output_limit
        data(f"  side effect: {'yes, calls need approval' if tool.side_effect else 'none'}")
        data(f"  limits: {timeout:g} s, {output} characters")
        data(f"  from: {tool.source or tool.entry_point or 'code'}")
        data(json_text(tool.spec.parameters, indent=2))


@app.command()
@common
def call(
    options: Common,
    name: Name,
    arguments: Annotated[
        str, typer.Argument(metavar="JSON", help="The arguments as an object; - reads stdin.")
    ] = "{}",
    approve: Annotated[
        str | None, typer.Option(metavar="all|none", help="Whether side effects may happen.")
    ] = None,
) -> int:
    """Call a tool within its limits; exit 1 where it fails."""
    from agentkit.messages import ToolCall

    with options.workspace() as workspace:
        tool = workspace.registry.get(name)
        text = sys.stdin.buffer.read().decode("utf-8", "replace") if arguments == "-" else arguments
        values = _arguments(text)
        if tool.arguments is not None:
            tool.arguments.validate(values)
        no_input = options.no_input or arguments == "-"
        _approve(tool, approve or workspace.settings.agent.approve, no_input)
        result = workspace.registry.run(ToolCall("call_0", tool.name, values))
    if options.as_json:
        json_line(result.to_json())
    elif result.ok:
        data(result.value if isinstance(result.value, str) else json_text(result.value, indent=2))
    if not result.ok:
        note(one_line(result.error or "failed"), f"agentkit: {tool.name}:")
    elif result.truncated:
        note("the result was cut to the tool's output limit", "!")
    return 0 if result.ok else 1


def _arguments(text: str) -> dict[str, Any]:
    from agentkit.errors import UsageError
    from agentkit.messages import no_json

    example = 'pass an object, e.g. \'{"text": "hello"}\''
    try:
        values = json.loads(text, parse_constant=no_json)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the arguments are not JSON: {error}", example) from error
    if not isinstance(values, dict):
        raise UsageError(f"the arguments are {type(values).__name__}, not an object", example)
    return values


def _approve(tool: Tool, approve: str, no_input: bool | None) -> None:
    from agentkit.errors import UsageError

    if approve not in ("all", "none", "ask"):
        raise UsageError(f"--approve {approve}: unknown choice", "use all or none")
    if not tool.side_effect or approve == "all":
        return
    if approve == "ask" and can_ask(no_input) and confirm(f"{tool.name} changes something outside. Call it?"):
        return
    raise UsageError(f"{tool.name} changes something outside and was not approved", "add --approve all")


def _signature(tool: Tool) -> str:
    required = tool.spec.parameters.get("required", [])
    names = tool.spec.parameters.get("properties", {})
    return ", ".join(name if name in required else f"{name}?" for name in names)


def _describe(tool: Tool) -> dict[str, Any]:
    spec = tool.spec
    return {
        "name": spec.name,
        "description": spec.description,
        "parameters": spec.parameters,
        "side_effect": tool.side_effect,
        "source": str(tool.source) if tool.source else tool.entry_point,
    }
