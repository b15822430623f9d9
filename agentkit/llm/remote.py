"""A language model behind an OpenAI-compatible server, behind `ChatModel`: vLLM, SGLang, Ollama, llama-server, …"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from agentkit.errors import ModelError
from agentkit.events import Notice, TextDelta
from agentkit.llm.openai import request as form
from agentkit.llm.openai.address import Address, api_key, checked_key
from agentkit.llm.openai.answer import Answer, BadAnswer
from agentkit.llm.openai.catalogue import Catalogue
from agentkit.llm.openai.checks import check_schema
from agentkit.llm.openai.dialect import Dialect, Trial
from agentkit.llm.openai.exchange import Cancelled
from agentkit.llm.openai.server import Refused, Server
from agentkit.llm.openai.stream import Reader, Silent
from agentkit.llm.openai.task import Task, settle
from agentkit.llm.options import (
    AnyMessage,
    AnyTool,
    read_messages,
    read_response_format,
    read_sampling,
    read_tool_choice,
    read_tools,
    routed,
)
from agentkit.llm.protocol import ModelEvent, Router, drained
from agentkit.messages import Completion, Message, ToolChoice, ToolSpec, Usage
from agentkit.settings import SamplingSettings

_CHAT = "/chat/completions"


class RemoteModel:
    """Continues conversations on a server.

    Args:
        address: ``openai+http://host:8000/v1`` or ``openai+https://…``, the model's name behind ``#``; without a
            name, the first that the server lists.
        key: API key; by default the environment's ``AGENTKIT_API_KEY``; for OpenAI and this machine also
            ``OPENAI_API_KEY``.
        sampling: Defaults for every call.
        router: Decides under ``tool_choice="auto"`` whether a turn needs a tool; without one the model decides.
        connect_s: Seconds until a connection must stand.
        timeout_s: Seconds between two pieces of an answer at most.
        retries: How often a request is repeated that could not be served.
        backoff_s: The first wait before that; it doubles each time.
        corrections: How often a wrong call or answer is answered back to the model.

    Raises:
        UsageError: The address or the key cannot be used. The server itself is asked at the first call.
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        sampling: SamplingSettings | None = None,
        router: Router | None = None,
        connect_s: float = 5.0,
        timeout_s: float = 60.0,
        retries: int = 3,
        backoff_s: float = 0.5,
        corrections: int = 2,
    ) -> None:
        where = Address.parse(address)
        secret = api_key(where) if key is None else checked_key(key, "the API key")
        self._server = Server(where, secret, connect_s, timeout_s, retries, backoff_s)
        self._catalogue = Catalogue(self._server)
        self._sampling = sampling or SamplingSettings()
        self._router, self._corrections = router, corrections
        self._dialect = Dialect()

    def __repr__(self) -> str:
        return f"RemoteModel({self.name!r})"

    @property
    def name(self) -> str:
        """The model's name, or the server's address as long as it has not been asked."""
        return self._catalogue.known or self._server.address.base_url

    def info(self) -> dict[str, Any]:
        """Address, model, context length and the server's other models, asked now.

        Raises:
            ModelError: The server does not answer.
        """
        return self._catalogue.info()

    def room(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int | None:
        """About how many tokens the context has left; None where the server does not tell its length.

        The tokenizer is there, not here: it is taken to need a token for every three bytes, more than for most texts.
        """
        return self._catalogue.room(form.chat_messages(messages), tools)

    def check_tool(self, spec: ToolSpec) -> None:
        """Refuse a tool whose schema cannot be sent or checked.

        Raises:
            SchemaError: Names the tool, the place in its schema and the reason.
        """
        check_schema(spec.schema, f"tool {spec.name!r}", arguments=True)

    def chat(self, messages: Sequence[AnyMessage], **options: Any) -> Completion:
        """`stream`, drained: the final `Completion`. Takes the same options."""
        return drained(self.stream(messages, **options))

    def stream(
        self,
        messages: Sequence[AnyMessage],
        *,
        tools: Sequence[AnyTool] = (),
        tool_choice: ToolChoice = "auto",
        response_format: Mapping[str, Any] | None = None,
        cancel: threading.Event | None = None,
        describe_tools: bool = True,
        turn: str | None = None,
        choices: Sequence[str] = (),
        parallel_tool_calls: bool = False,
        **sampling: Any,
    ) -> Iterator[ModelEvent]:
        """Continue a conversation.

        Args:
            messages: The conversation, system message first; OpenAI form or `Message`.
            tools: OpenAI schemas, `Tool`s, `ToolSpec`s or plain typed functions.
            tool_choice: ``auto``, ``none``, ``required`` or ``{"name": ...}``.
            response_format: A JSON schema that the answer's text must satisfy.
            cancel: Set it from any thread to stop; what was said is kept.
            describe_tools: Of no effect: the server gets the tools in a field of their own.
            turn: Of no effect: the server's model fills in arguments by itself.
            choices: The answer's text must be one of these.
            parallel_tool_calls: Take several calls in one answer.
            **sampling: Fields of `SamplingSettings` for this call.

        Yields:
            `TextDelta`s, `ToolCallProposed`s that fit their schemas; `Notice`s; the `Completion` last.

        Raises:
            SchemaError: A schema cannot be sent.
            UsageError: An option is unknown or wrong.
            ModelError: The server failed, or its model could not be brought to a call or answer that fits.
        """
        conversation, specs = read_messages(messages), read_tools(tools)
        forced = read_tool_choice(tool_choice, specs)
        settings = read_sampling(self._sampling, sampling)
        schema = read_response_format(response_format)
        for spec in specs:
            self.check_tool(spec)
        if schema is not None:
            check_schema(schema, "response_format")
        if len(choices) == 1:
            yield TextDelta(choices[0])
            yield Completion(choices[0], (), Usage(), "stop")
            return
        choice = routed(conversation, specs, tool_choice, self._router)
        if choice != tool_choice:
            forced = read_tool_choice(choice, specs)
        task = Task(
            form.chat_messages(conversation), specs, choice, forced, parallel_tool_calls,
            form.choice_schema(choices) if choices else schema, choices, settings, cancel,
        )  # fmt: skip
        try:
            yield from self._run(task)
        except Cancelled:
            yield Completion(task.said, (), task.usage, "cancelled")

    def _run(self, task: Task) -> Iterator[ModelEvent]:
        """Ask, check, and ask again with what was wrong; what passes is yielded."""
        yield from self._catalogue.choose(task.cancel)
        trial = Trial(self._dialect, task, self._server.clean(self.name))
        for attempt in range(self._corrections + 1):
            answer, text = yield from self._ask(task, trial)
            problem = yield from settle(task, answer, text)
            if problem is None:
                return
            complaint, messages = problem
            if attempt == self._corrections:
                cause = f"{self.name} gave nothing that fits in {attempt + 1} tries: {complaint}"
                raise ModelError(self._server.clean(cause), "ask differently, or take a larger model")
            code = "bad_call" if answer.calls or task.forced else "bad_answer"
            yield Notice(code, f"{complaint}; asked again ({attempt + 1} of {self._corrections})")
            task.messages += messages

    def _ask(self, task: Task, trial: Trial) -> Generator[ModelEvent, None, tuple[Answer, str]]:
        """One request; returns what came. Its text is yielded as it comes, unless it has to be checked first."""
        started, text = time.perf_counter(), ""
        reader = Reader(self._server, task.sampling)
        try:
            for event in self._accepted(task, trial, reader):
                if isinstance(event, TextDelta):
                    delta = event.text
                    if not text and task.said and not task.held:
                        delta = f"\n\n{delta}"  # it goes on after a wrong call
                    text += event.text
                    if task.held:
                        continue
                    task.said += delta
                    event = TextDelta(delta)
                yield event
        except BadAnswer as error:
            cause = f"the answer of {self._server.address.base_url} cannot be read: {error}"
            raise ModelError(cause, "see the server's log") from error
        finally:
            task.usage += reader.answer.usage(started, reader.first, time.perf_counter())
        return reader.answer, text

    def _accepted(self, task: Task, trial: Trial, reader: Reader) -> Iterator[TextDelta | Notice]:
        """The answer's events, asked for without what the server turns out to refuse."""
        while True:
            body = trial.body(self._catalogue.known)
            try:
                for event in reader.read(_CHAT, body, task.cancel):
                    if isinstance(event, TextDelta):
                        yield from trial.accepted()
                    yield event
                yield from trial.accepted()
                return
            except Refused as refused:
                if not trial.refused(body, refused):
                    raise self._catalogue.explained(refused, task.cancel) from None
            except Silent:
                if not trial.silent(body):
                    raise
