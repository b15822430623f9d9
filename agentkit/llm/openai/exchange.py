"""One HTTP request in a thread of its own, so that it can be ended at any moment: while it connects, waits or reads."""

from __future__ import annotations

import os
import queue
import threading
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


_POLL_S = 0.02
"""How often a waiting caller looks whether it was cancelled."""


class Cancelled(Exception):
    """The caller's event was set."""


class TooMuch(Exception):
    """The server sends more than any honest answer has."""


_PIECE = 65_536
"""Bytes of an answer that are inflated at a time."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, and how long it may take."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    connect_s: float
    timeout_s: float
    """Between two pieces of the answer."""
    limit: int
    """Bytes of an answer at most; what comes then is not read."""
    use_proxy: bool


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer."""

    status: int
    headers: Mapping[str, str]


class Exchange:
    """A request under way; iterate over it for the `Head` and then the bytes.

    Args:
        request: What to send.
        cancel: Set it from any thread to end the exchange.

    Raises:
        Cancelled: While iterating, soon after ``cancel`` was set.
        TooMuch: The answer is longer than the request's limit.
        httpx.HTTPError: The connection failed.
    """

    def __init__(self, request: Request, cancel: threading.Event | None) -> None:
        self._request, self._cancel = request, cancel
        self._items: queue.SimpleQueue[Head | bytes | Exception | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._work, name="agentkit-remote", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Head | bytes]:
        while True:
            if self._cancel is not None and self._cancel.is_set():
                raise Cancelled
            try:
                item = self._items.get(timeout=_POLL_S if self._cancel is not None else None)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item

    def close(self) -> None:
        """End it now, whatever it is doing; the server sees its client leave."""
        with self._lock:
            self._closed = True
            if self._loop is not None and self._task is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._task.cancel)

    def _work(self) -> None:
        import asyncio

        try:
            asyncio.run(self._run())
        except asyncio.CancelledError:
            pass  # by `close`: nobody listens any more
        except Exception as error:  # raised in the thread that waits for the answer
            self._items.put(error)
        self._items.put(None)

    async def _run(self) -> None:
        import asyncio

        with self._lock:
            if self._closed:
                return
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            await self._talk()
        finally:
            with self._lock:
                self._task = None

    async def _talk(self) -> None:
        import httpx

        request = self._request
        timeout = httpx.Timeout(request.timeout_s, connect=request.connect_s)
        options: dict[str, Any] = {"timeout": timeout, "trust_env": request.use_proxy}
        async with (
            httpx.AsyncClient(verify=_verification(request.url), **options) as client,
            client.stream(
                request.method,
                request.url,
                headers={**request.headers, "Accept-Encoding": "gzip"},
                content=request.body,
            ) as response,
        ):
            self._items.put(Head(response.status_code, response.headers))
            size = 0
            async for data in _decoded(response):
                size += len(data)
                if size > request.limit:
                    raise TooMuch
                self._items.put(data)


async def _decoded(response: Any) -> AsyncIterator[bytes]:
    """The body in pieces of bounded size, whatever its compression makes of them: httpx would inflate each as a whole.

    Raises:
        httpx.DecodingError: It is compressed in another way than it may be, or not as it says.
    """
    import httpx

    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise httpx.DecodingError(f"the answer cannot be decompressed: it is encoded as {encoding[:40]!r}")
    inflate = zlib.decompressobj(31) if encoding == "gzip" else None
    async for data in response.aiter_raw():
        if inflate is None:
            yield data
        while inflate is not None and data:
            try:
                yield inflate.decompress(data, _PIECE)
            except zlib.error as error:
                raise httpx.DecodingError(f"the answer cannot be decompressed: {error}") from error
            data = inflate.unconsumed_tail


def _verification(url: str) -> Any:
    """Reading the certificates takes longer than many an answer; a plain connection has no use for them."""
    return url.startswith("https:")


def failure(error: BaseException) -> str:
    """Why a connection failed: what the system says where it says something, for httpx's own words are general."""
    told = ""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, ConnectionError) and cause.errno:
            return os.strerror(cause.errno)
        if isinstance(cause, OSError) and cause.errno and cause.strerror:
            return str(cause.strerror)
        told = told or str(cause)
        cause = cause.__cause__ or cause.__context__
    return told or type(error).__name__
