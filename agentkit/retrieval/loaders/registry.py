"""Which loader reads which file: one module per format here, and the entry points of other packages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from agentkit.errors import UsageError
from agentkit.retrieval.documents import Document
from agentkit.retrieval.loaders.encoding import decode
from agentkit.retrieval.loaders.limits import Limits

GROUP = "agentkit.loaders"
"""Entry-point group: the name is the suffix without its dot, the value a function ``(data, name) -> Document``."""
Loader = Callable[[bytes, str], Document]


@dataclass(frozen=True, slots=True)
class Format:
    """How files of one suffix are read."""

    label: str
    """What such a file is called in a message."""
    load: Callable[[bytes, str, Limits], Document]
    kind: str = ""
    """What `kinds.recognise` says of such a file; empty for text, which has no signature."""
    separate: bool = False
    """Whether its parser is complex enough to run in a process of its own however small the file is."""
    inline: int = 1 << 30
    """Bytes up to which it may run in this process, if `Limits.inline` allows it too."""
    own: bool = True
    """Whether it is agentkit's, and so known to that process too."""


def _text(module: str, function: str, takes_limits: bool = False) -> Callable[[bytes, str, Limits], Document]:
    """A loader of text as one of bytes; the module is imported when it is needed."""

    def load(data: bytes, name: str, limits: Limits) -> Document:
        text, encoding = decode(data)
        loader = getattr(import_module(f"agentkit.retrieval.loaders.{module}"), function)
        document: Document = loader(text, name, limits) if takes_limits else loader(text, name)
        if not encoding:
            return document
        notice = f"read as {encoding}: it is not UTF-8"
        metadata = {**document.metadata, "encoding": encoding}
        return replace(document, metadata=metadata, notices=(notice, *document.notices))

    return load


def _binary(module: str, function: str) -> Callable[[bytes, str, Limits], Document]:
    def load(data: bytes, name: str, limits: Limits) -> Document:
        loader = getattr(import_module(f"agentkit.retrieval.loaders.{module}"), function)
        document: Document = loader(data, name, limits)
        return document

    return load


_MARKDOWN = Format("Markdown", _text("markdown", "load_markdown"))
_HTML = Format("HTML", _text("html", "load_html"), "html", inline=20_000)
"""The parser looks again through all that is left at every tag and comment that is not closed."""
_CSV = Format("a table", _text("faq", "load_csv", takes_limits=True))
_JSONL = Format("JSON lines", _text("faq", "load_jsonl", takes_limits=True))
OWN: dict[str, Format] = {
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".txt": Format("text", _text("plain", "load_text")),
    ".html": _HTML,
    ".htm": _HTML,
    ".pdf": Format("a PDF", _binary("pdf", "load_pdf"), "pdf", separate=True),
    ".docx": Format("a DOCX document", _binary("docx", "load_docx"), "docx", separate=True),
    ".csv": _CSV,
    ".tsv": _CSV,
    ".jsonl": _JSONL,
}


@cache
def formats() -> dict[str, Format]:
    """Every known format by suffix; those here go before equally named ones of other packages.

    Raises:
        UsageError: A loader of an installed package cannot be used.
    """
    foreign: dict[str, Format] = {}
    for entry in sorted(entry_points(group=GROUP)):
        try:
            loader = entry.load()
        except Exception as error:  # whatever a foreign module fails with
            cause = f"the loader {entry.name!r} of an installed package cannot be loaded: {error}"
            raise UsageError(cause, "repair or uninstall that package") from error
        if not callable(loader):
            cause = f"the loader {entry.name!r} of an installed package is no function"
            raise UsageError(cause, "it must be a function (data: bytes, name: str) -> Document")
        suffix = "." + entry.name.lower().removeprefix(".")
        foreign[suffix] = Format(f"a {suffix} file", _foreign(loader), own=False)
    return {**foreign, **OWN}


def _foreign(loader: Loader) -> Callable[[bytes, str, Limits], Document]:
    return lambda data, name, limits: loader(data, name)
