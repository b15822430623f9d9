"""Writes docs/cli.md and docs/settings.md from the program itself: `python docs/generate.py`.

`tests/test_docs.py` fails where a page is not what this would write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agentkit.cli.main import app
from agentkit.settings import Settings
from agentkit.training.settings import OWN, JobSettings

DOCS = Path(__file__).resolve().parent
WIDTH = 100
COMMON = {
    "project",
    "model",
    "adapter",
    "device",
    "quantize",
    "seed",
    "as_json",
    "no_input",
    "debug",
    "version",
}
HEADING = ("| key | type | default | meaning |", "|---|---|---|---|")
_BOUNDS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}

CLI_INTRODUCTION = """\
# Commands

Written by `python docs/generate.py` from the program's own help; change the docstrings, not this page.

Every command takes the options of the first block but the two for completion, before or after its name; below that
they are left out. `demo` refuses `--project`, and `finetune start` refuses `--adapter` and `--quantize`.
Data goes to stdout and everything else to stderr. Exit codes: 0 done, 1 failed while running, 2 wrong usage or
configuration, 130 stopped by Ctrl+C, 143 by SIGTERM. An error is one line that names the cause and the remedy.
"""

SETTINGS_INTRODUCTION = """\
# Settings

Written by `python docs/generate.py` from `agentkit/settings.py`; change the docstrings there, not this page.

A setting comes from, in falling order: an option on the command line, the environment, `agentkit.toml`, the
default. Unknown keys are refused everywhere, with the list of the known ones. `agentkit init DIR` writes an
`agentkit.toml` that holds every key, commented out, with its default and meaning.

Environment names follow the keys, in capitals, with two underscores between section and key: `AGENTKIT_MODEL` is
`model`, `AGENTKIT_SAMPLING__SEED` is `[sampling] seed`. Lists and tables are written as in TOML. In Python the same
keys are keyword arguments, with two underscores too: `Agent.from_project(sampling__seed=3)`.

Relative paths (`model`, `adapter`, `[knowledge] embedder` and `reranker`, `model` of a tool) begin at `agentkit.toml`
where they stand in it, else at the current folder.
"""

TRAINING_INTRODUCTION = """\
## Training settings

Of `agentkit finetune start --settings FILE.toml`, written without a section; options of the command win over the
file. The `settings.json` that is kept with an adapter can be given too: what was that run's own is left out.
"""

SETTINGS_ENDING = """\
## Other variables

They say where things are, or hold a secret; they are no settings.

| variable | meaning |
|---|---|
| `AGENTKIT_API_KEY` | Key of a remote model; `OPENAI_API_KEY` goes to OpenAI and this machine only. |
| `AGENTKIT_PROJECT` | The project's folder, where `--project` is not given. |
| `AGENTKIT_DATA_DIR` | User data: sessions, indexes, jobs, adapters. Otherwise the platform's user data folder. |
| `AGENTKIT_CACHE_DIR` | Embedded models. Otherwise the platform's user cache folder. |
| `HF_HOME` | Where models from the hub are kept. |
| `HF_HUB_OFFLINE` | `1`: the hub is never asked; what it has delivered before still loads. |
| `NO_COLOR` | No colours in the output of commands. |
"""


def cli_page() -> str:
    """The help of every command."""
    root: Any = typer.main.get_command(app)
    context = root.make_context("agentkit", [], resilient_parsing=True, terminal_width=WIDTH)
    parts = [CLI_INTRODUCTION, _block(context.get_help())]
    for path, help_text in _commands(root, context):
        parts += [f"{'#' * (1 + path.count(' '))} {path}\n", _block(help_text)]
    return "\n".join(parts)


def _commands(group: Any, context: Any) -> Iterator[tuple[str, str]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        for parameter in command.params:
            if parameter.name in COMMON:
                parameter.hidden = True
        inner = type(context)(command, parent=context, info_name=name, terminal_width=WIDTH)
        yield inner.command_path, inner.get_help()
        if hasattr(command, "list_commands"):
            yield from _commands(command, inner)


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"


def settings_page() -> str:
    """Every setting: key, type, default and meaning."""
    return "\n".join(
        [SETTINGS_INTRODUCTION, *_section(Settings, ""), TRAINING_INTRODUCTION, _training(), SETTINGS_ENDING]
    )


def _training() -> str:
    fields = {key: field for key, field in JobSettings.model_fields.items() if key not in OWN}
    return "\n".join([*HEADING, *(_row(key, field) for key, field in fields.items()), ""])


def _section(model: type[BaseModel], name: str) -> Iterator[str]:
    title = f"`[{name}]`" if name else "Top level"
    rows = [f"## {title}", "", *([_prose(model.__doc__), ""] if name else [])]
    rows += HEADING
    nested = []
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            nested.append((field.annotation, f"{name}.{key}".strip(".")))
        else:
            rows.append(_row(key, field))
    yield "\n".join([*rows, ""])
    for inner, inner_name in nested:
        yield from _section(inner, inner_name)


def _row(key: str, field: FieldInfo) -> str:
    return f"| `{key}` | {_type(field)} | {_default(field)} | {_prose(field.description)} |"


def _type(field: FieldInfo) -> str:
    limits = [f"{sign} {getattr(m, key):,}" for m in field.metadata for key, sign in [_BOUNDS[type(m)]]]
    return ", ".join([_type_name(field.annotation), *limits])


def _type_name(annotation: Any) -> str:
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return _type_name(next(part for part in arguments if part is not type(None)))
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    return names.get(annotation, "tables" if origin is dict else str(annotation))


def _default(field: FieldInfo) -> str:
    if field.default is None or field.default == {}:
        return ""
    return f"`{json.dumps(field.default, ensure_ascii=False)}`"


def _prose(text: str | None) -> str:
    return " ".join((text or "").replace("``", "`").replace("|", "\\|").split())


PAGES = {"cli.md": cli_page, "settings.md": settings_page}

if __name__ == "__main__":
    for file_name, page in PAGES.items():
        (DOCS / file_name).write_text(page(), encoding="utf-8")
        print(DOCS / file_name)
