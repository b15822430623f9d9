"""The documents behind a knowledge base, loaded from their files: what an index holds is not taken on trust."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

from agentkit.errors import NotFoundError
from agentkit.retrieval.documents import Document
from agentkit.retrieval.loaders import load_document
from agentkit.retrieval.records import IndexedDocument


class Base(Protocol):
    """What is needed of a `KnowledgeBase` to find its files."""

    folder: Path | None
    index_path: Path

    def list(self) -> list[IndexedDocument]: ...


class Sources:
    """Documents by name, each loaded once.

    Args:
        paths: The file of every document.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)
        self._loaded: dict[str, Document] = {}

    @classmethod
    def of(cls, base: Base) -> Sources:
        """Those of a knowledge base: its folder's, and the copies of what was added."""
        added = base.index_path.with_name(base.index_path.name + ".added")
        folders = {"folder": base.folder, "added": added}
        places = {document.name: folders[document.origin] for document in base.list()}
        return cls({name: folder / name for name, folder in places.items() if folder is not None})

    @property
    def names(self) -> list[str]:
        """Every document, by name."""
        return sorted(self._paths)

    def document(self, name: str) -> Document:
        """One document.

        Raises:
            NotFoundError: There is none of that name.
            KnowledgeError: Its file cannot be read.
        """
        if name not in self._paths:
            cause = f"there is no document {name!r} in the knowledge base"
            raise NotFoundError(cause, "see `agentkit knowledge list`")
        if name not in self._loaded:
            self._loaded[name] = load_document(self._paths[name], name)
        return self._loaded[name]

    def text(self, name: str) -> str:
        """Its extracted text: headings and blocks."""
        return self.document(name).text

    @cached_property
    def all(self) -> Iterable[Document]:
        """Every document, by name."""
        return [self.document(name) for name in self.names]
