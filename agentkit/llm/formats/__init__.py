"""One file per tool-call format, each with a `Format` called ``FORMAT``; other packages add theirs.

An entry point of the group ``agentkit.formats`` is such an object too. It goes before the formats here when one is
chosen from a chat template.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from agentkit.errors import UsageError
from agentkit.llm.formats.base import Format
from agentkit.llm.formats.gemma import FORMAT as GEMMA
from agentkit.llm.formats.generic import FORMAT as GENERIC
from agentkit.llm.formats.hermes import FORMAT as HERMES
from agentkit.llm.formats.llama3 import FORMAT as LLAMA3
from agentkit.llm.formats.mistral import FORMAT as MISTRAL
from agentkit.llm.formats.mistral_args import FORMAT as MISTRAL_ARGS

__all__ = ["AUTO", "GENERIC", "GROUP", "find_format", "formats"]

GROUP = "agentkit.formats"
AUTO = "auto"
_OWN = (GEMMA, MISTRAL_ARGS, MISTRAL, HERMES, LLAMA3, GENERIC)


@cache
def formats() -> dict[str, Format]:
    """Every known format by name, in the order in which they are tried.

    Raises:
        UsageError: One of an installed package cannot be used.
    """
    known: dict[str, Format] = {}
    for entry in sorted(entry_points(group=GROUP)):
        try:
            found = entry.load()
        except Exception as error:  # whatever a foreign module fails with
            cause = f"the tool-call format {entry.name!r} of an installed package cannot be loaded: {error}"
            raise UsageError(cause, "repair or uninstall that package") from error
        if not isinstance(found, Format):
            cause = f"the tool-call format {entry.name!r} of an installed package is no Format"
            raise UsageError(cause, "it must be an object of a subclass of agentkit.llm.formats.base.Format")
        known[entry.name] = found
    return {**known, **{format.name: format for format in _OWN}}


def find_format(name: str, tokenizer: Any) -> Format:
    """The format of this name, or for ``auto`` that of the tokenizer's chat template and added tokens.

    Raises:
        UsageError: There is no such format; names the known ones.
    """
    known = formats()
    if name == AUTO:
        template, tokens = str(tokenizer.chat_template), tokenizer.get_added_vocab()
        return next(format for format in known.values() if format.fits(template, tokens))
    if name not in known:
        raise UsageError(f"unknown tool_format {name!r}", f"use {AUTO} or one of {', '.join(sorted(known))}")
    return known[name]
