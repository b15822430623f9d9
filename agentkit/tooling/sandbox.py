"""Runs tools within limits of time and output, so that no tool can take the program with it.

A tool that was loaded from a file or an entry point runs in one persistent worker process: if it hangs,
ends or crashes its process, or never gives up the GIL, the process group is killed and the next call gets
a fresh one; a result that is too long is cut. A callable of the running program (a closure, a notebook cell)
cannot move to another process: it runs in a daemon thread under the same limits, but Python cannot stop a thread, so
one that hangs is abandoned and may go on running, and one that crashes takes the program with it.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import queue
import threading
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from agentkit.errors import AgentkitError
from agentkit.tooling.context import Options, using_options
from agentkit.tooling.process import POLL_S, Cancelled, TimedOut, Worker, wait_for
from agentkit.tooling.results import Outcome, error_text, run_bounded
from agentkit.tooling.tool import Tool

_ABANDONED = "abandoned: it runs inside this process, and may still take effect"
_UNKNOWN = "it may or may not have taken effect"


def _effect(tool: Tool) -> str:
    """What a model has to know before it calls a tool again that has not come to its end."""
    return f"; {_UNKNOWN}" if tool.side_effect else ""


class Sandbox:
    """Runs one tool call at a time in its worker process, and any number in threads.

    Args:
        options: ``[tools.options.NAME]`` of the project.
        environment: Variables that the worker process gets besides the inherited ones.
    """

    def __init__(self, options: Options, environment: Mapping[str, str]) -> None:
        self._options = options
        self._environment = dict(environment)
        self._lock = threading.Lock()
        self._workers: list[Worker] = []  # at most one; shared with the finalizer, which must not know self
        self._owner = os.getpid()
        self._finalizer = weakref.finalize(self, _kill_all, self._workers, self._owner)

    def run(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        timeout_s: float,
        output_limit: int,
        cancel: threading.Event | None = None,
    ) -> Outcome:
        """Run a tool to its end or its limit; a tool's failure is an `Outcome`.

        Only what concerns the caller escapes, like KeyboardInterrupt; the worker process is gone then.
        """
        isolated = tool.source is not None or tool.entry_point is not None
        begun = False
        try:
            if cancel is not None and cancel.is_set():
                raise Cancelled
            if isolated:
                with self._turn(cancel):
                    begun = True
                    return self._in_worker(tool, arguments, timeout_s, output_limit, cancel)
            begun = True
            return self._in_thread(tool, arguments, timeout_s, output_limit, cancel)
        except TimedOut:
            end = f"stopped{_effect(tool)}" if isolated else _ABANDONED
            return Outcome(False, error=f"{tool.name} took longer than {timeout_s:g} s and was {end}")
        except Cancelled:
            end = f"was cancelled; {_UNKNOWN}" if isolated else f"was cancelled and {_ABANDONED}"
            return Outcome(False, error=f"{tool.name} {end if begun else 'was cancelled before it began'}")
        except (AgentkitError, OSError) as error:
            return Outcome(False, error=error_text(error))

    def close(self) -> None:
        """End the worker process; a later call starts a new one."""
        _kill_all(self._workers, self._owner)

    @contextlib.contextmanager
    def _turn(self, cancel: threading.Event | None) -> Iterator[None]:
        while not self._lock.acquire(timeout=POLL_S):
            if cancel is not None and cancel.is_set():
                raise Cancelled
        try:
            yield
        finally:
            self._lock.release()

    def _in_worker(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        timeout_s: float,
        limit: int,
        cancel: threading.Event | None,
    ) -> Outcome:
        if os.getpid() != self._owner:  # a forked copy of this program leaves the original its worker
            self._workers, self._owner = [], os.getpid()
            self._finalizer = weakref.finalize(self, _kill_all, self._workers, self._owner)
        try:
            worker = next(iter(self._workers), None)
            if worker is not None and not worker.is_alive():  # killed while it waited for work
                self.close()
                worker = None
            if worker is None:
                worker = Worker(self._environment)
                self._workers.append(worker)
                worker.hello(self._options, cancel)
            request = {
                "tool": tool.name,
                "file": str(tool.source) if tool.source else None,
                "entry_point": tool.entry_point,
                "arguments": to_jsonable_python(dict(arguments), fallback=repr),
                "cwd": str(Path.cwd()),
                "timeout_s": timeout_s,
                "output_limit": limit,
            }
            reply = worker.ask(request, timeout_s, cancel)
        except BaseException:  # also KeyboardInterrupt: never leave a tool running behind the caller's back
            self.close()
            raise
        if reply is None:
            if worker not in self._workers:  # another thread has closed them
                return Outcome(False, error=f"{tool.name} was stopped, as the tools were closed; {_UNKNOWN}")
            ending = worker.kill()
            self._workers.clear()
            return Outcome(False, error=f"{tool.name} ended its process ({ending}){_effect(tool)}")
        return Outcome(reply["ok"], reply["value"], reply["error"], reply["truncated"])

    def _in_thread(
        self,
        tool: Tool,
        arguments: Mapping[str, Any],
        timeout_s: float,
        limit: int,
        cancel: threading.Event | None,
    ) -> Outcome:
        outcomes: queue.Queue[Outcome] = queue.Queue()

        def work() -> None:
            with using_options(self._options):
                outcomes.put(run_bounded(tool.call, arguments, limit))

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(work,), name=f"tool-{tool.name}", daemon=True).start()
        return wait_for(outcomes, timeout_s, cancel)


def _kill_all(workers: list[Worker], owner: int) -> None:
    if os.getpid() == owner:  # a forked copy of this program must not end the original's worker
        while workers:
            workers.pop().kill()
