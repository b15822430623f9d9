"""The process that parses: one file after the other from stdin, each within the limits that come with it.

It holds nothing but the parsers, so that it starts quickly and a file that breaks one costs only this process.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, BinaryIO

from agentkit.errors import KnowledgeError
from agentkit.retrieval.loaders.limits import Limits
from agentkit.retrieval.loaders.registry import OWN
from agentkit.retrieval.loaders.wire import TOO_LITTLE_MEMORY, document_line, error_line

_GRACE_S = 5
"""Of CPU time beyond the limit on wall time: where that is not enforced, as after the parent was stopped."""


def main() -> None:
    """Serve until stdin ends."""
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a parser prints is no reply
        while header := sys.stdin.buffer.readline():
            request = json.loads(header)
            replies.write(_answer(request, _receive(sys.stdin.buffer, request["size"])))
            replies.flush()


def _receive(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        sys.exit(0)  # the parent is gone
    return data


def _answer(request: dict[str, Any], data: bytes) -> bytes:
    limits = Limits(**request["limits"])
    format = OWN[request["suffix"]]
    _restrict(limits)
    try:
        document = format.load(data, request["name"], limits)
        limits.check_characters(len(document.text))
        return document_line(document)
    except KnowledgeError as error:
        return error_line(error.cause, error.remedy)
    except MemoryError:
        os._exit(TOO_LITTLE_MEMORY)  # nothing that was half done is trusted
    except Exception as error:  # whatever a parser fails with is said of the file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return error_line(f"cannot be read as {format.label}: {reason}", "save or export it anew")


def _restrict(limits: Limits) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits; time is kept by the parent
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + limits.seconds) + _GRACE_S
    for kind, wanted in ((resource.RLIMIT_AS, limits.memory), (resource.RLIMIT_CPU, seconds)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    main()
