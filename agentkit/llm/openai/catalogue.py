"""Which model is asked, and what the server tells about it."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentkit.errors import AgentkitError, ModelError
from agentkit.events import Notice
from agentkit.llm.openai.exchange import Cancelled
from agentkit.llm.openai.server import Refused, Server
from agentkit.messages import ToolSpec

_LENGTHS = ("max_model_len", "context_length", "max_context_length", "n_ctx", "n_ctx_train")
"""Where vLLM and SGLang, OpenRouter, LM Studio and llama-server tell the context length; the last two in ``meta``."""
_BYTES_PER_TOKEN = 3
_TOKENS_PER_MESSAGE = 8
_QUICK_S, _PAUSE_S = 1.0, 30.0
"""How long the length alone is waited for, and how long it is not asked for again where that failed the first time."""
_NAMED = 10
"""Names listed in a message."""


class Catalogue:
    """The models of a server.

    Args:
        server: The server; its address may name the model.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._models: list[Mapping[str, Any]] | None = None
        self._ask_after = -math.inf
        """When the length may be asked for again."""
        self._pause_s = _PAUSE_S
        self._untold: Notice | None = None
        self.known: str | None = server.address.model
        """The model's name; None as long as it was neither given nor asked for."""

    def choose(self, cancel: threading.Event | None) -> Iterator[Notice]:
        """See to it that the model is known; tells once if there was a choice.

        Raises:
            ModelError: The server lists none.
        """
        if self.known is None:
            self._pick((yield from self._list(self._server, cancel)))
        if self._untold is not None:
            yield self._untold
            self._untold = None

    def info(self) -> dict[str, Any]:
        """What `agentkit models info` prints."""
        self._models = None
        models = _result(self._list(self._server, None))
        self._pick(models)
        server = self._server
        return {
            "name": server.clean(self.known or ""),
            "base_url": server.address.base_url,
            "api_key": "sent" if server.key else "none",
            "context_length": self._length() or "unknown",
            "models": [server.clean(str(model["id"])) for model in models],
        }

    def room(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[ToolSpec]) -> int | None:
        """About how many tokens are left, if the server tells its context length."""
        if self._models is None:
            if time.monotonic() < self._ask_after:
                return None
            try:
                connect_s, timeout_s = (
                    min(self._server.connect_s, _QUICK_S),
                    min(self._server.timeout_s, _QUICK_S),
                )
                quick = replace(self._server, retries=0, connect_s=connect_s, timeout_s=timeout_s)
                self._pick(_result(self._list(quick, None)))
            except ModelError:  # the conversation itself will tell what is wrong with the server
                self._ask_after = time.monotonic() + self._pause_s
                self._pause_s *= (
                    2  # a server that hangs there must not hold up a long conversation again and again
                )
                return None
        length = self._length()
        if length is None:
            return None
        parts = [*messages, *(tool.to_openai() for tool in tools)]
        size = sum(len(json.dumps(part, ensure_ascii=False).encode("utf-8", "replace")) for part in parts)
        return length - size // _BYTES_PER_TOKEN - _TOKENS_PER_MESSAGE * len(parts)

    def _pick(self, models: Sequence[Mapping[str, Any]]) -> None:
        """The first, where none was named."""
        if self.known is not None:
            return
        if not models:
            remedy = "load one there, or name it behind the address: …/v1#MODEL"
            raise ModelError(f"{self._server.address.base_url} lists no model", remedy)
        self.known = str(models[0]["id"])
        if len(models) > 1:
            cause = (
                f"the server has {len(models)} models; {self._server.clean(self.known)} is used, the first"
            )
            self._untold = Notice("model_chosen", f"{cause}: name one behind the address with #")

    def explained(self, refused: Refused, cancel: threading.Event | None) -> ModelError:
        """The error for a request that was not found, with the models there are if the server tells."""
        if refused.status != 404:
            return refused
        try:
            models = _result(self._list(replace(self._server, retries=0), cancel))
        except (AgentkitError, Cancelled):
            return refused
        names = [self._server.clean(str(model["id"])) for model in models]
        if not names or self.known in names:
            return refused
        more = ", …" if len(names) > _NAMED else ""
        cause = f"{self._server.address.base_url} has no model {self._server.clean(self.known or '')!r}"
        return ModelError(cause, f"name one behind the address with #: {', '.join(names[:_NAMED])}{more}")

    def _list(
        self, server: Server, cancel: threading.Event | None
    ) -> Generator[Notice, None, list[Mapping[str, Any]]]:
        if self._models is None:
            body = yield from server.get("/models", cancel)
            found = body.get("data", body.get("models")) if isinstance(body, Mapping) else body
            entries = found if isinstance(found, list) else []
            self._models = [m for m in entries if isinstance(m, Mapping) and m.get("id")]
        return self._models

    def _length(self) -> int | None:
        model = next((m for m in self._models or () if m["id"] == self.known), {})
        meta = model.get("meta")
        for place in (model, meta if isinstance(meta, Mapping) else {}):
            for name in _LENGTHS:
                length = place.get(name)
                if isinstance(length, int) and not isinstance(length, bool) and length > 0:
                    return length
        return None


def _result(steps: Generator[Notice, None, list[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """What a generator returns, where nobody is there to be told of its retries."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            models: list[Mapping[str, Any]] = end.value
            return models
