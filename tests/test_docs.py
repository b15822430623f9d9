"""The documentation against the program: commands, settings, Python and links."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from agentkit import events
from agentkit.cli.main import app
from agentkit.messages import Citation, Reply, ToolResult, Usage

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ENDS = {"|", "&&", ";", ">", "2>", "&"}


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and content of every fenced block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def name(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


# Commands


def command_lines() -> Iterator[tuple[str, str, bool]]:
    """Page, command line and whether it is complete: those in prose may leave out arguments."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for language, block in blocks(page):
            if language in ("", "sh", "bash", "console"):
                for line in block.splitlines():
                    yield from ((name(page), part, True) for part in invocations(line))
        for code in re.findall(r"`([^`\n]+)`", BLOCK.sub("", text)):
            yield from ((name(page), part, False) for part in invocations(code))


def invocations(line: str) -> list[str]:
    """The calls of agentkit in one line of shell, without their variables, folders and pipes."""
    if not re.match(r"(\$ |[A-Z_]+=\S+ |\S*bin/|cd \S+ && |echo .*\| )*agentkit( |$)", line):
        return []
    calls, current = [], list[str]()
    for word in [*shlex.split(line, comments=True), ";"]:
        if word in ENDS:
            start = next((n for n, w in enumerate(current) if w.split("/")[-1] == "agentkit"), None)
            calls += [] if start is None else [shlex.join(current[start + 1 :])]
            current = []
        else:
            current.append(word)
    return calls


def parse(arguments: list[str], complete: bool) -> str | None:
    """What is wrong with a command line; nothing of it is run."""
    command: Any = typer.main.get_command(app)
    context, title = None, "agentkit"
    try:
        while True:
            context = command.make_context(title, list(arguments), parent=context)
            rest = [*getattr(context, "_protected_args", ()), *context.args]
            if not hasattr(command, "resolve_command") or not rest:
                return None
            title, command, arguments = command.resolve_command(context, rest)
            if not arguments and hasattr(command, "resolve_command"):
                return None  # a group by itself
    except typer.Exit:
        return None  # --help and --version
    except Exception as error:
        if not complete and type(error).__name__ == "MissingParameter":
            return None
        return f"{type(error).__name__}: {getattr(error, 'message', None) or error}"


def test_every_command_line_shown_exists() -> None:
    shown = list(command_lines())
    wrong = []
    for page, line, complete in shown:
        problem = parse(shlex.split(line), complete)
        if problem:
            wrong.append(f"{page}: agentkit {line}: {problem}")
    assert wrong == []
    assert len(shown) > 40


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        ("ask hello --seed 3", True),
        ("--seed 3 ask hello", True),
        ("knowledge", True),
        ("--version", True),
        ("ask hello --sead 3", False),
        ("aks hello", False),
        ("knowledge serach x", False),
        ("ask hello --seed three", False),
        ("tools show", False),
    ],
)
def test_a_wrong_command_line_is_noticed(line: str, fits: bool) -> None:
    assert (parse(shlex.split(line), complete=True) is None) == fits


@pytest.mark.parametrize(
    ("line", "calls"),
    [
        ("agentkit chat", ["chat"]),
        ("$ .venv/bin/agentkit chat  # comes back", ["chat"]),
        ("cd shop && agentkit chat", ["chat"]),
        ("AGENTKIT_SEED=3 agentkit ask 'a b'", ["ask 'a b'"]),
        ("echo hi | agentkit ask - --json | tail -n 1", ["ask - --json"]),
        ("agentkit/build/agent.py", []),
        ("pip install agentkit", []),
    ],
)
def test_command_lines_are_found(line: str, calls: list[str]) -> None:
    assert invocations(line) == calls


# Python


def python_blocks() -> list[Any]:
    found = []
    for page in PAGES:
        codes = [code for language, code in blocks(page) if language == "python"]
        found += [pytest.param(code, id=f"{name(page)}-{n}") for n, code in enumerate(codes, 1)]
    return found


@pytest.mark.parametrize("code", python_blocks())
def test_python_compiles_and_imports_public_names(code: str) -> None:
    compile(code, "block", "exec")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "agentkit":
            public = set(importlib.import_module("agentkit").__all__)
            for alias in node.names:
                assert not alias.name.startswith("_")
                assert hasattr(importlib.import_module(str(node.module)), alias.name)
                assert node.module != "agentkit" or alias.name in public


def complete_examples() -> list[Any]:
    """Blocks that need no model: those that only define tools, and those with a scripted one."""
    wanted = []
    for block in python_blocks():
        code = block.values[0]
        if "ScriptedModel" in code or ("@tool" in code and "Agent(" not in code):
            wanted.append(block)
    return wanted


@pytest.mark.parametrize("code", complete_examples())
def test_complete_examples_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "block", "exec", dont_inherit=True), names)
    assert any(type(value).__name__ == "Tool" for value in names.values())


def test_there_are_examples_that_run() -> None:
    assert any("ScriptedModel" in block.values[0] for block in complete_examples())


ABSENT = ("start_finetune(", "warm-wishes")
"""Blocks with one of these need a training run."""


def printed(code: str) -> list[str]:
    """The lines that a block says it prints: behind a call of ``print``, or on lines of their own without indent."""
    behind = re.findall(r"^.*\bprint\(.*\)  # (.+)$|^# (.+)$", code, re.MULTILINE)
    return [inline or own for inline, own in behind]


def test_what_a_block_prints_is_found() -> None:
    code = "x = 1  # not this\nprint(x)  # 1\nfor y in x:\n    # nor this\n    print(y)\n# 2\n# 3\n"
    assert printed(code) == ["1", "2", "3"]


@pytest.mark.parametrize("page", [REPOSITORY / "README.md", DOCS / "python.md"], ids=name)
def test_python_of_a_page_runs_with_the_embedded_model(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One block after the other, in a folder as their text supposes; each prints what it says, ``…`` being anything."""
    picture = Image.new("RGB", (64, 64), "green")
    picture.save(tmp_path / "photo.jpg")
    for file, text in {
        "handbook.md": "# Handbook\n\nThe notice period of a contract is three months.\n",
        "policies/leave.md": "# Leave\n\nThe notice period for a leave of absence is two weeks for everybody.\n",
        "knowledge/wrapping.md": "# Gifts\n\nGift wrapping costs four euros for each item of an order.\n",
    }.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    names: dict[str, Any] = {"__name__": "example"}
    ran = 0
    for language, code in blocks(page):
        if language == "python" and not any(word in code for word in ABSENT):
            exec(compile(code, name(page), "exec", dont_inherit=True), names)
            shown = capsys.readouterr().out
            for line in printed(code):
                assert re.search(rf"^{'.*'.join(map(re.escape, line.split('…')))}$", shown, re.MULTILINE), (
                    shown
                )
            ran += 1
    assert ran >= 4


# Generated pages, links, pictures


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["cli.md", "settings.md"])
def test_generated_pages_are_current(page: str) -> None:
    written = (DOCS / page).read_text(encoding="utf-8")
    assert written == generator().PAGES[page](), "run `python docs/generate.py`"


@pytest.mark.parametrize(
    "page", [*PAGES, REPOSITORY / "CHANGELOG.md", REPOSITORY / "CONTRIBUTING.md"], ids=name
)
def test_links_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = []
    for link in links:
        file, _, heading = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (heading and heading not in anchors(target)):
            missing.append(link)
    assert missing == []


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_pictures_are_small() -> None:
    pictures = list((DOCS / "images").iterdir())
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size > 300_000] == []


# Events


def codes_of_notices() -> set[str]:
    """Every code that the package gives a `Notice`, or names for one."""
    found = {"bad_call", "bad_answer"}  # chosen by a variable
    for path in (REPOSITORY / "agentkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Notice" and node.args:
                code = node.args[0]
                found |= {code.value} if isinstance(code, ast.Constant) else set()
    return found


def test_every_event_field_and_code_is_told() -> None:
    page = (DOCS / "events.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(\w+)`", page))
    assert codes_of_notices() <= told
    kinds = [
        kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)
    ]
    fields = {
        field.name
        for kind in (*kinds, Reply, Citation, Usage, ToolResult)
        for field in dataclasses.fields(kind)
    }
    assert {kind.type for kind in kinds if kind is not events.Event} <= told
    assert fields - {"reply"} <= told
    assert len(codes_of_notices()) > 20
