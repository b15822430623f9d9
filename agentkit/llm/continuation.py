"""A conversation being continued: tokens are decoded and become text, calls, notices and a completion."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

from agentkit.engine.decode import FinishReason, MaskProvider, Sampler, Tokens, decoding, is_looping
from agentkit.engine.drafts import Drafts
from agentkit.engine.ledger import Ledger
from agentkit.engine.scheduler import Scheduler
from agentkit.engine.weights import LoadedModel
from agentkit.events import Notice, TextDelta, ToolCallProposed
from agentkit.llm.calls import read_message
from agentkit.llm.detokenize import TextStream
from agentkit.llm.encoding import ChatEncoder
from agentkit.llm.formats.base import Markup
from agentkit.llm.grammar import CallOptions, Grammar, GrammarCompiler
from agentkit.llm.guide import Guided
from agentkit.llm.missing import ask_for, words_in
from agentkit.llm.protocol import ModelEvent
from agentkit.messages import Completion, Message, ToolSpec, Usage
from agentkit.settings import SamplingSettings


@dataclass(frozen=True, slots=True)
class Served:
    """What all continuations of a model share."""

    loaded: LoadedModel
    encoder: ChatEncoder
    scheduler: Scheduler
    grammars: Callable[[], GrammarCompiler]
    drafts: bool


@dataclass(slots=True)
class Continuation:
    """One continuation under way.

    `text`, `text_without_calls`, `call` and `text_or_call` decode it, each yielding what `LocalModel.stream` does.
    """

    model: Served
    ledger: Ledger
    prompt_tokens: int
    cached_tokens: int
    started: float
    passes_before: int
    relieved_before: int
    cancel: threading.Event | None
    sampling: SamplingSettings
    sampler: Sampler
    spare: int = 0
    """Tokens that calls may have beyond `sampling`'s: what they copy from the turn."""
    completion_tokens: int = 0
    first_token: float = 0.0
    finish: FinishReason | Literal["repetition"] = "stop"

    def text(self, grammar: Grammar | Guided | None, spare: int = 0) -> Iterator[ModelEvent]:
        """Text, free or of a grammar's form, and no calls; ``spare`` tokens beyond the budget where it is given."""
        text = TextStream(self.model.loaded.tokenizer, self.sampling.stop)
        start = len(self.ledger.ids)
        yield from self._pump(text, grammar, spare=spare)
        if grammar is not None and grammar.cut:
            self.finish = "length"
        yield from self._said(text.text, start)

    def text_or_call(
        self,
        specs: list[ToolSpec],
        options: CallOptions,
        conversation: Sequence[Message],
        form: Grammar | Guided | None = None,
    ) -> Iterator[ModelEvent]:
        """Free text in which the model may begin a call; from there on the grammar rules.

        Args:
            specs: Tools that it may call.
            options: Of the grammar; its turn, too, is what the arguments of calls may rest on.
            conversation: What else they may rest on.
            form: Of an answer that calls nothing: where the model's first words are no call, it is written in it.
        """
        start = len(self.ledger.ids)
        if form is not None:
            if not self._begins_a_call(specs):
                self._rewrite(start, "", "")
                yield from self.text(form)
                return
            text = TextStream(self.model.loaded.tokenizer, ())
        else:
            text = yield from self._up_to_a_call(specs)
            if not text.triggered:
                yield from self._said(text.text, start)
                return
        self._rewrite(start, text.text, self.model.encoder.format.before_call if text.text else "")
        grammar = self.model.grammars().tool_call(specs, options)
        yield from self.call(grammar, specs, start, text.text, options.turn, conversation)

    def _begins_a_call(self, specs: Sequence[ToolSpec]) -> bool:
        """Whether the model's first words are a call; nothing is told of them."""
        words = self._up_to_a_call(specs)
        with closing(words):
            while True:
                try:
                    event = next(words)
                except StopIteration as ended:
                    return bool(ended.value.triggered)
                if isinstance(event, TextDelta) and event.text.strip():
                    return False

    def text_without_calls(self, specs: Sequence[ToolSpec]) -> Iterator[ModelEvent]:
        """Free text of a model that has read of tools; it ends where a call begins all the same."""
        start = len(self.ledger.ids)
        text = yield from self._up_to_a_call(specs)
        if text.triggered:
            self._rewrite(start, text.text, "")
            yield Notice(
                "call_left_out", "the model began a call where none may be made: its answer ends there"
            )
        yield from self._said(text.text, start)

    def _up_to_a_call(self, specs: Sequence[ToolSpec]) -> Generator[TextDelta | Notice, None, TextStream]:
        """Free text; the stream it came through says whether a call has begun."""
        form = self.model.encoder.format
        begins = [(trigger, self.model.encoder.segments((Markup(trigger),))) for trigger in form.triggers]
        tokens = {segments[0] for _, segments in begins if isinstance(segments[0], int)}
        text = TextStream(
            self.model.loaded.tokenizer,
            self.sampling.stop,
            triggers=[trigger for trigger, segments in begins if isinstance(segments[0], str)],
            openings=[opening.replace("%s", spec.name) for opening in form.openings for spec in specs],
            before_trigger=form.before_call,
        )
        yield from self._pump(text, None, tokens)
        return text

    def _rewrite(self, start: int, said: str, end: str) -> None:
        """Leave only what was said since ``start``: the tokens that begin a call may have run on into it."""
        ids = self._as_written(self.ledger.ids[start:], said, end)
        self.ledger.align([*self.ledger.ids[:start], *ids])
        self.completion_tokens = len(ids)

    def call(
        self,
        grammar: Grammar | Guided | None,
        choice: list[ToolSpec],
        start: int,
        said: str = "",
        turn: str = "",
        rests_on: Sequence[Message] = (),
    ) -> Iterator[ModelEvent]:
        """Calls under the grammar, after what was ``said`` since ``start``.

        Where they must rest on something, a call with arguments that neither it nor the ``turn`` supports becomes a
        question.
        """
        begin = len(self.ledger.ids)
        for _ in self._decode(grammar, self.spare):
            pass
        if self.finish == "cancelled":
            yield from self._done(said)
            return
        written = self.model.encoder.decode(self._spoken(begin))
        thinks = not rests_on and not said and self.model.encoder.has_thought(written)
        found = read_message(written, choice, self.model.encoder.format, thinks=thinks)
        shortened = grammar.cut if grammar is not None else None
        if shortened == "value":  # it is valid, and not what the model would have said
            found = replace(found, calls=found.calls[:-1])
        cut = self.finish == "length" or shortened is not None
        if cut:
            kept = f"; the {len(found.calls)} before it stand" if found.calls else ""
            cause = f"the call did not fit into {self.completion_tokens} tokens and was dropped{kept}"
            if shortened == "end":
                cause = f"no further call fits into {self.completion_tokens} tokens"
            yield Notice("call_cut", f"{cause}; raise max_new_tokens")
            self.finish = "length"
        if not found.calls:
            yield from self._done(said)
            return
        for call in found.calls if rests_on else ():
            spec = next(spec for spec in choice if spec.name == call.name)
            _, missing = words_in(spec, rests_on, turn)
            missing = [name for name in missing if not _is_told(call.arguments.get(name), rests_on)]
            if missing:
                yield from ask_for(spec, missing, said, self.usage())
                return
        for call in found.repeated:
            yield Notice("repeated_call", f"{call.name} was called twice with the same arguments in one turn")
        if found.said:
            yield TextDelta(found.said)
        said = said or found.said
        if not cut:
            parts = self.model.encoder.said_and_called(said, found.calls)
            self.model.encoder.remember(parts, self._spoken(start))
        yield from self._relieved()
        yield from map(ToolCallProposed, found.calls)
        yield Completion(said, found.calls, self.usage(), "length" if cut else "tool_calls")

    def usage(self) -> Usage:
        """Tokens, passes and times up to now."""
        now = time.perf_counter()
        return Usage(
            self.prompt_tokens,
            self.cached_tokens,
            self.completion_tokens,
            self.ledger.forward_passes - self.passes_before,
            (self.first_token or now) - self.started,
            now - self.started,
        )

    def _as_written(self, ids: list[int], said: str, end: str) -> list[int]:
        """Ids for ``said`` and ``end``: the model's own, as far as they say just that."""
        for whole, rest in ((said + end, ""), (said, end)):
            for count in range(len(ids), -1, -1):
                text = self.model.encoder.decode(ids[:count])
                if text == whole:
                    return [*ids[:count], *self.model.encoder.plain(rest)]
                if len(text) < len(whole):
                    break
        return list(self.model.encoder.plain(said + end))

    def _pump(
        self,
        text: TextStream,
        grammar: MaskProvider | None,
        triggers: Container[int] = (),
        spare: int = 0,
    ) -> Iterator[TextDelta | Notice]:
        written: list[int] = []
        for ids in self._decode(grammar, spare):
            at = next((n for n, id in enumerate(ids) if id in triggers), None)
            delta = text.push(ids[:at])
            if at is not None and not text.stopped:
                delta += text.trigger()
            if delta:
                yield TextDelta(delta)
            written += ids
            if text.stopped:
                self.finish = "stop"
                return
            if grammar is None and is_looping(written):
                yield Notice("repetition", "the model went round in circles and was stopped")
                self.finish = "repetition"
                break
        delta = text.finish()
        if delta:
            yield TextDelta(delta)

    def _decode(self, grammar: MaskProvider | None, spare: int = 0) -> Iterator[tuple[int, ...]]:
        """Tokens as they are decoded; sets `finish`."""
        room = self.model.loaded.context_length - len(self.ledger.ids)
        loop = decoding(
            self.ledger,
            self.sampler,
            stop_ids=self.model.loaded.eos_ids,
            max_new_tokens=min(self.sampling.max_new_tokens + spare - self.completion_tokens, room),
            grammar=grammar,
            cancel=self.cancel,
            drafts=Drafts() if self.model.drafts else None,
        )
        with closing(self.model.scheduler.run(loop, self.cancel)) as steps:
            for step in steps:
                if not isinstance(step, Tokens):
                    self.finish = step
                    return
                if self.ledger.forward_passes > self.passes_before:  # what is forced needs none
                    self.first_token = self.first_token or time.perf_counter()
                self.completion_tokens += len(step.ids)
                yield step.ids

    def _said(self, text: str, start: int) -> Iterator[ModelEvent]:
        self.model.encoder.remember((text,), self._spoken(start))
        yield from self._done(text)

    def _spoken(self, start: int) -> list[int]:
        ids = self.ledger.ids[start:]
        return ids[:-1] if ids and ids[-1] in self.model.loaded.eos_ids else ids

    def _done(self, text: str) -> Iterator[ModelEvent]:
        yield from self._relieved()
        if self.finish == "length":
            yield Notice("truncated", f"the answer was cut after {self.completion_tokens} tokens")
        reason: FinishReason = "length" if self.finish == "repetition" else self.finish
        reason = "stop" if reason == "grammar" else reason
        yield Completion(text, (), self.usage(), reason)

    def _relieved(self) -> Iterator[Notice]:
        if self.ledger.relieved > self.relieved_before:
            cause = "memory ran out: the caches of other conversations were dropped and the step was repeated"
            yield Notice("memory", cause)


def _is_told(value: Any, conversation: Sequence[Message]) -> bool:
    """Whether somebody has said a value as it stands, be it the system prompt or the assistant itself."""
    if not isinstance(value, str | int | float) or not str(value).strip():
        return False
    words = re.compile(rf"(?<!\w){re.escape(str(value).strip())}(?!\w)", re.IGNORECASE)
    return any(words.search(message.content) for message in conversation)
