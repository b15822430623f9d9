"""Documents between the check whether they can be added and their indexing, so that each file is parsed once."""

from __future__ import annotations

import hashlib

from agentkit.retrieval.documents import Document

CHARACTERS = 50_000_000
"""Of all documents that are held; those beyond are parsed again, so that a large folder does not fill the memory."""


class Parsed:
    """Documents by name and content: a file that has changed meanwhile is not taken for what it was."""

    def __init__(self) -> None:
        self._documents: dict[tuple[str, str], Document] = {}
        self._left = CHARACTERS

    def keep(self, name: str, data: bytes, document: Document) -> None:
        """Hold the document of this name that was parsed from these bytes."""
        if len(document.text) <= self._left:
            self._left -= len(document.text)
            self._documents[name, hashlib.sha256(data).hexdigest()] = document

    def take(self, name: str, sha256: str) -> Document | None:
        """Give up the document of this name and content; none where it is not held."""
        return self._documents.pop((name, sha256), None)
