"""`agentkit init`: a new project from the starter."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from agentkit.cli.common import Common, command_app, common
from agentkit.cli.output import data, json_line, note

app = command_app()


@app.command()
@common
def init(
    options: Common,
    dir: Annotated[
        Path, typer.Argument(metavar="DIR", help="A new folder, or one that holds none of these yet.")
    ],
) -> None:
    """Make a new project: tools, prompts, knowledge and a commented agentkit.toml."""
    from agentkit.project import init_project

    created = init_project(dir)
    if options.as_json:
        json_line({"project": str(dir), "created": [str(path) for path in created]})
        return
    for path in created:
        data(f"{path}{'/' if path.is_dir() else ''}")
    note(f"chat with it: cd {shlex.quote(str(dir))} && agentkit chat")
