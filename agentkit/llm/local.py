"""A language model in this process, behind `ChatModel`."""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from agentkit.engine.decode import (
    Decoding,
    FinishReason,
    MaskProvider,
    Sampler,
    Step,
    Tokens,
    decoding,
    is_looping,
)
from agentkit.engine.drafts import Drafts
from agentkit.engine.families import ROWS
from agentkit.engine.ledger import Ledger, LedgerPool
from agentkit.engine.scheduler import Scheduler
from agentkit.engine.weights import LoadedModel
from agentkit.errors import AgentkitError, ModelError, UsageError
from agentkit.events import Notice, TextDelta, ToolCallProposed
from agentkit.llm.adapters import AdapterChoice, Adapters
from agentkit.llm.calls import read_message
from agentkit.llm.detokenize import TextStream
from agentkit.llm.encoding import ChatEncoder
from agentkit.llm.formats import AUTO
from agentkit.llm.formats.base import Markup
from agentkit.llm.grammar import CallOptions, GrammarCompiler
from agentkit.llm.missing import ask_for, going_on, words_for
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
from agentkit.messages import Completion, Message, ToolCall, ToolChoice, ToolSpec, Usage
from agentkit.settings import SamplingSettings

if TYPE_CHECKING:
    import torch


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
            by beginning one.
        tool_format: Name of the tool-call format; ``auto`` chooses by chat template and vocabulary.
        drafts: Try what followed the same words earlier in the conversation, several tokens in one forward pass.
        adapters: The adapters that can run beside the weights; by default the one of ``loaded``, and paths.

    Raises:
        UsageError: There is no such format.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        sampling: SamplingSettings | None = None,
        router: Router | None = None,
        tool_format: str = AUTO,
        drafts: bool = True,
        adapters: Adapters | None = None,
    ) -> None:
        self._loaded = loaded
        self._adapters = adapters or Adapters(loaded)
        self._sampling = sampling or SamplingSettings()
        self._router = router
        self._drafts = drafts
        self._encoder = ChatEncoder(loaded.tokenizer, loaded.eos_ids, tool_format)
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
        """The transformers model, without the adapters that run beside the weights."""
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
        """Parameters, quantization, bytes, adapter, context, tool format, whether the template rewrites history …"""
        own = {
            "adapter": self._adapters.name or "none",
            "tool_format": self._encoder.format.name,
            "rewrites_history": self._encoder.rewrites_history,
        }
        return {**self._loaded.info(), **own}

    @property
    def reads(self) -> bool:
        """Whether its judgement of passages may be asked for; see `llm.reading`."""
        return self._adapters.reads

    def use_adapter(self, spec: str) -> None:
        """Let conversations run with another adapter from their next turn on; those under way keep theirs.

        Args:
            spec: ``auto``, ``none``, a name or a path, as in `load_model`. What ``auto`` and names mean is looked up
                in every turn, so that `agentkit finetune use` reaches a model that runs.

        Raises:
            NotFoundError: There is no such adapter.
            ModelError: It is damaged, or does not fit the model.
            UsageError: It was trained for another model, or cannot be put beside these weights.
        """
        self._adapters.use(spec)

    def choose_adapter(self, spec: str | None = None) -> tuple[AdapterChoice, tuple[Notice, ...]]:
        """What a turn that begins now runs with, to be passed to every `stream` in it; see `Adapters.choose`."""
        return self._adapters.choose(spec)

    def call_text(self, call: ToolCall) -> str:
        """The call in the words in which this model writes it."""
        return "".join(self._encoder.format.calls((call,)))

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
        self._grammars().check_tool(spec)

    def chat(self, messages: Sequence[AnyMessage], **options: Any) -> Completion:
        """`stream`, drained: the final `Completion`. Takes the same options."""
        return drained(self.stream(messages, **options))

    def first_logits(self, messages: Sequence[AnyMessage], answers: Sequence[str]) -> list[float]:
        """The logits with which the answer to a conversation would begin with each of ``answers``.

        One forward pass over what the cache does not hold yet; nothing is decoded. Differences of logits are
        log-odds.

        Raises:
            UsageError: An answer is empty, or two of them begin with the same token.
            ModelError: The conversation is longer than the context, or the forward pass failed.
        """
        first = [self._encoder.plain(answer)[:1] for answer in answers]
        if () in first or len(set(first)) < len(first):
            raise UsageError("answers to be scored must begin with different tokens", "choose other words")
        prompt = self._encoder.encode(read_messages(messages)).ids
        chosen, _ = self.choose_adapter()
        run = self._start(prompt, chosen, self._sampling, None)
        rows: list[torch.Tensor] = []

        def score() -> Decoding:
            step = yield Step(run.ledger, ())
            rows.extend(() if step is None else step)
            yield "stop"

        with self._held(run.ledger):
            for _ in self._scheduler.run(score()):
                pass
        return [float(rows[-1][token]) for (token,) in first]

    def log_probs(self, messages: Sequence[AnyMessage], answer: str) -> list[float]:
        """How likely each token of an answer is in its place, as a natural logarithm; the end of the turn is the last.

        Nothing is decoded and no sampling setting plays a part; the tokens are those that fine-tuning would learn.

        Raises:
            UsageError: The answer is empty, or the conversation ends with the assistant's words already.
            ModelError: Conversation and answer are longer than the context, or a forward pass failed.
        """
        conversation = read_messages(messages)
        if not answer or conversation[-1].role == "assistant":
            raise UsageError("there is no answer to be scored", "end with a user message, and give a text")
        prompt, left = self._encoder.encode_answer(conversation, answer)
        return self.log_probabilities([*prompt, *left])[len(prompt) - 1 :]

    def log_probabilities(self, ids: Sequence[int], *, adapter: str | None = None) -> list[float]:
        """How likely a text is to the model as it is served: of every id but the first, the natural logarithm of its
        probability after those before it.

        Args:
            ids: At least two.
            adapter: What runs beside the weights, as in `stream`.

        Raises:
            ModelError: The text is longer than the context.
        """
        import torch

        if len(ids) > self.context_length:
            cause = f"the text has {len(ids)} tokens, the model's context is {self.context_length}"
            raise ModelError(cause, "leave it out")
        chosen, _ = self.choose_adapter(adapter)
        cache = self._loaded.new_cache(chosen.adapter)
        found: list[float] = []
        for begin in range(0, len(ids) - 1, ROWS):  # the logits of a long text at once would take gigabytes
            part = list(ids[begin : begin + ROWS])[: len(ids) - 1 - begin]
            logits = self._scheduler.call(partial(self._loaded.forward, part, cache, every=True))
            wanted = torch.tensor(ids[begin + 1 : begin + 1 + len(part)], device=logits.device)
            found += logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0].tolist()
        return found

    def stream(
        self,
        messages: Sequence[AnyMessage],
        *,
        tools: Sequence[AnyTool] = (),
        tool_choice: ToolChoice = "auto",
        parallel_tool_calls: bool = False,
        response_format: Mapping[str, Any] | None = None,
        cancel: threading.Event | None = None,
        describe_tools: bool = True,
        turn: str | None = None,
        choices: Sequence[str] = (),
        adapter: str | AdapterChoice | None = None,
        **sampling: Any,
    ) -> Iterator[ModelEvent]:
        """Continue a conversation.

        Args:
            messages: The conversation, system message first; OpenAI form or `Message`.
            tools: OpenAI schemas, `Tool`s, `ToolSpec`s or plain typed functions.
            tool_choice: ``auto``, ``none``, ``required`` or ``{"name": ...}``.
            parallel_tool_calls: One answer may make several calls; the model decides how many.
            response_format: A JSON schema that the answer's text must satisfy, bare or in OpenAI's forms.
            cancel: Set it from any thread to stop; what was decoded is kept.
            describe_tools: Put the tools' schemas into the system message; false where the conversation
                describes them already.
            choices: The answer's text must be one of these; the model's scores decide.
            turn: The words that arguments are taken from; by default the last user message.
            adapter: What runs beside the weights, where not the model's own choice: ``auto``, ``none``, a name, a path,
                or what `choose_adapter` gave. Nothing that one adapter has computed is used under another.
            **sampling: Fields of `SamplingSettings` for this call.

        Yields:
            `TextDelta`s, `ToolCallProposed`s; `Notice`s; the `Completion` last.

        Raises:
            SchemaError: A schema cannot be made a grammar.
            UsageError: An option is unknown or wrong, or there is no such adapter.
            ModelError: Decoding failed, or the adapter is damaged.
        """
        conversation, specs = read_messages(messages), read_tools(tools)
        chosen, changes = (
            (adapter, ()) if isinstance(adapter, AdapterChoice) else self.choose_adapter(adapter)
        )
        yield from changes
        choice = read_tool_choice(routed(conversation, specs, tool_choice, self._router), specs)
        last = max((n for n, m in enumerate(conversation) if m.role == "user"), default=0)
        words = going_on(conversation) if turn is None else turn
        if len(choice) == 1:
            words, missing = words_for(choice[0], words, conversation[:last])
            if missing and tool_choice == "auto":
                yield from ask_for(choice[0], missing)
                return
        schema = read_response_format(response_format)
        settings = read_sampling(self._sampling, sampling)
        prompt = self._encoder.encode(conversation, specs if describe_tools else ()).ids
        calls = CallOptions(
            words,
            strength=chosen.strength,
            parallel=parallel_tool_calls,
            thought=settings.max_new_tokens // 2,
            number=len(prompt),
        )
        grammar = self._grammar(choice, calls, schema, choices)
        if len(prompt) >= self.context_length:
            cause = f"the conversation has {len(prompt)} tokens, the model's context is {self.context_length}"
            raise ModelError(cause, "shorten the message or start a new session")
        yield from self._template_notice()
        run = self._start(prompt, chosen, settings, cancel)
        with self._held(run.ledger):
            if choice:
                yield from self._call(run, grammar, choice, len(run.ledger.ids))
            elif grammar is not None:
                yield from self._text(run, grammar)
            elif specs and tool_choice == "auto" and self._router is None:
                yield from self._text_or_call(run, specs, replace(calls, thought=0), conversation)
            else:
                yield from self._text(run, None)

    @contextmanager
    def _held(self, ledger: Ledger) -> Iterator[None]:
        """Give the ledger back in the end, or drop it where its state cannot be trusted.

        Raises:
            ModelError: Whatever the decoding died of ends this turn, and no other.
        """
        try:
            yield
        except GeneratorExit:  # the caller has heard enough; at a yield the ledger is always consistent
            self._pool.release(ledger)
            raise
        except AgentkitError:
            self._pool.discard(ledger)
            raise
        except Exception as error:
            self._pool.discard(ledger)
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            cause = f"the model failed while decoding: {reason}"
            raise ModelError(cause, "try again, or a smaller model") from error
        except BaseException:
            self._pool.discard(ledger)
            raise
        self._pool.release(ledger)

    def _template_notice(self) -> Iterator[Notice]:
        """Once per model: why its turns take longer than they need to."""
        if not self._told and self._encoder.rewrites_history:
            self._told = True
            cause = "the model's chat template changes earlier messages when new ones come"
            yield Notice("template", f"{cause}: that part of a conversation is computed again in every turn")

    def _grammars(self) -> GrammarCompiler:
        if self._compiler is None:
            loaded = self._loaded
            self._compiler = GrammarCompiler(self._encoder, loaded.vocab_size, loaded.eos_ids)
        return self._compiler

    def _grammar(
        self,
        choice: list[ToolSpec],
        calls: CallOptions,
        schema: dict[str, Any] | None,
        choices: Sequence[str],
    ) -> MaskProvider | None:
        if choice:
            return self._grammars().tool_call(choice, calls)
        if choices:
            return self._grammars().choice(choices)
        return None if schema is None else self._grammars().json_value(schema)

    def _start(
        self,
        prompt: list[int],
        chosen: AdapterChoice,
        sampling: SamplingSettings,
        cancel: threading.Event | None,
    ) -> _Run:
        started = time.perf_counter()
        ledger, cached = self._scheduler.call(lambda: self._pool.acquire(prompt, chosen.adapter))
        sampler = Sampler(sampling, self._loaded.device)
        before = ledger.forward_passes, ledger.relieved
        return _Run(ledger, len(prompt), cached, started, *before, cancel, sampling, sampler)

    def _decode(self, run: _Run, grammar: MaskProvider | None) -> Iterator[tuple[int, ...]]:
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

    def _text(self, run: _Run, grammar: MaskProvider | None) -> Iterator[ModelEvent]:
        text = TextStream(self.tokenizer, run.sampling.stop)
        start = len(run.ledger.ids)
        yield from self._pump(run, text, grammar)
        yield from self._said(run, text.text, start)

    def _said(self, run: _Run, text: str, start: int) -> Iterator[ModelEvent]:
        self._encoder.remember((text,), self._spoken(run, start))
        yield from self._done(run, text)

    def _pump(
        self, run: _Run, text: TextStream, grammar: MaskProvider | None, triggers: Container[int] = ()
    ) -> Iterator[TextDelta | Notice]:
        written: list[int] = []
        for ids in self._decode(run, grammar):
            at = next((n for n, id in enumerate(ids) if id in triggers), None)
            delta = text.push(ids[:at])
            if at is not None and not text.stopped:
                delta += text.trigger()
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

    def _text_or_call(
        self, run: _Run, specs: list[ToolSpec], options: CallOptions, conversation: Sequence[Message]
    ) -> Iterator[ModelEvent]:
        """Free text in which the model may begin a call; from there on the grammar rules."""
        form = self._encoder.format
        begins = [(trigger, self._encoder.segments((Markup(trigger),))) for trigger in form.triggers]
        tokens = {segments[0] for _, segments in begins if isinstance(segments[0], int)}
        text = TextStream(
            self.tokenizer,
            run.sampling.stop,
            triggers=[trigger for trigger, segments in begins if isinstance(segments[0], str)],
            openings=form.openings,
            before_trigger=form.before_call,
        )
        start = len(run.ledger.ids)
        yield from self._pump(run, text, None, tokens)
        if not text.triggered:
            yield from self._said(run, text.text, start)
            return
        # The trigger's tokens may have run on into the call: begin it again under the grammar.
        said = self._as_written(run.ledger.ids[start:], text.text, form.before_call if text.text else "")
        run.ledger.align([*run.ledger.ids[:start], *said])
        grammar = self._grammars().tool_call(specs, options)
        yield from self._call(run, grammar, specs, start, text.text, conversation)

    def _as_written(self, ids: list[int], said: str, end: str) -> list[int]:
        """Ids for ``said`` and ``end``: the model's own, as far as they say just that."""
        for whole, rest in ((said + end, ""), (said, end)):
            for count in range(len(ids), -1, -1):
                text = self._encoder.decode(ids[:count])
                if text == whole:
                    return [*ids[:count], *self._encoder.plain(rest)]
                if len(text) < len(whole):
                    break
        return list(self._encoder.plain(said + end))

    def _call(
        self,
        run: _Run,
        grammar: MaskProvider | None,
        choice: list[ToolSpec],
        start: int,
        said: str = "",
        rests_on: Sequence[Message] = (),
    ) -> Iterator[ModelEvent]:
        """Calls under the grammar, after what was ``said`` since ``start``.

        Where they must rest on something, a call with arguments that nothing there supports becomes a question.
        """
        begin = len(run.ledger.ids)
        for _ in self._decode(run, grammar):
            pass
        if run.finish == "cancelled":
            yield from self._done(run, said)
            return
        form, thinks = self._encoder.format, not said and self._encoder.thinking is not None
        written = self._encoder.decode(self._spoken(run, begin))
        found = read_message(written, choice, form, thinks=thinks)
        cut = run.finish == "length"
        if cut:
            kept = f"; the {len(found.calls)} before it stand" if found.calls else ""
            cause = f"the call did not fit into {run.completion_tokens} tokens and was dropped{kept}"
            yield Notice("call_cut", f"{cause}; raise max_new_tokens")
        if not found.calls:
            yield from self._done(run, said)
            return
        for call in found.calls if rests_on else ():
            spec = next(spec for spec in choice if spec.name == call.name)
            _, missing = words_for(spec, "", rests_on)
            if missing:
                yield from ask_for(spec, missing, said, run.usage())
                return
        for call in found.repeated:
            yield Notice("repeated_call", f"{call.name} was called twice with the same arguments in one turn")
        if found.said:
            yield TextDelta(found.said)
        said = said or found.said
        if not cut:
            parts = self._encoder.said_and_called(said, found.calls)
            self._encoder.remember(parts, self._spoken(run, start))
        yield from self._relieved(run)
        yield from map(ToolCallProposed, found.calls)
        yield Completion(said, found.calls, run.usage(), "length" if cut else "tool_calls")

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
