"""The process that tools from files run in: ``python -m agentkit.tooling.worker``.

One JSON object a line, each way: a hello and its acknowledgement, then one call and one outcome at a
time. The protocol moves to private descriptors before anything else happens, so whatever a tool prints,
reads or closes touches neither the protocol nor the terminal. Values are cut here, before they are sent.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from agentkit.errors import AgentkitError
from agentkit.tooling.context import set_options
from agentkit.tooling.loading import load_entry_point, load_file
from agentkit.tooling.results import Outcome, error_text, run_bounded
from agentkit.tooling.tool import Tool

GRACE_S = 5.0
"""The parent kills at the time limit; an orphan that holds the GIL ends itself this much later."""


def main() -> None:
    """Serve until the parent closes the pipe or dies."""
    reader, writer = _private_pipes()
    requests: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_receive, args=(reader, requests.put), daemon=True).start()
    tools: dict[str, dict[str, Tool]] = {}
    hang_log = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open as long as the process
    _greet(json.loads(requests.get()))
    _send(writer, {"ready": True})
    while True:
        request = json.loads(requests.get())
        # a thread in C ends the process even where a tool keeps the GIL and the parent is gone
        longest_s = min(request["timeout_s"] + GRACE_S, threading.TIMEOUT_MAX)
        faulthandler.dump_traceback_later(longest_s, exit=True, file=hang_log)
        outcome = _serve(request, tools)
        faulthandler.cancel_dump_traceback_later()
        _send(writer, {"id": request["id"], **asdict(outcome)})


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    if hasattr(os, "register_at_fork"):  # a process that a tool leaves behind must not hold the line open
        own = reader.fileno(), writer.fileno()
        os.register_at_fork(after_in_child=lambda: [os.dup2(nowhere, each) for each in own])
    return reader, writer


def _receive(reader: BinaryIO, put: Callable[[bytes], None]) -> None:
    for line in reader:
        put(line)
    # the parent is gone: end at once, with everything that tools have started
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


def _greet(hello: dict[str, Any]) -> None:
    set_options(hello["options"])
    if hello["pythonpath"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = hello["pythonpath"]
    # what the parent could import, tools can import here too; behind our own, to shadow nothing
    sys.path += [entry for entry in hello["sys_path"] if entry not in sys.path]


def _serve(request: dict[str, Any], tools: dict[str, dict[str, Tool]]) -> Outcome:
    try:
        os.chdir(request["cwd"])
        found = _find(request, tools)
    except (AgentkitError, OSError) as error:
        return Outcome(False, error=error_text(error))
    return run_bounded(found.call, request["arguments"], request["output_limit"])


def _find(request: dict[str, Any], tools: dict[str, dict[str, Tool]]) -> Tool:
    key = request["file"] or request["entry_point"]
    if key not in tools:
        found = (
            load_file(Path(request["file"])) if request["file"] else load_entry_point(request["entry_point"])
        )
        tools[key] = {tool.name: tool for tool in found}
    if request["tool"] not in tools[key]:
        raise AgentkitError(f"{key} no longer defines the tool {request['tool']!r}", "start agentkit again")
    return tools[key][request["tool"]]


def _send(writer: BinaryIO, body: dict[str, Any]) -> None:
    try:
        writer.write(json.dumps(body).encode() + b"\n")
        writer.flush()
    except OSError:
        os._exit(0)


if __name__ == "__main__":
    main()
