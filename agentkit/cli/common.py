"""Options that every command takes, before or after its name, and how a command is declared."""

from __future__ import annotations

import functools
import inspect
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from agentkit.build import Workspace

DATA = "data on stdout as JSON, one object a line"


@dataclass(frozen=True, slots=True)
class Common:
    """The values of the common options; ``None`` means not given."""

    project: Path | None = None
    model: str | None = None
    adapter: str | None = None
    device: str | None = None
    quantize: str | None = None
    seed: int | None = None
    as_json: bool | None = None
    no_input: bool | None = None
    debug: bool | None = None

    def settings(self, **more: Any) -> dict[str, Any]:
        """The dotted settings that were given, for `build.open_project`; ``more`` are further keys."""
        own = {name: getattr(self, name) for name in ("model", "adapter", "device", "quantize")}
        values = {**own, "sampling.seed": self.seed, **more}
        return {key: value for key, value in values.items() if value is not None}

    @property
    def again(self) -> str:
        """What a further command has to say to find the same project; empty, or with a blank before it."""
        return f" --project {shlex.quote(str(self.project))}" if self.project is not None else ""

    @contextmanager
    def workspace(self, **more: Any) -> Iterator[Workspace]:
        """The project, opened; closed at the end."""
        from agentkit import build

        workspace = build.open_project(self.project, self.settings(**more))
        hush(workspace.settings.model)
        try:
            yield workspace
        finally:
            workspace.close()


def hush(model: str) -> None:
    """No bars of other libraries for what loads in seconds; downloads from the hub keep theirs."""
    from agentkit.assets import ASSETS
    from agentkit.settings import expanded

    with suppress(OSError):  # no path at all
        if model not in ASSETS and not expanded(model).exists():
            return
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before anything imports the library


def _print_version(wanted: bool | None) -> None:
    if wanted:
        from agentkit.__about__ import __version__

        print(f"agentkit {__version__}")
        raise typer.Exit


_HELP = {
    "project": "Project folder.",
    "model": "Embedded name, hub id, folder, .gguf file or server (openai+http://HOST/v1#MODEL).",
    "adapter": "auto, none, shipped, a name or a path.",
    "device": "auto, cpu or cuda.",
    "quantize": "auto, none, int8, int4 or nf4.",
    "seed": "Seed of sampling.",
    "as_json": f"Print {DATA}.",
    "no_input": "Never ask questions.",
    "debug": "Show the traceback of an error.",
}
_TYPES: dict[str, Any] = {"project": Path | None, "seed": int | None}
_FLAGS = {"as_json": "--json", "no_input": "--no-input", "debug": "--debug"}
_METAVARS = {"project": "DIR", "model": "M", "adapter": "A", "device": "D", "quantize": "Q", "seed": "N"}


def _parameters() -> list[inspect.Parameter]:
    declared = []
    for name, text in _HELP.items():
        option = typer.Option(_FLAGS.get(name, f"--{name}"), help=text, metavar=_METAVARS.get(name))
        kind = bool | None if name in _FLAGS else _TYPES.get(name, str | None)
        declared.append((name, Annotated[kind, option]))
    version = typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    declared.append(("version", Annotated[bool | None, version]))
    only = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(name, only, default=None, annotation=kind) for name, kind in declared]


_PARAMETERS = _parameters()


def common(fn: Callable[..., int | None]) -> Callable[..., int | None]:
    """Add the common options to a command whose first parameter is a `Common`.

    What is given behind the command's name wins over what stands before it. It returns its exit code.
    """
    # Typer reads the signature, so the options are added there rather than to every function by hand.
    own = list(inspect.signature(fn, eval_str=True).parameters.values())[1:]
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *own, *_PARAMETERS]

    @functools.wraps(fn)
    def command(ctx: typer.Context, **values: Any) -> int | None:
        values.pop("version")
        given = {field.name: values.pop(field.name) for field in fields(Common)}
        outer = ctx.obj if isinstance(ctx.obj, Common) else Common()
        ctx.obj = replace(outer, **{name: value for name, value in given.items() if value is not None})
        return fn(ctx.obj, **values)

    del command.__wrapped__  # or typer would look at the original's hints
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def command_app() -> typer.Typer:
    """For a module with a single command."""
    return typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


def group_app(name: str, text: str) -> typer.Typer:
    """For a module with a group of commands; the group takes the common options too."""
    app = typer.Typer(
        name=name, help=text, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
    )

    @app.callback()
    @common
    def callback(options: Common) -> None:
        pass

    return app
