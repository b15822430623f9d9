"""A language model in this process, behind `ChatModel`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from agentkit.engine.cache import out_of_memory
from agentkit.engine.decode import Decoding, Sampler, Step
from agentkit.engine.families import ROWS
from agentkit.engine.ledger import Ledger, LedgerPool
from agentkit.engine.scheduler import Scheduler
from agentkit.engine.weights import LoadedModel
from agentkit.errors import AgentkitError, ModelError, UsageError
from agentkit.events import Notice
from agentkit.llm.adapters import AdapterChoice, Adapters
from agentkit.llm.continuation import Continuation, Served
from agentkit.llm.encoding import ChatEncoder
from agentkit.llm.formats import AUTO
from agentkit.llm.grammar import CallOptions, Grammar, GrammarCompiler
from agentkit.llm.guide import NO_EVIDENCE, Guided
from agentkit.llm.missing import ask_for, going_on, words_in
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
from agentkit.messages import Completion, Message, ToolCall, ToolChoice, ToolSpec
from agentkit.settings import SamplingSettings

if TYPE_CHECKING:
    import torch

    from agentkit.engine.peft_files import PreparedLora


@dataclass(frozen=True, slots=True)
class _Request:
    """What `LocalModel.stream` is asked for, read and routed."""

    conversation: list[Message]
    tools: list[ToolSpec]
    choice: list[ToolSpec]
    """Those of which one must be called; empty where none must."""
    words: str
    """Arguments are taken from them."""
    schema: dict[str, Any] | None
    """Of the answer's text."""
    choices: Sequence[str]
    """The answer's text must be one of these."""
    may_call: bool
    """The model decides, by beginning a call."""
    described: bool
    """The prompt describes the tools."""
    parallel: bool


class LocalModel:
    """Continues conversations with a loaded model.

    Args:
        loaded: Weights and tokenizer.
        sampling: Defaults for every call.
        router: Decides under ``tool_choice="auto"`` whether a turn needs a tool, unless an adapter that has learned
            to decide has tools without examples before it. Otherwise the model decides, by beginning a call.
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
        self._encoder = ChatEncoder(loaded.tokenizer, loaded.eos_ids, tool_format)
        self._pool = LedgerPool(loaded)
        self._scheduler = Scheduler(loaded)
        self._compiler: GrammarCompiler | None = None
        self._served = Served(loaded, self._encoder, self._scheduler, self._grammars, drafts)
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
        """The transformers model, without the adapters that run beside the weights.

        Its weights are those that serving reads: what moves or converts it (``to``, ``half``) parts the two.
        """
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

    def choose_adapter(
        self, spec: str | None = None, *, quiet: bool = False
    ) -> tuple[AdapterChoice, tuple[Notice, ...]]:
        """What a turn that begins now runs with, to be passed to every `stream` in it; see `Adapters.choose`."""
        return self._adapters.choose(spec, quiet=quiet)

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

    def first_logits(
        self,
        messages: Sequence[AnyMessage],
        answers: Sequence[str],
        *,
        adapter: str | AdapterChoice | None = None,
    ) -> list[float]:
        """The logits with which the answer to a conversation would begin with each of ``answers``.

        One forward pass over what the cache does not hold yet; nothing is decoded. Differences of logits are
        log-odds.

        Args:
            messages: The conversation.
            answers: Of each only the first token counts.
            adapter: What runs beside the weights, as in `stream`.

        Raises:
            UsageError: An answer is empty, or two of them begin with the same token.
            ModelError: The conversation is longer than the context, or the forward pass failed.
        """
        first = [self._encoder.plain(answer)[:1] for answer in answers]
        if () in first or len(set(first)) < len(first):
            raise UsageError("answers to be scored must begin with different tokens", "choose other words")
        prompt = self._encoder.encode(read_messages(messages)).ids
        ledger = self._start(prompt, self._chosen(adapter, quiet=True)[0], self._sampling, None).ledger
        rows: list[torch.Tensor] = []

        def score() -> Decoding:
            step = yield Step(ledger, ())
            rows.extend(() if step is None else step)
            yield "stop"

        with self._held(ledger):
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

    def log_probabilities(
        self, ids: Sequence[int], *, adapter: str | AdapterChoice | None = None
    ) -> list[float]:
        """How likely a text is to the model as it is served: of every id but the first, the natural logarithm of its
        probability after those before it.

        Args:
            ids: At least two.
            adapter: What runs beside the weights, as in `stream`.

        Raises:
            ModelError: The text is longer than the context, or a forward pass failed.
        """
        if len(ids) > self.context_length:
            cause = f"the text has {len(ids)} tokens, the model's context is {self.context_length}"
            raise ModelError(cause, "leave it out")
        beside = self._chosen(adapter, quiet=True)[0].adapter
        with _as_model_error("reading"):
            try:
                return self._scored(ids, beside)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
            # Only here is the failed attempt's cache given up: until then the error holds it.
            self._pool.free()
            return self._scored(ids, beside)

    def _chosen(
        self, adapter: str | AdapterChoice | None, *, quiet: bool = False
    ) -> tuple[AdapterChoice, tuple[Notice, ...]]:
        """What a call runs with, and what has changed; a question to which nobody sees that looks ``quiet``."""
        if isinstance(adapter, AdapterChoice):
            return adapter, ()
        return self.choose_adapter(adapter, quiet=quiet)

    def _scored(self, ids: Sequence[int], adapter: PreparedLora | None) -> list[float]:
        """`log_probabilities`, in a cache of its own."""
        import torch

        cache = self._loaded.new_cache(adapter)
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
            response_format: A JSON schema that the answer's text must satisfy, bare or in OpenAI's forms. Beside tools
                the model's first words tell whether it calls one or answers.
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
        chosen, changes = self._chosen(adapter)
        yield from changes
        router = None if chosen.decides and not any(spec.examples for spec in specs) else self._router
        choice = read_tool_choice(routed(conversation, specs, tool_choice, router), specs)
        words, missing = _words(choice, conversation, turn)
        if missing and tool_choice == "auto":
            yield from ask_for(choice[0], missing)
            return
        schema = read_response_format(response_format)
        # Nobody routes what goes on from a result.
        decides = tool_choice == "auto" and (router is None or conversation[-1].role != "user")
        request = _Request(
            conversation,
            specs,
            choice,
            words,
            schema,
            choices,
            may_call=decides and bool(specs) and not choices,
            described=describe_tools,
            parallel=parallel_tool_calls,
        )
        yield from self._answer(request, chosen, sampling, cancel)

    def _answer(
        self,
        request: _Request,
        chosen: AdapterChoice,
        sampling: Mapping[str, Any],
        cancel: threading.Event | None,
    ) -> Iterator[ModelEvent]:
        """Decode what is asked for; ``sampling`` are the call's own options."""
        settings = read_sampling(self._sampling, sampling)
        prompt = self._encoder.encode(request.conversation, request.tools if request.described else ()).ids
        goes_on = request.conversation[-1].role == "tool"  # from a result, and takes its values from there
        calls = CallOptions(
            request.words,
            strength=NO_EVIDENCE if goes_on else chosen.strength,
            copies=not goes_on,
            parallel=request.parallel,
            thought=settings.max_new_tokens // 2,
            number=len(prompt),
        )
        grammar = self._grammar(request, calls)
        if len(prompt) >= self.context_length:
            cause = f"the conversation has {len(prompt)} tokens, the model's context is {self.context_length}"
            raise ModelError(cause, "shorten the message or start a new session")
        yield from self._template_notice()
        continuation = self._start(prompt, chosen, settings, cancel)
        # What is copied is no answer that could grow without end; a caller's own limit is a limit.
        given = "max_new_tokens" in sampling
        continuation.spare = 0 if given else self._tokens((request.words,))
        with self._held(continuation.ledger):
            if request.choice:
                yield from continuation.call(grammar, request.choice, len(continuation.ledger.ids))
            elif request.may_call:
                yield from continuation.text_or_call(
                    request.tools, replace(calls, thought=0), request.conversation, grammar
                )
            elif grammar is not None:
                yield from continuation.text(grammar, 0 if given else self._tokens(request.choices))
            elif request.tools:
                yield from continuation.text_without_calls(request.tools)
            else:
                yield from continuation.text(None)

    def _tokens(self, texts: Sequence[str]) -> int:
        """Of the longest text."""
        return max((len(self._encoder.plain(text)) for text in texts), default=0)

    @contextmanager
    def _held(self, ledger: Ledger) -> Iterator[None]:
        """Give the ledger back in the end, or drop it where its state cannot be trusted.

        Raises:
            ModelError: Whatever the decoding died of ends this turn, and no other.
        """
        with _as_model_error("decoding"):
            try:
                yield
            except GeneratorExit:  # the caller has heard enough; at a yield the ledger is always consistent
                self._pool.release(ledger)
                raise
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

    def _grammar(self, request: _Request, calls: CallOptions) -> Grammar | Guided | None:
        """What the answer keeps to from its first token, if to anything.

        Raises:
            SchemaError: A schema cannot be made a grammar, be it of a tool that the model only may call.
        """
        if request.choice:
            return self._grammars().tool_call(request.choice, calls)
        if request.choices:
            return self._grammars().choice(request.choices)
        for spec in request.tools if request.may_call else ():
            self.check_tool(spec)  # now, not when the model happens to begin a call
        return None if request.schema is None else self._grammars().json_value(request.schema)

    def _start(
        self,
        prompt: list[int],
        chosen: AdapterChoice,
        sampling: SamplingSettings,
        cancel: threading.Event | None,
    ) -> Continuation:
        started = time.perf_counter()
        sampler = Sampler(sampling, self._loaded.device)  # before anything is held: settings may be refused
        ledger, cached = self._scheduler.call(lambda: self._pool.acquire(prompt, chosen.adapter))
        before = ledger.forward_passes, ledger.relieved
        return Continuation(
            self._served, ledger, len(prompt), cached, started, *before, cancel, sampling, sampler
        )


def _words(
    choice: Sequence[ToolSpec], conversation: Sequence[Message], turn: str | None
) -> tuple[str, list[str]]:
    """The words that arguments are taken from, and what the one tool that has to be called lacks in them."""
    if len(choice) == 1:
        return words_in(choice[0], conversation, turn)
    return (going_on(conversation) if turn is None else turn), []


@contextmanager
def _as_model_error(doing: str) -> Iterator[None]:
    """Whatever a model dies of, as an error of agentkit's own.

    Raises:
        ModelError: In place of any error that is none; says what the model was ``doing``.
    """
    try:
        yield
    except AgentkitError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"the model failed while {doing}: {reason}", "try again, or a smaller model"
        ) from error
