"""A server of the standard library that answers as a test tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agentkit.errors import ModelError
from agentkit.events import Notice, TextDelta, ToolCallProposed
from agentkit.llm.protocol import ModelEvent
from agentkit.llm.remote import RemoteModel
from agentkit.messages import Completion

ASK = [{"role": "user", "content": "Hi"}]
DONE = b"data: [DONE]\n\n"
EVENTS = "text/event-stream"


@dataclass
class Asked:
    """One request that came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Fake:
    """What the server was asked and what it answers; asking for more than it was told is a 500."""

    url: str
    answers: list[Answer] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    models: Any = field(default_factory=lambda: {"data": [{"id": "tiny"}]})
    models_asked: int = 0
    left: threading.Event = field(default_factory=threading.Event)
    """Set when a client went away in the middle of an answer."""

    def model(self, **options: Any) -> RemoteModel:
        """A client of it that is quick to give up."""
        return RemoteModel(f"openai+{self.url}", **{"backoff_s": 0.01, "timeout_s": 5.0, **options})

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [asked.body for asked in self.asked]


@contextmanager
def fake_server(port: int = 0) -> Iterator[Fake]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            fake.models_asked += 1
            answer = fake.models if callable(fake.models) else reply(json.dumps(fake.models).encode())
            answer(self)

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            fake.asked.append(Asked(self.path, headers, json.loads(raw)))
            try:
                (fake.answers.pop(0) if fake.answers else reply(b"out of answers", 500))(self)
            except OSError:
                fake.left.set()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *arguments: object) -> None:
            fake.left.set()

    server = Server(("127.0.0.1", port), Handler)
    fake = Fake(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reply(
    body: bytes | Sequence[bytes],
    status: int = 200,
    kind: str = "application/json",
    headers: dict[str, str] | None = None,
    length: int | None = None,
) -> Answer:
    """A body, in one piece or several; without ``length`` it ends with the connection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        sent = {"Content-Type": kind, **({} if length is None else {"Content-Length": str(length)})}
        for name, value in {**sent, **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        for piece in [body] if isinstance(body, bytes) else body:
            handler.wfile.write(piece)
            handler.wfile.flush()

    return answer


def stream(*chunks: Any, done: bool = True) -> Answer:
    """Chunks as server-sent events."""
    return reply([event(chunk) for chunk in chunks] + [DONE] * done, kind=EVENTS)


def event(chunk: Any) -> bytes:
    return b"data: " + (chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()) + b"\n\n"


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def said(*words: str, finish: str = "stop") -> Answer:
    """Words, streamed."""
    return stream(*(chunk(content=word) for word in words), chunk(finish))


def part(arguments: Any = None, name: str | None = None, **more: Any) -> dict[str, Any]:
    """One piece of a call."""
    function = {"name": name, "arguments": arguments}
    return {**more, "function": {key: value for key, value in function.items() if value is not None}}


def called(*calls: tuple[str, Any], finish: str = "tool_calls") -> Answer:
    """Whole calls, a chunk each."""
    chunks = [
        chunk(tool_calls=[part(arguments, name, index=n, id=f"c{n}", type="function")])
        for n, (name, arguments) in enumerate(calls)
    ]
    return stream(*chunks, chunk(finish))


def hang(seconds: float = 5.0, first: bytes = b"", headers: bool = True) -> Answer:
    """Goes silent, until the client leaves or the time is over."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if headers:
            reply(first, kind=EVENTS)(handler)
        end = time.monotonic() + seconds
        handler.connection.settimeout(0.02)
        while time.monotonic() < end:
            try:
                if handler.connection.recv(1) == b"":
                    raise ConnectionError("the client left")
            except TimeoutError:
                continue

    return answer


def pinging(pause_s: float, first: bytes = b"", ping: bytes = b": ping\n\n") -> Answer:
    """Says nothing any more and keeps the connection, for five seconds at most."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(first, kind=EVENTS)(handler)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            handler.wfile.write(ping)
            time.sleep(pause_s)

    return answer


def drop(handler: BaseHTTPRequestHandler) -> None:
    """Closes the connection without a word."""
    handler.close_connection = True


def endless(piece: bytes) -> Answer:
    """Never stops sending."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(b"", kind=EVENTS)(handler)
        while True:
            handler.wfile.write(piece)

    return answer


def an_object(**properties: Any) -> dict[str, Any]:
    """A JSON schema."""
    return {"type": "object", "properties": properties}


def codes(events: Sequence[ModelEvent]) -> list[str]:
    return [event.code for event in events if isinstance(event, Notice)]


def proposed(events: Sequence[ModelEvent]) -> list[tuple[str, dict[str, Any]]]:
    return [(e.call.name, e.call.arguments) for e in events if isinstance(e, ToolCallProposed)]


def completion(events: Sequence[ModelEvent]) -> Completion:
    """The last event; what it says is what was streamed."""
    (done,) = [event for event in events if isinstance(event, Completion)]
    assert events[-1] is done
    assert done.text == "".join(event.text for event in events if isinstance(event, TextDelta))
    assert list(done.tool_calls) == [event.call for event in events if isinstance(event, ToolCallProposed)]
    return done


def until_error(events: Iterator[ModelEvent]) -> tuple[list[ModelEvent], ModelError]:
    """What a stream yields, and the error that ends it."""
    heard: list[ModelEvent] = []
    try:
        for each in events:
            heard.append(each)
    except ModelError as error:
        return heard, error
    raise AssertionError("the stream ended without an error")
