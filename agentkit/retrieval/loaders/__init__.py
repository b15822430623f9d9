"""Files to documents: one module per format; `load_document` is the way in."""

from agentkit.retrieval.loaders.limits import DEFAULT, Limits
from agentkit.retrieval.loaders.process import Killed, TookTooLong
from agentkit.retrieval.loaders.reading import format_of, load_document, parse_document, read_bytes
from agentkit.retrieval.loaders.registry import GROUP, Loader, formats

__all__ = [
    "DEFAULT",
    "GROUP",
    "Killed",
    "Limits",
    "Loader",
    "TookTooLong",
    "format_of",
    "formats",
    "load_document",
    "parse_document",
    "read_bytes",
]
