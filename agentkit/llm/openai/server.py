"""A server with an OpenAI-compatible API: requests, retries, and every way in which they fail as one line."""

from __future__ import annotations

import email.utils
import json
import random
import re
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentkit.errors import ModelError
from agentkit.events import Notice
from agentkit.llm.openai.address import KEY_VARIABLES, Address
from agentkit.llm.openai.exchange import Cancelled, Exchange, Head, Request, TooMuch, failure
from agentkit.llm.openai.plain import plain

if TYPE_CHECKING:
    import httpx

RETRIED = (429, 502, 503, 504)
"""Statuses that pass by themselves."""
LONGEST_WAIT_S = 30.0
"""However long the server asks to wait."""
_SECRET_CHARS = 8
"""A shorter key is none: servers that check no keys are given "x" or "1", and names hold those."""
AGAIN = "ask again; what was said so far is no answer"
_ERROR_BYTES = 65_536
_JSON_BYTES = 4_000_000
_MESSAGE_CHARS = 300


class Refused(ModelError):
    """The server answered with an error.

    Args:
        status: Of HTTP.
        body: What the server sent with it.
    """

    def __init__(self, status: int, body: str, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.status, self.body = status, body


class Lost(ModelError):
    """The connection ended, or nothing came any more, in the middle of an answer."""


class _Passing(Exception):
    """Something that may go better the next time.

    Args:
        error: What it is if it does not.
        wait_s: How long the server asks to wait.
    """

    def __init__(self, error: ModelError, wait_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.wait_s = error, wait_s


@dataclass(frozen=True, slots=True)
class Server:
    """Where and how to ask.

    Args:
        address: Its address.
        key: API key, sent as a bearer token and shown nowhere.
        connect_s: Seconds until a connection must stand.
        timeout_s: Seconds between two pieces of an answer at most.
        retries: How often a request is repeated that the server had no time for.
        backoff_s: The first wait before that; it doubles each time.
    """

    address: Address
    key: str | None
    connect_s: float
    timeout_s: float
    retries: int
    backoff_s: float

    def __repr__(self) -> str:
        return f"Server({self.address.base_url!r})"

    def get(self, path: str, cancel: threading.Event | None = None) -> Generator[Notice, None, Any]:
        """Return the JSON behind a path; yields a `Notice` for each retry.

        Raises:
            ModelError: The server cannot be reached, refuses or answers something else.
            Cancelled: ``cancel`` was set.
        """
        body = b""
        try:
            for part in self._send(self._request("GET", path, None, _JSON_BYTES), cancel):
                if isinstance(part, Notice):
                    yield part
                else:
                    body += part
            return json.loads(body)
        except (ValueError, RecursionError, TooMuch) as error:
            raise self.no_json(body) from error

    def post(
        self, path: str, body: Any, limit: int, cancel: threading.Event | None
    ) -> Iterator[Notice | bytes]:
        """Send JSON and read the answer as it comes, with a `Notice` for each retry before its first byte.

        Raises:
            Refused: The server answered with an error.
            ModelError: The connection failed.
            Cancelled: ``cancel`` was set.
            TooMuch: The answer is longer than ``limit``.
        """
        yield from self._send(self._request("POST", path, body, limit), cancel)

    def clean(self, text: str) -> str:
        """The first line of what a server said, without control characters and without the key."""
        line = next(filter(None, map(plain, text.splitlines())), "")
        if self.key and len(self.key) >= _SECRET_CHARS:
            line = line.replace(self.key, "…")
        return line if len(line) <= _MESSAGE_CHARS else line[: _MESSAGE_CHARS - 1] + "…"

    def no_json(self, body: bytes) -> ModelError:
        """What came instead of JSON."""
        kind = "a web page" if body.lstrip()[:1] == b"<" else "something that is no JSON"
        cause = f"{self.address.base_url} answered with {kind}"
        return ModelError(cause, "check that the address is that of the API; most end in /v1")

    def error(self, body: Any) -> str:
        """The message of an error object, in the forms that servers use."""
        if isinstance(body, dict) and "msg" in body and isinstance(body.get("loc"), list):  # FastAPI's form
            return self.clean(f"{'.'.join(map(str, body['loc']))}: {body['msg']}")
        for key in ("error", "message", "detail", "msg"):
            if isinstance(body, dict) and (body.get(key) or (key == "message" and key in body)):
                return self.error(body[key] or "")
        if isinstance(body, list) and body:
            return self.error(body[0]) if len(body) == 1 else self.clean(json.dumps(body, ensure_ascii=False))
        return self.clean(body if isinstance(body, str) else json.dumps(body, ensure_ascii=False))

    def _request(self, method: str, path: str, body: Any, limit: int) -> Request:
        headers = {"Accept": "application/json" if body is None else "text/event-stream, application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        local = self.address.host in ("localhost", "::1") or self.address.host.startswith("127.")
        url, content = self.address.base_url + path, None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body, ensure_ascii=False).encode(
                "utf-8", "replace"
            )  # half a character is none
        return Request(method, url, headers, content, self.connect_s, self.timeout_s, limit, not local)

    def _send(self, request: Request, cancel: threading.Event | None) -> Iterator[Notice | bytes]:
        for attempt in range(self.retries + 1):
            try:
                yield from self._once(request, cancel)
                return
            except _Passing as passing:
                if attempt == self.retries:
                    tries = f"{attempt + 1} tries" if attempt else "one try"
                    cause = f"{passing.error.cause} (after {tries})"
                    raise ModelError(cause, passing.error.remedy) from passing.error
                wait = self._wait(attempt, passing.wait_s)
                cause = passing.error.cause
                yield Notice(
                    "retry", f"{cause}: trying again in {wait:.1f} s ({attempt + 1} of {self.retries})"
                )
                _sleep(wait, cancel)

    def _wait(self, attempt: int, asked: float | None) -> float:
        """Exponential, with jitter so that many clients do not come back at once."""
        own: float = self.backoff_s * 2**attempt * random.uniform(0.5, 1.0)
        return min(LONGEST_WAIT_S, own if asked is None else max(own, asked))

    def _once(self, request: Request, cancel: threading.Event | None) -> Iterator[bytes]:
        import httpx

        if cancel is not None and cancel.is_set():
            raise Cancelled
        exchange, begun = Exchange(request, cancel), False
        try:
            parts = iter(exchange)
            head = next(parts, None)
            if not isinstance(head, Head):
                raise ModelError(f"{self.address.base_url} gave no answer", "see the server's log")
            if not 200 <= head.status < 300:
                raise self._refused(head, _some(parts))
            for part in parts:
                if isinstance(part, bytes) and part:
                    begun = True
                    yield part
        except httpx.HTTPError as error:
            raise self._broken(error, begun) from error
        except ImportError as error:  # a proxy of the environment may need more than was installed
            reason = self.clean(str(error)).partition(". ")[0]
            remedy = "pip install 'httpx[socks]', or unset the proxy in the environment"
            raise ModelError(f"cannot ask {self.address.base_url}: {reason}", remedy) from error
        except (httpx.InvalidURL, OSError, ValueError) as error:
            reason = self.clean(str(error))
            raise ModelError(f"cannot ask {self.address.base_url}: {reason}", "check the address") from error
        finally:
            exchange.close()

    def _broken(self, error: httpx.HTTPError, begun: bool) -> Exception:
        import httpx

        base, reason = self.address.base_url, self.clean(failure(error))
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            if isinstance(error, httpx.ConnectTimeout):
                reason = f"no connection within {self.connect_s:g} s"
            remedy = "start the server, or check the address"
            return _Passing(ModelError(f"cannot reach {base}: {reason}", remedy))
        if isinstance(error, httpx.TimeoutException):
            cause = f"{base} sent nothing for {self.timeout_s:g} s"
            return (Lost if begun else ModelError)(cause, "try again, or raise [remote] timeout_s")
        if isinstance(error, httpx.DecodingError):
            return ModelError(
                f"the answer of {base} cannot be decompressed: {reason}", "see the server's log"
            )
        if begun:
            return Lost(f"{base} closed the connection in the middle of its answer: {reason}", AGAIN)
        return _Passing(ModelError(f"{base} closed the connection: {reason}", "see the server's log"))

    def _refused(self, head: Head, body: bytes) -> Exception:
        base, status, remedy = self.address.base_url, head.status, "see the server's log"
        said, text = self._said(body), body.decode("utf-8", "replace")
        if 300 <= status < 400:
            target = self.clean(
                re.sub(r"//[^/@]*@", "//", head.headers.get("location", "")).partition("?")[0]
            )
            cause = f"{base} redirects to {target or 'nowhere'}, which is not followed"
            return Refused(status, text, cause, "use that address itself if it is the server's")
        cause = f"{base} answered {status}" + (f": {said}" if said else "")
        if status in (401, 403):
            key = KEY_VARIABLES[0]
            remedy = f"check the key in {key}" if self.key else f"put the server's key into {key}"
        elif status in (404, 405):
            remedy = "check the path, most end in /v1, and the model's name: agentkit models info ADDRESS"
        elif status in (400, 413, 422):
            long = "context" in said or "too long" in said or status == 413
            remedy = (
                "shorten the message or start a new session" if long else "leave out or change what it names"
            )
        elif status == 429:
            remedy = "wait, or ask less often"
        refused = Refused(status, text, cause, remedy)
        return _Passing(refused, _retry_after(head)) if status in RETRIED else refused

    def _said(self, body: bytes) -> str:
        try:
            return self.error(json.loads(body))
        except (ValueError, RecursionError):
            text = body.decode("utf-8", "replace")
            return "a web page" if text.lstrip().startswith("<") else self.clean(text)


def _some(parts: Iterator[Head | bytes]) -> bytes:
    """As much of an error's text as may be of use."""
    import httpx

    body = b""
    try:
        for part in parts:
            if isinstance(part, bytes):
                body += part
            if len(body) > _ERROR_BYTES:
                break
    except (httpx.HTTPError, TooMuch):
        pass  # the status is known, which is what matters
    return body[:_ERROR_BYTES]


def _retry_after(head: Head) -> float | None:
    """Seconds that the server asks to wait: it may give a number or a date."""
    text = head.headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError):
        return None


def _sleep(seconds: float, cancel: threading.Event | None) -> None:
    if cancel is None:
        time.sleep(seconds)
    elif cancel.wait(seconds):
        raise Cancelled
