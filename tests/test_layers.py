"""Holds the imports of agentkit to the table in docs/architecture.md, which is read from there."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "agentkit"
HEAVY = (
    "torch",
    "transformers",
    "faiss",
    "textual",
    "bitsandbytes",
    "peft",
    "spacy",
    "sentence_transformers",
)
ANYWHERE = {"__about__"}  # the version

Edge = tuple[str, int, str, str]
"""File, line, the importing room and the imported one. A room is a module or folder right within agentkit."""


def table() -> tuple[dict[str, int], list[set[str]]]:
    """Row of each room, and the sets of rooms in one row that must not know each other."""
    rows: dict[str, int] = {}
    strangers = []
    for line in (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        found = re.match(r"\| (\d+) \| ([^|]+) \| ([^|]+) \|$", line)
        if found:
            rooms = re.findall(r"`(\w+)/?`", found[2])
            rows |= dict.fromkeys(rooms, int(found[1]))
            if "Neither knows the other" in found[3]:
                strangers.append(set(rooms))
    return rows, strangers


def imported(tree: ast.AST, module: str) -> list[tuple[int, str]]:
    """Line and full name of every import, also within functions and under TYPE_CHECKING."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(module.split(".")[: -node.level]) + "." if node.level else ""
            names += [(node.lineno, f"{base}{node.module or ''}.{alias.name}") for alias in node.names]
    return names


def edges() -> list[Edge]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts in (("__init__",), ("__main__",)):
            continue  # the doors; what they load is checked below
        for line, name in imported(
            ast.parse(path.read_text(encoding="utf-8")), ".".join(("agentkit", *parts))
        ):
            top, _, rest = name.partition(".")
            if top == "agentkit" and rest:  # bare `import agentkit` only asks where the package lies
                file = path.relative_to(REPOSITORY).as_posix()
                found.append((file, line, parts[0], rest.split(".")[0]))
    return found


ROWS, STRANGERS = table()
EDGES = edges()


def test_the_table_is_read() -> None:
    assert ROWS["errors"] == 0
    assert ROWS["cli"] == max(ROWS.values())
    assert [sorted(group) for group in STRANGERS] == [["retrieval", "tooling"]]
    assert len(EDGES) > 20


def test_every_room_stands_in_the_table() -> None:
    entries = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.glob("**/*.py"))]
    assert {path.stem for path in entries} - {"__init__", "__main__", "_starter"} - ANYWHERE <= set(ROWS)


def test_nothing_imports_upward() -> None:
    wrong = [
        f"{file}:{line}: {room} imports {target}"
        for file, line, room, target in EDGES
        if target not in ANYWHERE and ROWS.get(target, 99) > ROWS[room]
    ]
    assert wrong == []


def test_strangers_do_not_know_each_other() -> None:
    wrong = [
        f"{file}:{line}: {room} imports {target}"
        for file, line, room, target in EDGES
        if room != target and any({room, target} <= group for group in STRANGERS)
    ]
    assert wrong == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    needs: dict[str, set[str]] = {}
    for _, _, room, target in EDGES:
        if room != target:
            needs.setdefault(room, set()).add(target)
    while free := [room for room, targets in needs.items() if not targets & set(needs)]:
        for room in free:
            del needs[room]
    assert needs == {}


@pytest.mark.parametrize("module", ["agentkit", "agentkit.cli.main"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import agentkit.llm.local as x", ["agentkit.llm.local"]),
        ("from agentkit import build", ["agentkit.build"]),
        ("def f():\n    from agentkit.ui.app import App", ["agentkit.ui.app.App"]),
        (
            "from .. import build\nfrom .index import Index",
            ["agentkit.build", "agentkit.retrieval.index.Index"],
        ),
    ],
)
def test_imports_are_seen(code: str, names: list[str]) -> None:
    found = [name.replace("..", ".") for _, name in imported(ast.parse(code), "agentkit.retrieval.search")]
    assert found == names
