"""Real text that is on every machine with the development packages: the docstrings of what is installed.

A docstring is a document; its first sentence is kept apart as a question whose answer is known (known-item search).
Order and content depend only on the installed packages.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BUILD = Path(__file__).resolve().parent.parent / "build"
"""What takes minutes to make is kept here; delete it after installing other packages."""
MIN_WORDS = 30
PASSAGE_WORDS = 60
_PART = 1_000
_FIRST_SENTENCE = re.compile(r"(.{25,220}?[.!?])\s+(?=\S)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Item:
    """One docstring."""

    title: str
    """Where it stands, such as ``package/module.py: Class.method``."""
    text: str
    """The docstring without its first sentence where that is the question."""
    question: str
    """The first sentence; empty where it is too short, or begins another docstring too."""


@dataclass(frozen=True, slots=True)
class Piece:
    """At most `PASSAGE_WORDS` words of an item."""

    item: int
    """Position in `items`."""
    title: str
    text: str


def items() -> list[Item]:
    """Documents with their questions, in an order that mixes the packages."""
    kept = BUILD / "corpus.json"
    if not kept.is_file():
        BUILD.mkdir(exist_ok=True)
        rows = [(item.title, item.text, item.question) for item in _items()]
        kept.write_text(json.dumps(rows), encoding="utf-8")
    return [Item(*row) for row in json.loads(kept.read_text(encoding="utf-8"))]


def pieces(limit: int) -> list[Piece]:
    """The items in order, cut into passages."""
    found: list[Piece] = []
    for number, item in enumerate(items()):
        words = list(re.finditer(r"\S+", item.text))
        for first in range(0, len(words), PASSAGE_WORDS):
            group = words[first : first + PASSAGE_WORDS]
            found.append(Piece(number, item.title, item.text[group[0].start() : group[-1].end()]))
        if len(found) >= limit:
            break
    return found[:limit]


def embedded(texts: list[str]) -> Any:
    """MiniLM's vectors of the texts, float32 (len(texts), 384); a thousand at a time are kept."""
    parts = [_embedded(texts[start : start + _PART]) for start in range(0, len(texts), _PART)]
    return np.concatenate(parts)


def _embedded(texts: list[str]) -> Any:
    kept = BUILD / f"vectors-{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:24]}.npy"
    if not kept.is_file():
        from agentkit.assets import asset_path
        from agentkit.retrieval.embedder import load_embedder

        np.save(kept, load_embedder(asset_path("minilm")).embed(texts))
    return np.load(kept)


def _items() -> list[Item]:
    found: dict[str, tuple[str, str, str]] = {}
    for title, docstring in _docstrings():
        text = _plain(docstring)
        if len(text.split()) < MIN_WORDS:
            continue
        match = _FIRST_SENTENCE.match(text)
        question, rest = (" ".join(match[1].split()), text[match.end() :]) if match else ("", text)
        found.setdefault(hashlib.sha256(rest.encode()).hexdigest(), (title, rest, question))
    seen = dict[str, int]()
    for _, _, question in found.values():
        seen[question] = seen.get(question, 0) + 1
    return [
        Item(title, text, question if seen[question] == 1 and len(question.split()) >= 5 else "")
        for _, (title, text, question) in sorted(found.items())
    ]


def _docstrings() -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_paths()["purelib"])
    standard = Path(sysconfig.get_paths()["stdlib"])
    for folder in (root, standard):
        for path in sorted(folder.rglob("*.py")):
            if folder == standard and "site-packages" in path.parts:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError, OSError, RecursionError):
                continue  # templates and the test files of parsers
            name = path.relative_to(folder).as_posix()
            for where, docstring in _of(tree, ""):
                yield f"{name}: {where}" if where else name, docstring


def _of(node: ast.AST, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node)
        if docstring:
            yield where, docstring
        for child in node.body:
            yield from _of(child, f"{where}.{child.name}".lstrip(".") if hasattr(child, "name") else where)


def _plain(docstring: str) -> str:
    return "\n".join(line.rstrip() for line in docstring.strip().splitlines())
