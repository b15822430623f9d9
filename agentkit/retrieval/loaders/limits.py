"""How much one file may cost."""

from __future__ import annotations

from dataclasses import dataclass

from agentkit.errors import KnowledgeError


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may have at most; a file that has more is refused with one line."""

    bytes: int = 20 << 20
    pages: int = 2_000
    expanded: int = 200 << 20
    """Bytes that a zip-based file may unpack to."""
    ratio: int = 100
    """Unpacked bytes for each packed byte, for the file and for each of its larger members."""
    characters: int = 20_000_000
    """Of extracted text."""
    cell: int = 100_000
    """Characters of one cell or line of a table of questions and answers."""
    seconds: float = 30.0
    memory: int = 512 << 20
    """Bytes of address space of the process that parses; held to where the system can (not on Windows)."""
    inline: int = 1 << 20
    """Bytes up to which Markdown, text, HTML and tables are parsed in this process."""

    def check_characters(self, count: int) -> None:
        """Refuse more extracted text than allowed.

        Raises:
            KnowledgeError: There is more.
        """
        if count > self.characters:
            cause = f"holds more than {self.characters:,} characters of text"
            raise KnowledgeError(cause, "split it into smaller documents")


DEFAULT = Limits()
