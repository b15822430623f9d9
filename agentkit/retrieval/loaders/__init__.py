"""Files to documents: one module per format; `load_document` is the way in."""

from agentkit.retrieval.loaders.formats import GROUP, Loader, formats
from agentkit.retrieval.loaders.limits import DEFAULT, Limits
from agentkit.retrieval.loaders.reading import load_document, parse_document, read_bytes

__all__ = [
    "DEFAULT",
    "GROUP",
    "Limits",
    "Loader",
    "formats",
    "load_document",
    "parse_document",
    "read_bytes",
]
