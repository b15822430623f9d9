"""What became of the data of a run; kept with the job and with its result."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

FILE = "data.json"


@dataclass(frozen=True, slots=True)
class DataReport:
    """Counts of examples: those found are those in the splits and those left out."""

    found: int
    duplicates: int
    """Left out: the same as one before, but for spaces and capitals."""
    personal: dict[str, int] = field(default_factory=dict)
    """Placeholders put in, by kind; empty where personal data was kept."""
    unredactable: int = 0
    """Left out: with placeholders a call no longer satisfies its tool's schema."""
    cut: int = 0
    """Left out: part of what is to be learned would not fit into ``max_length``."""
    skipped: tuple[str, ...] = ()
    """Sessions that cannot be learned from, each with the reason; not among those found."""
    splits: dict[str, int] = field(default_factory=dict)
    """Examples by split."""
    tokens: int = 0
    """Of the examples that are left; so is the next. Counted when the model is there, as is ``cut``."""
    assistant_tokens: int = 0
    """Those that are learned."""
    job: str = ""
    """Whose folder holds the examples themselves."""
    unit: str = "chats"
    """What an example is called."""
    labels: dict[str, int] = field(default_factory=dict)
    """Texts by label, or entities by type."""
    shortened: int = 0
    """Texts of which only the beginning fits into ``max_length``; counted when the model is there."""

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON values."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write a file that only its owner can read; the one before stays whole until then."""
        draft = path.with_name(f".{path.name}.tmp")
        draft.touch(0o600)
        draft.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        os.replace(draft, path)

    def sentence(self) -> str:
        """The report for a person."""
        parts = [f"{count} {name}" for name, count in self.splits.items() if count]
        left_out = {
            "duplicates": self.duplicates,
            "too long": self.cut,
            "that cannot be redacted": self.unredactable,
            "sessions that teach nothing": len(self.skipped),
        }
        told = [f"{count} {what}" for what, count in left_out.items() if count]
        values = [f"{count} {kind}" for kind, count in self.personal.items()]
        text = f"{self.found} {self.unit}: {', '.join(parts)}"
        text += f"; {len(self.labels)} labels" if self.labels else ""
        text += f"; left out: {', '.join(told)}" if told else ""
        text += f"; shortened: {self.shortened}" if self.shortened else ""
        return text + (f"; personal data replaced: {', '.join(values)}" if values else "")


def read_report(path: Path) -> DataReport:
    """A report that was written before.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged.
    """
    body = json.loads(path.read_bytes())
    try:
        known = {key.name: body[key.name] for key in fields(DataReport) if key.name in body}
        return DataReport(**{**known, "skipped": tuple(known.get("skipped", ()))})
    except TypeError as error:
        raise ValueError(f"{path} is no report of data") from error


def score_name(key: str) -> str:
    """A score's key for a person: ``macro F1``, ``chrF``."""
    return {"macro_f1": "macro F1", "entity_f1": "entity F1", "chrf": "chrF"}.get(key, key.replace("_", " "))


def scores_text(scores: Mapping[str, float]) -> str:
    """Scores for a person, most telling first, as they come."""
    return ", ".join(
        f"{score_name(key)} {value:.{1 if key == 'chrf' else 3}f}" for key, value in scores.items()
    )
