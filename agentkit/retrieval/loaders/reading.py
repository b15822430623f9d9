"""One file to one `Document`, within limits."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from agentkit.errors import KnowledgeError
from agentkit.retrieval.documents import MAX_KEYWORDS, Document
from agentkit.retrieval.languages import document_language
from agentkit.retrieval.loaders import kinds, process
from agentkit.retrieval.loaders.limits import DEFAULT, Limits
from agentkit.retrieval.loaders.registry import Format, formats


def load_document(path: Path, name: str, limits: Limits = DEFAULT) -> Document:
    """Read one file.

    Args:
        path: The file.
        name: What the document is called in the knowledge base.
        limits: What it may cost.

    Raises:
        KnowledgeError: Unknown suffix, not what the suffix says, damaged, encrypted, without text, unreadable,
            or over a limit; the message names the file. `TookTooLong` and `Killed` where it may be read next time.
        UsageError: The loader of another package cannot be imported.
    """
    return parse_document(read_bytes(path, limits), path, name, limits)


def parse_document(data: bytes, path: Path, name: str, limits: Limits = DEFAULT) -> Document:
    """`load_document` for bytes that have been read already; ``path`` gives suffix and error text."""
    format = format_of(path)
    try:
        _check_kind(data, format)
        if format.own and (format.separate or len(data) > min(limits.inline, format.inline)):
            document = process.parse(data, path.suffix.lower(), name, limits)
        else:
            document = _parse_here(data, name, format, limits)
        if not document.blocks:
            raise KnowledgeError("holds no text", "fill it or remove it")
        limits.check_characters(len(document.text))
    except KnowledgeError as error:
        raise type(error)(f"{path} {error.cause}", error.remedy) from error
    if document.language:
        return document
    return replace(document, language=document_language("\n".join(block.text for block in document.blocks)))


def format_of(path: Path) -> Format:
    """How the file is read, by its suffix.

    Raises:
        KnowledgeError: There is no loader for it.
        UsageError: The loader of another package cannot be imported.
    """
    known = formats()
    format = known.get(path.suffix.lower())
    if format is None:
        cause = f"{path}: cannot read files of type {path.suffix or 'none'!r}"
        raise KnowledgeError(cause, f"convert it to {', '.join(known)}")
    return format


def _parse_here(data: bytes, name: str, format: Format, limits: Limits) -> Document:
    try:
        document = format.load(data, name, limits)
        if not format.own:
            _check_foreign(document)
        return document
    except KnowledgeError:
        raise
    except Exception as error:  # a parser's bug costs one file, not the whole round
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = "check the file" if format.own else "check the file, or the package that brings this loader"
        raise KnowledgeError(f"cannot be read as {format.label}: {reason}", remedy) from error


def _check_foreign(document: Document) -> None:
    """What another package made is held to what `DocumentBuilder` sees to; the rest of the index relies on it.

    Raises:
        ValueError: It is no such document; says why.
    """
    if not isinstance(document, Document):
        raise ValueError(f"its loader returned {type(document).__name__}, not a Document")
    for block in document.blocks:
        if document.text[block.start : block.end] != block.text:
            raise ValueError("its loader returned a block that does not stand in the text")
    if len(document.keywords) > MAX_KEYWORDS:
        raise ValueError(f"its loader returned more than {MAX_KEYWORDS} keywords")
    json.dumps(asdict(document), ensure_ascii=False).encode()  # a lone surrogate cannot be stored


def read_bytes(path: Path, limits: Limits = DEFAULT) -> bytes:
    """The file's bytes, at most ``limits.bytes``.

    Raises:
        KnowledgeError: The file is missing, not a regular file, unreadable or too large.
    """
    try:
        # A named pipe or device would block for ever.
        if not path.is_file():
            raise KnowledgeError(f"{path} is not a file", "name an existing file")
        if (size := path.stat().st_size) > limits.bytes:
            cause = f"{path} has {size / 2**20:.0f} MB, more than the limit of {limits.bytes / 2**20:.0f} MB"
            raise KnowledgeError(cause, "split it into smaller documents")
        return path.read_bytes()
    except OSError as error:
        raise KnowledgeError(
            f"cannot read {path}: {error.strerror}", "check the file and its permissions"
        ) from error


def _check_kind(data: bytes, format: Format) -> None:
    """Names that are wrong lead to nonsense or to a parser's riddles: say what the file is."""
    if not format.own:
        return
    if not data:
        raise KnowledgeError("is empty", "fill it or remove it")
    found = kinds.recognise(data)
    if found == format.kind or (not found and format.kind in ("", "html")):
        return
    if found in kinds.LABELS:
        suffix = "." + found
        raise KnowledgeError(f"is {kinds.LABELS[found]}, not {format.label}", f"rename it to {suffix}")
    if found == kinds.ENCRYPTED:
        raise KnowledgeError("is encrypted", "save it without a password")
    if found:
        raise KnowledgeError(f"is {found}, not {format.label}", "convert it, or remove it")
    raise KnowledgeError(f"is not {format.label}: it does not begin like one", "convert it, or remove it")
