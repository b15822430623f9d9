"""`agentkit`: finds the command, and turns every error into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from agentkit.cli.common import Common, command_app, common
from agentkit.errors import UsageError

COMMANDS = {
    "demo": "Play a customer conversation on the embedded model.",
    "chat": "Chat in the terminal; line by line where there is none.",
    "ask": "Ask one question.",
    "tools": "List, show and call tools.",
    "knowledge": "Search and keep the knowledge base.",
    "sessions": "List, show, rate, export, fork and delete conversations.",
    "finetune": "Train adapters and models, and use them.",
    "eval": "Measure answers, tool calls, routing and perplexity over labelled examples.",
    "models": "List and fetch embedded models, look at any model.",
    "init": "Make a new project from the starter.",
    "doctor": "Check that everything needed is there.",
}
"""Name and summary; the module of the same name is only loaded when its command is called."""
_MODULES = {
    "demo": "agentkit.cli.main",
    "eval": "agentkit.cli.evaluate",
    "init": "agentkit.cli.new_project",
}
_INTERRUPTED = 130


class _LazyGroup(TyperGroup):
    """Loads a command's module when it is called; help needs the table above only."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(_MODULES.get(cmd_name, f"agentkit.cli.{cmd_name}"))
        command = typer.main.get_command(module.demo_app if cmd_name == "demo" else module.app)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # The base class suggests near names from this attribute.
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=_LazyGroup,
    name="agentkit",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=True,
)
demo_app = command_app()


@app.callback()
@common
def root(options: Common) -> None:
    """A local-first agent: answers from your knowledge base, calls tools, runs on your machine."""


@demo_app.command()
@common
def demo(options: Common) -> int:
    """Play a scripted customer conversation on the embedded model; exit 1 if a step failed.

    It is about the starter project, whatever the project here. Without apertium the translation is skipped.
    """
    from agentkit.cli import demo as play

    if options.project is not None:
        raise UsageError("demo plays in the starter project", "leave --project out")
    return play.run(bool(options.as_json), options.settings())


def main() -> None:
    """The console script."""
    # Let `finally` do its work, as at Ctrl+C.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed."""
    before = list(arguments)[: list(arguments).index("--")] if "--" in arguments else list(arguments)
    debug = "--debug" in before
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal in another encoding is no reason to fail
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
    try:
        result = app(list(arguments) or ["--help"], prog_name="agentkit", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        return _quiet()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except Exception as error:  # an error is one line; --debug shows the rest
        if debug:
            traceback.print_exc()
        return _report(error)


def _open_closed_streams() -> None:
    """Python has no stream where a descriptor was closed, as by ``<&-``: there is nothing to read, nobody reads."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - until the end


def _report(error: Exception) -> int:
    from agentkit.cli.output import one_line, status
    from agentkit.errors import AgentkitError

    status("")
    if isinstance(error, AgentkitError):
        message, code = str(error), error.exit_code
    elif hasattr(error, "format_message"):  # typer's own: wrong options or arguments
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "agentkit"
        message, code = f"{error.format_message().rstrip('.')}; see `{path} --help`", 2
    else:
        detail = f": {error}" if str(error) else ""
        message, code = f"unexpected {type(error).__name__}{detail}; run again with --debug", 1
    print(f"agentkit: {one_line(message, 2000)}", file=sys.stderr)
    return code


def _quiet() -> int:
    """Nobody reads any more: keep the interpreter from complaining when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


if __name__ == "__main__":
    main()
