"""Where a remote model is: ``openai+http://host:8000/v1#model``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from agentkit.errors import UsageError

SCHEMES = ("openai+http://", "openai+https://")
KEY_VARIABLES = ("AGENTKIT_API_KEY", "OPENAI_API_KEY")
"""Where the API key comes from, the first that is set; the second is not sent everywhere."""
_LOCAL = ("127.0.0.1", "::1", "localhost")
_FORM = "write openai+http://HOST:PORT/v1#MODEL"


def is_remote(name: str) -> bool:
    """Whether a model's name is the address of a server."""
    return name.strip().lower().startswith("openai+")


@dataclass(frozen=True, slots=True)
class Address:
    """A server and, where named, one of its models."""

    base_url: str
    """``http://host:8000/v1``, without a slash at the end."""
    host: str
    model: str | None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises:
            UsageError: It is none, or it holds a secret; the message never shows one.
        """
        text = text.strip()
        if not text.lower().startswith(SCHEMES):
            raise UsageError(
                "the address of a remote model begins with openai+http:// or openai+https://", _FORM
            )
        if "@" in text.partition("#")[0]:
            cause = "the address of the remote model holds a user name or password"
            raise UsageError(cause, f"leave it out and put the key into {KEY_VARIABLES[0]}")
        try:
            parts = urlsplit(text[len("openai+") :])
            host, port = parts.hostname or "", parts.port
        except ValueError:  # its message may repeat a password
            raise UsageError("the address of the remote model has no valid host and port", _FORM) from None
        if not host or any(letter.isspace() or not letter.isprintable() for letter in text):
            raise UsageError("the address of the remote model names no host", _FORM)
        if parts.query:
            raise UsageError("the address of the remote model has a part behind '?'", _FORM)
        shown = f"[{host}]" if ":" in host else host
        netloc = shown if port is None else f"{shown}:{port}"
        base = f"{parts.scheme.lower()}://{netloc}{parts.path.rstrip('/')}"
        return cls(base, host, unquote(parts.fragment) or None)


def api_key(where: Address) -> str | None:
    """The key of the environment for a server, if there is one.

    ``OPENAI_API_KEY`` goes to OpenAI, encrypted, and to this machine only: a project from elsewhere may name any
    server.

    Raises:
        UsageError: It cannot be sent; the message does not show it.
    """
    is_openai = where.host == "api.openai.com" and where.base_url.startswith("https://")
    for name in KEY_VARIABLES if is_openai or where.host in _LOCAL else KEY_VARIABLES[:1]:
        key = os.environ.get(name, "").strip()
        if key:
            return checked_key(key, name)
    return None


def checked_key(key: str, name: str) -> str:
    """The key, if it can stand in a header."""
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"{name} holds characters that no key has", "copy it again, without line ends")
    return key
