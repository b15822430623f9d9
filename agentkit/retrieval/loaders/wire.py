"""What travels between this process and the one that parses: a header line and bytes there, a line back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from agentkit.retrieval.documents import Block, Document
from agentkit.retrieval.loaders.limits import Limits

TOO_LITTLE_MEMORY = 3
"""Exit code of the other process: the file needs more memory than the limit."""


def request_line(suffix: str, name: str, size: int, limits: Limits) -> bytes:
    """The header; ``size`` bytes of the file follow it."""
    body = {"suffix": suffix, "name": name, "size": size, "limits": asdict(limits)}
    return json.dumps(body).encode() + b"\n"


def document_line(document: Document) -> bytes:
    """A reply with a document. A block's text is not repeated: it stands in the document's."""
    body = asdict(document)
    for block in body["blocks"]:
        del block["text"]
    return json.dumps({"document": body}).encode() + b"\n"


def error_line(cause: str, remedy: str) -> bytes:
    """A reply that says why there is none."""
    return json.dumps({"cause": cause, "remedy": remedy}).encode() + b"\n"


def to_document(body: dict[str, Any]) -> Document:
    """The document of a reply."""
    text = body["text"]
    blocks = tuple(
        Block(
            tuple(block["headings"]),
            text[block["start"] : block["end"]],
            block["start"],
            block["end"],
            block["page"],
            block["language"],
            tuple(block["keywords"]),
            tuple(block["terms"]),
        )
        for block in body["blocks"]
    )
    return Document(
        body["name"],
        body["title"],
        text,
        blocks,
        tuple(body["keywords"]),
        body["language"],
        body["metadata"],
        tuple((offset, page) for offset, page in body["pages"]),
        tuple(body["notices"]),
    )
