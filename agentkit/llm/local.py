"""A language model in this process, behind `ChatModel`."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from agentkit.engine.decode import FinishReason, Sampler, Tokens, decoding, is_looping
from agentkit.engine.drafts import Drafts
from agentkit.engine.ledger import Ledger, LedgerPool
from agentkit.engine.scheduler import Scheduler
from agentkit.engine.weights import LoadedModel
from agentkit.errors import AgentkitError, ModelError, UsageError
from agentkit.events import Notice, TextDelta, ToolCallProposed
from agentkit.llm.detokenize import TextStream
from agentkit.llm.encoding import ChatEncoder
from agentkit.llm.formats import hermes
from agentkit.llm.grammar import Grammar, GrammarCompiler
from agentkit.llm.options import AnyMessage, AnyTool, read_messages, read_sampling, read_tools
from agentkit.llm.protocol import ModelEvent, Router
from agentkit.messages import Completion, Message, ToolCall, ToolChoice, ToolSpec, Usage
from agentkit.settings import SamplingSettings


@dataclass(slots=True)
class _Run:
    """One completion under way."""

    ledger: Ledger
    prompt_tokens: int
    cached_tokens: int
    started: float
    passes_before: int
    relieved_before: int
    cancel: threading.Event | None
    sampling: SamplingSettings
    sampler: Sampler
    completion_tokens: int = 0
    first_token: float = 0.0
    finish: FinishReason = "stop"

    def usage(self) -> Usage:
        now = time.perf_counter()
        return Usage(
            self.prompt_tokens,
            self.cached_tokens,
            self.completion_tokens,
            self.ledger.forward_passes - self.passes_before,
            (self.first_token or now) - self.started,
            now - self.started,
        )


class LocalModel:
    """Continues conversations with a loaded model.

    Args:
        loaded: Weights and tokenizer.
        sampling: Defaults for every call.
        router: Decides under ``tool_choice="auto"`` whether a turn needs a tool; without one the model decides
            by writing the opening tag of a call.
        drafts: Try what followed the same words earlier in the conversation, several tokens in one forward pass.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        sampling: SamplingSettings | None = None,
        router: Router | None = None,
        drafts: bool = True,
    ) -> None:
        self._loaded = loaded
        self._sampling = sampling or SamplingSettings()
        self._router = router
        self._drafts = drafts
        self._encoder = ChatEncoder(loaded.tokenizer, loaded.eos_ids)
        self._pool = LedgerPool(loaded)
        self._scheduler = Scheduler(loaded)
        self._compiler: GrammarCompiler | None = None
        self._told = False
        """A template that rewrites history has been reported."""

    @property
    def name(self) -> str:
        return self._loaded.name

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self._loaded.tokenizer

    @property
    def hf_model(self) -> Any:
        """The transformers model."""
        return self._loaded.model

    @property
    def encoder(self) -> ChatEncoder:
        """Messages to token ids, as this model is served; fine-tuning renders with it too."""
        return self._encoder

    @property
    def context_length(self) -> int:
        """Tokens a conversation may have."""
        return self._loaded.context_length

    def info(self) -> dict[str, Any]:
        """Parameters, device, quantization, bytes, context length; whether the template rewrites history."""
        return {**self._loaded.info(), "rewrites_history": self._encoder.rewrites_history}

    def render(self, messages: Sequence[AnyMessage], tools: Sequence[AnyTool] = ()) -> list[int]:
        """The exact token ids from which `chat` would start."""
        return self._encoder.encode(read_messages(messages), read_tools(tools)).ids

    def room(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> int:
        """Tokens the context has left after ``messages``; negative if they do not fit."""
        return self.context_length - len(self._encoder.encode(messages, tools).ids)

    def check_tool(self, spec: ToolSpec) -> None:
        """Refuse a tool whose schema the grammar cannot express.

        Raises:
            SchemaError: Names the tool, the path in its schema and the reason.
        """
        self._grammars().check(spec.schema, f"tool {spec.name!r}")

    def chat(self, messages: Sequence[AnyMessage], **options: Any) -> Completion:
        """`stream`, drained: the final `Completion`. Takes the same options."""
        last = list(self.stream(messages, **options))[-1]
        if not isinstance(last, Completion):
            raise ModelError("the model ended without a completion", "report this conversation")
        return last

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
        **sampling: Any,
    ) -> Iterator[ModelEvent]:
        """Continue a conversation.

        Args:
            messages: The conversation, system message first; OpenAI form or `Message`.
            tools: OpenAI schemas, `Tool`s, `ToolSpec`s or plain typed functions.
            tool_choice: ``auto``, ``none``, ``required`` or ``{"name": ...}``.
            response_format: A JSON schema that the answer's text must satisfy.
            cancel: Set it from any thread to stop; what was decoded is kept.
            describe_tools: Put the tools' schemas into the system message; false where the conversation
                describes them already.
            choices: The answer's text must be one of these; the model's scores decide.
            turn: The words that copied arguments are taken from, required texts of tools without examples
                included; by default the last user message, for parameters that the examples show to be copied.
            **sampling: Fields of `SamplingSettings` for this call.

        Yields:
            `TextDelta`s, or one `ToolCallProposed`; `Notice`s; the `Completion` last.

        Raises:
            SchemaError: A schema cannot be made a grammar.
            UsageError: An option is unknown or wrong.
            ModelError: Decoding failed.
        """
        conversation, specs = read_messages(messages), read_tools(tools)
        choice = self._choose(conversation, specs, tool_choice)
        words = (
            next((m.content for m in reversed(conversation) if m.role == "user"), "")
            if turn is None
            else turn
        )
        grammar = self._grammar(choice, response_format, choices, words, copy=turn is not None)
        settings = read_sampling(self._sampling, sampling)
        prompt = self._encoder.encode(conversation, specs if describe_tools else ()).ids
        if len(prompt) >= self.context_length:
            cause = f"the conversation has {len(prompt)} tokens, the model's context is {self.context_length}"
            raise ModelError(cause, "shorten the message or start a new session")
        yield from self._template_notice()
        run = self._start(prompt, settings, cancel)
        try:
            if choice:
                yield from self._call(run, grammar, choice)
            elif grammar is not None:
                yield from self._text(run, grammar)
            elif specs and tool_choice == "auto" and self._router is None:
                yield from self._text_or_call(run, specs)
            else:
                yield from self._text(run, None)
        except GeneratorExit:  # the caller has heard enough; at a yield the ledger is always consistent
            self._pool.release(run.ledger)
            raise
        except AgentkitError:
            self._pool.discard(run.ledger)
            raise
        except Exception as error:  # whatever the model's thread died of ends this turn, and no other
            self._pool.discard(run.ledger)
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"the model failed while decoding: {reason}", "try again, or a smaller model"
            ) from error
        except BaseException:
            self._pool.discard(run.ledger)
            raise
        self._pool.release(run.ledger)

    def _template_notice(self) -> Iterator[Notice]:
        """Once per model: why its turns take longer than they need to."""
        if not self._told and self._encoder.rewrites_history:
            self._told = True
            cause = "the model's chat template changes earlier messages when new ones come"
            yield Notice("template", f"{cause}: that part of a conversation is computed again in every turn")

    def _choose(self, messages: list[Message], specs: list[ToolSpec], choice: ToolChoice) -> list[ToolSpec]:
        """The tools of which one must be called now; empty for free text."""
        if isinstance(choice, Mapping):
            function: Any = choice.get("function")
            wanted = choice.get("name") or (function.get("name") if isinstance(function, Mapping) else None)
            chosen = [spec for spec in specs if spec.name == wanted]
            if not chosen:
                known = ", ".join(spec.name for spec in specs) or "none"
                raise UsageError(
                    f"tool_choice names {wanted!r}, which is no tool of this call", f"tools: {known}"
                )
            return chosen
        if choice not in ("auto", "none", "required"):
            raise UsageError(f"unknown tool_choice {choice!r}", "use auto, none, required or {'name': ...}")
        if choice == "required" and not specs:
            raise UsageError("tool_choice is required, but there are no tools", "pass tools")
        if choice == "required":
            return specs
        if choice == "auto" and specs and self._router and messages and messages[-1].role == "user":
            route = self._router.route(messages[-1].content, specs, None)
            return [spec for spec in specs if spec.name == route.tool]
        return []

    def _grammars(self) -> GrammarCompiler:
        if self._compiler is None:
            self._compiler = GrammarCompiler(self._loaded.tokenizer, self._loaded.vocab_size)
        return self._compiler

    def _grammar(
        self,
        choice: list[ToolSpec],
        response_format: Mapping[str, Any] | None,
        choices: Sequence[str],
        turn: str,
        *,
        copy: bool,
    ) -> Grammar | None:
        if choice:
            return self._grammars().tool_call(choice, hermes.OPEN, hermes.CLOSE, turn, copy)
        if choices:
            return self._grammars().choice(choices)
        if response_format is None:
            return None
        if response_format.get("type") == "text":
            return None
        if response_format.get("type") == "json_object":
            response_format = {"type": "object"}
        wrapper = response_format.get("json_schema")
        schema = wrapper.get("schema", wrapper) if isinstance(wrapper, Mapping) else response_format
        return self._grammars().json_value(dict(schema))

    def _start(self, prompt: list[int], sampling: SamplingSettings, cancel: threading.Event | None) -> _Run:
        started = time.perf_counter()
        ledger, cached = self._scheduler.call(lambda: self._pool.acquire(prompt))
        sampler = Sampler(sampling, self._loaded.device)
        before = ledger.forward_passes, ledger.relieved
        return _Run(ledger, len(prompt), cached, started, *before, cancel, sampling, sampler)

    def _decode(self, run: _Run, grammar: Grammar | None) -> Iterator[tuple[int, ...]]:
        """Tokens as they are decoded; sets ``run.finish``."""
        room = self.context_length - len(run.ledger.ids)
        loop = decoding(
            run.ledger,
            run.sampler,
            stop_ids=self._loaded.eos_ids,
            max_new_tokens=min(run.sampling.max_new_tokens - run.completion_tokens, room),
            grammar=grammar,
            cancel=run.cancel,
            drafts=Drafts() if self._drafts else None,
        )
        with closing(self._scheduler.run(loop, run.cancel)) as steps:
            for step in steps:
                if not isinstance(step, Tokens):
                    run.finish = step
                    return
                run.first_token = run.first_token or time.perf_counter()
                run.completion_tokens += len(step.ids)
                yield step.ids

    def _text(self, run: _Run, grammar: Grammar | None) -> Iterator[ModelEvent]:
        text = TextStream(self.tokenizer, run.sampling.stop)
        start = len(run.ledger.ids)
        yield from self._pump(run, text, grammar)
        self._encoder.remember(text.text, self._spoken(run, start))
        yield from self._done(run, text.text)

    def _pump(self, run: _Run, text: TextStream, grammar: Grammar | None) -> Iterator[TextDelta | Notice]:
        written: list[int] = []
        for ids in self._decode(run, grammar):
            delta = text.push(ids)
            if delta:
                yield TextDelta(delta)
            written += ids
            if text.stopped:
                run.finish = "stop"
                return
            if grammar is None and is_looping(written):
                yield Notice("repetition", "the model went round in circles and was stopped")
                run.finish = "stop"
                break
        delta = text.finish()
        if delta:
            yield TextDelta(delta)

    def _text_or_call(self, run: _Run, specs: list[ToolSpec]) -> Iterator[ModelEvent]:
        """Free text in which the model may open a call; from the opening tag on the grammar rules."""
        tag = hermes.OPEN.strip()
        text = TextStream(self.tokenizer, (tag, *run.sampling.stop))
        start = len(run.ledger.ids)
        yield from self._pump(run, text, None)
        written = self.tokenizer.decode(run.ledger.ids[start:], skip_special_tokens=False)
        if text.stopped and tag in written[len(text.text) :]:
            # The tag's tokens may have run on into the call: begin it again under the grammar.
            run.ledger.align([*run.ledger.ids[:start], *self._encoder.plain(text.text)])
            grammar = self._grammars().tool_call(specs, hermes.OPEN, hermes.CLOSE)
            yield from self._call(run, grammar, specs, text.text)
            return
        self._encoder.remember(text.text, self._spoken(run, start))
        yield from self._done(run, text.text)

    def _call(
        self, run: _Run, grammar: Grammar | None, choice: list[ToolSpec], said: str = ""
    ) -> Iterator[ModelEvent]:
        start = len(run.ledger.ids)
        for _ in self._decode(run, grammar):
            pass
        if run.finish != "grammar":
            if run.finish == "length":
                cause = f"the call did not fit into {run.completion_tokens} tokens and was dropped"
                yield Notice("call_cut", f"{cause}; raise max_new_tokens")
            yield from self._done(run, said)
            return
        ids = run.ledger.ids[start:]
        written = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        call = _parse_call(written, choice)
        if not said:
            self._encoder.remember(hermes.call(call), ids)
        yield from self._relieved(run)
        yield ToolCallProposed(call)
        yield Completion(said, (call,), run.usage(), "tool_calls")

    def _spoken(self, run: _Run, start: int) -> list[int]:
        ids = run.ledger.ids[start:]
        return ids[:-1] if ids and ids[-1] in self._loaded.eos_ids else ids

    def _done(self, run: _Run, text: str) -> Iterator[ModelEvent]:
        yield from self._relieved(run)
        if run.finish == "length":
            yield Notice("truncated", f"the answer was cut after {run.completion_tokens} tokens")
        reason = "stop" if run.finish == "grammar" else run.finish
        yield Completion(text, (), run.usage(), reason)

    @staticmethod
    def _relieved(run: _Run) -> Iterator[Notice]:
        if run.ledger.relieved > run.relieved_before:
            cause = "memory ran out: the caches of other conversations were dropped and the step was repeated"
            yield Notice("memory", cause)


def _parse_call(written: str, choice: list[ToolSpec]) -> ToolCall:
    """Read a call the grammar let through and validate it once more, by an independent validator."""
    import jsonschema

    body = json.loads(written[len(hermes.OPEN) : -len(hermes.CLOSE)])
    spec = next(spec for spec in choice if spec.name == body["name"])
    try:
        jsonschema.Draft202012Validator(spec.schema).validate(body["arguments"])
    except jsonschema.ValidationError as error:
        cause = f"the call of {spec.name} passed the grammar but not its schema: {error.message}"
        raise ModelError(cause, "report this schema") from error
    return ToolCall(f"call_{uuid.uuid4().hex[:12]}", spec.name, body["arguments"])
