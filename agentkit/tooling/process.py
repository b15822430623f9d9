"""The parent's end of the worker process that runs tools from files."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import site
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic_core import to_jsonable_python

import agentkit
from agentkit.errors import AgentkitError
from agentkit.tooling.context import Options

START_S = 60.0
"""A worker process that has not answered by then cannot start."""
REPLY_LIMIT = 64 << 20
"""Bytes of one line from a worker; outcomes are cut there, so more is no outcome."""
POLL_S = 0.05
_T = TypeVar("_T")


class TimedOut(Exception):
    """A time limit has passed."""


class Cancelled(Exception):
    """The caller's event was set."""


def _installed() -> list[str]:
    """Folders that every process of this interpreter looks into."""
    return [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]


class Worker:
    """The parent's end of one worker process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        # -P: a json.py in the user's folder must not stand in for the real one
        command = [sys.executable, "-P", "-m", "agentkit.tooling.worker"]
        inherited = os.environ.get("PYTHONPATH")
        home = str(Path(next(iter(agentkit.__path__))).resolve().parent)
        variables = {**os.environ, **environment}
        # Installed packages are found anyway, and must not come before the standard library.
        if Path(home) not in {Path(folder).resolve() for folder in _installed()}:
            variables["PYTHONPATH"] = os.pathsep.join([home, inherited] if inherited else [home])
        self._inherited_path = inherited
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=variables,
            start_new_session=True,  # its own process group: killed as one, untouched by Ctrl-C
        )
        self._replies: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._calls = 0
        threading.Thread(target=self._receive, name="tool-worker-reader", daemon=True).start()

    def hello(self, options: Options, cancel: threading.Event | None) -> None:
        """Tell the process what it needs and wait until it is ready."""
        sys_path = [entry or str(Path.cwd()) for entry in sys.path]
        body = {"options": options, "pythonpath": self._inherited_path, "sys_path": sys_path}
        self._send(to_jsonable_python(body, fallback=repr))
        with contextlib.suppress(TimedOut):
            if wait_for(self._replies, START_S, cancel) is not None:
                return
        raise AgentkitError("the worker process for tools does not start", "run `agentkit doctor`")

    def ask(
        self, request: dict[str, Any], timeout_s: float, cancel: threading.Event | None
    ) -> dict[str, Any] | None:
        """The reply to one request; ``None`` where the process ended instead."""
        self._calls += 1
        self._send({"id": self._calls, **request})
        reply = wait_for(self._replies, timeout_s, cancel)
        return reply if reply is not None and reply.get("id") == self._calls else None

    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def kill(self) -> str:
        """End the process and everything it started; returns how it ended."""
        if self._process.returncode is not None:
            pass  # reaped: its number may be that of somebody else's group by now
        elif hasattr(os, "killpg"):
            # before wait(): until it is reaped, the number of its group cannot belong to anybody else
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError, ValueError):
                if pipe is not None:
                    pipe.close()
        return _ending(status)

    def _send(self, body: Any) -> None:
        line = json.dumps(body).encode() + b"\n"
        # in a thread: a process that no longer reads must not block the caller, whose clock is running
        threading.Thread(target=self._write, args=(line,), daemon=True).start()

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # the reader sees the end of the process
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _receive(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            while (line := self._process.stdout.readline(REPLY_LIMIT)).endswith(b"\n"):
                self._replies.put(json.loads(line))
        self._replies.put(None)


def wait_for(replies: queue.Queue[_T], timeout_s: float, cancel: threading.Event | None) -> _T:
    """The next item.

    Raises:
        TimedOut: Nothing came in time.
        Cancelled: The caller no longer wants it.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if cancel is not None and cancel.is_set():
            raise Cancelled
        left = deadline - time.monotonic()
        try:
            return replies.get(timeout=max(0.0, min(left, 3600.0 if cancel is None else POLL_S)))
        except queue.Empty:
            if left <= 0:
                raise TimedOut from None


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
