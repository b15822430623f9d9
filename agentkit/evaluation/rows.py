"""What is known of each question once it has been asked, kept line by line so that an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentkit.errors import StoreError, UsageError
from agentkit.evaluation.grounded import Claim
from agentkit.evaluation.questions import Kind
from agentkit.messages import Citation

ROWS, RUN = "rows.jsonl", "run.json"


@dataclass(frozen=True, slots=True)
class Row:
    """One question, asked."""

    id: str
    question: str
    kind: Kind
    near_miss: bool
    split: str
    documents: tuple[str, ...]
    """Those that answer it."""
    facts: tuple[tuple[str, ...], ...]
    query: str
    """What the agent searched for."""
    ranking: tuple[str, ...]
    """The first documents of the search, each once, best first."""
    dense: tuple[str, ...]
    """The same by cosine alone."""
    answerable: float
    """Probability that the passages answer the question, as the knowledge base sees it."""
    text: str
    """The agent's reply."""
    claims: tuple[Claim, ...]
    citations: tuple[Citation, ...]
    """The reply's."""
    tools: tuple[str, ...]
    """Tools that were called."""
    notices: tuple[str, ...]
    """Codes."""
    abstained: bool
    """The reply cites nothing and its notices include ``declined``."""
    right: bool
    """All facts stand in the reply; of an unanswerable question: it abstained."""
    search_s: float
    """Seconds of the search alone, the question's embedding included."""
    turn_s: float
    """Seconds from question to stored reply."""
    model_text: str
    """The answer of the same model without knowledge."""
    model_claims: tuple[Claim, ...]
    model_right: bool
    """All facts stand in the model's answer; never of an unanswerable question."""

    @property
    def is_answerable(self) -> bool:
        """Whether the documents answer the question."""
        return self.kind != "unanswerable"


def row_from_json(body: dict[str, Any]) -> Row:
    """The inverse of `asdict`, for JSON's lists.

    Raises:
        TypeError, KeyError: It is no row.
    """
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in body.items()
    }
    values["facts"] = tuple(map(tuple, body["facts"]))
    for key in ("claims", "model_claims"):
        values[key] = tuple(Claim(c["text"], c["grounded"], tuple(c["quotes"])) for c in body[key])
    values["citations"] = tuple(Citation(**citation) for citation in body["citations"])
    return Row(**values)


class Journal:
    """The rows of one run in a folder; every row is on disk before the next question is asked.

    Args:
        folder: Made when missing.
        identity: What the rows depend on: a run under another identity is refused, not mixed in.

    Raises:
        UsageError: The folder holds the rows of something else.
        StoreError: It cannot be read or written, or a row is damaged.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self.folder = folder
        self.rows: dict[str, Row] = {}
        """By id, in the order in which they were asked."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._identify(dict(identity))
            self._read()
        except OSError as error:
            raise StoreError(f"cannot use {folder}: {error.strerror}", "name another --out") from error

    def add(self, row: Row) -> None:
        """Append a row and sync it to disk.

        Raises:
            StoreError: It cannot be written.
        """
        try:
            with (self.folder / ROWS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            cause = f"cannot write {self.folder / ROWS}: {error.strerror}"
            raise StoreError(cause, "make room and run again: it goes on from here") from error
        self.rows[row.id] = row

    def _identify(self, identity: dict[str, str]) -> None:
        path = self.folder / RUN
        if not path.exists():
            path.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
            return
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path} is damaged", "name another --out") from error
        changed = [key for key in identity if before.get(key) != identity[key]]
        if changed:
            cause = f"{self.folder} holds a run under other {', '.join(changed)}"
            raise UsageError(cause, "name another --out, or remove that folder")

    def _read(self) -> None:
        path = self.folder / ROWS
        data = path.read_bytes() if path.exists() else b""
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # killed while writing: that question is asked again
            os.truncate(path, whole)
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                row = row_from_json(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise StoreError(f"{path}, line {number} is no row", "name another --out") from error
            self.rows[row.id] = row


def digest(paths: Iterable[Path]) -> str:
    """One SHA-256, shortened, over the contents of files."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]
