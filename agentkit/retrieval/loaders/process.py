"""The parent's end of the process that parses: started once, used for many files, ended when idle."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import agentkit
from agentkit.errors import KnowledgeError
from agentkit.retrieval.documents import Document
from agentkit.retrieval.loaders.limits import Limits
from agentkit.retrieval.loaders.wire import TOO_LITTLE_MEMORY, request_line, to_document

IDLE_S = 10.0
"""An unused process is ended after this time."""
REPLY_PER_CHARACTER = 12
"""Bytes of JSON for one character at most, with what is said of the blocks."""


class TookTooLong(KnowledgeError):
    """The file was given up; on a machine that has less to do it may be read."""


class Killed(KnowledgeError):
    """A signal ended the process: the file's fault, or that of who sent it, such as a system short of memory."""


class _Ended(Exception):
    """The process ended without an answer."""

    def __init__(self, status: int, timed_out: bool) -> None:
        super().__init__(status)
        self.status = status
        self.timed_out = timed_out


class Parser:
    """One process; a file that breaks it costs a new one."""

    def __init__(self) -> None:
        # -P: a json.py in the user's folder must not stand in for the real one
        command = [sys.executable, "-P", "-m", "agentkit.retrieval.loaders.worker"]
        home = str(Path(next(iter(agentkit.__path__))).resolve().parent)
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C ends the round, which then ends this process
        )
        self.files = 0
        """How many it has been given."""

    def ask(self, data: bytes, suffix: str, name: str, limits: Limits) -> bytes:
        """The reply to one file, a line.

        Raises:
            _Ended: There is none.
        """
        self.files += 1
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timed_out = threading.Event()

        def stop() -> None:
            timed_out.set()
            self._process.kill()

        clock = threading.Timer(limits.seconds, stop)
        clock.daemon = True
        clock.start()
        reply = b""
        try:
            with contextlib.suppress(OSError):  # it ended while it was written to
                self._process.stdin.write(request_line(suffix, name, len(data), limits))
                self._process.stdin.write(data)
                self._process.stdin.flush()
            most = REPLY_PER_CHARACTER * limits.characters + (1 << 20)
            reply = self._process.stdout.readline(most)
        finally:
            clock.cancel()
            if not reply.endswith(b"\n"):  # also after Ctrl-C: an answer to come would be taken for the next
                self.close()
        if not reply.endswith(b"\n"):
            raise _Ended(self._process.returncode, timed_out.is_set())
        return reply

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


_lock = threading.RLock()
_parser: Parser | None = None
_idle: threading.Timer | None = None


def parse(data: bytes, suffix: str, name: str, limits: Limits) -> Document:
    """Load one file in the process that parses.

    Raises:
        KnowledgeError: The file cannot be read, or costs more than the limits.
    """
    with _lock:
        while True:
            fresh = _parser is None
            try:
                reply = json.loads(_running().ask(data, suffix, name, limits))
                break
            except _Ended as ended:
                close()
                if fresh or ended.timed_out:
                    raise _explained(ended, limits) from None
                # Not this file's fault, perhaps: what came before may have left too little memory.
            except BaseException:
                close()
                raise
        _end_when_idle()
    if "document" in reply:
        return to_document(reply["document"])
    raise KnowledgeError(reply["cause"], reply["remedy"])


def _running() -> Parser:
    global _parser
    if _parser is None:
        _parser = Parser()
    return _parser


def close() -> None:
    """End the process; the next file starts a new one."""
    global _parser, _idle
    with _lock:
        if _idle is not None:
            _idle.cancel()
        parser, _parser, _idle = _parser, None, None
        if parser is not None:
            parser.close()


def _end_when_idle() -> None:
    global _idle
    if _idle is not None:
        _idle.cancel()
    _idle = threading.Timer(IDLE_S, close)
    _idle.daemon = True
    _idle.start()


def _explained(ended: _Ended, limits: Limits) -> KnowledgeError:
    again = "or try again with `agentkit knowledge rebuild`"
    if ended.timed_out:
        cause = f"takes more than {limits.seconds:g} s to read"
        return TookTooLong(cause, f"split it into smaller documents, {again}")
    if ended.status == TOO_LITTLE_MEMORY:
        cause = f"needs more than {limits.memory >> 20:,} MB of memory to read"
        return KnowledgeError(cause, "split it into smaller documents, or save it anew")
    if ended.status < 0:
        cause = f"makes the parser end (signal {-ended.status}): it is damaged, or memory ran out"
        return Killed(cause, f"save or export it anew, {again}")
    cause = f"makes the parser end (exit code {ended.status}): it is damaged"
    return KnowledgeError(cause, "save or export it anew")


def _forget() -> None:
    """In a forked copy of this process: the pipes belong to the original."""
    global _parser, _idle, _lock
    _parser, _idle, _lock = None, None, threading.RLock()


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
