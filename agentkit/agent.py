"""One turn: retrieve, route, decode, run tools, check the answer. Everything it needs comes through Protocols.

The turn is one generator of events. Whatever a later step needs is in the session's store before that step begins,
so a crash loses at most the words being decoded.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Coroutine, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from agentkit.answers import Knowledge, checked, passages_prompt, plainly, quoted
from agentkit.compaction import compact, fitted
from agentkit.errors import AgentkitError, ModelError, NotFoundError, ProjectError, UsageError
from agentkit.events import (
    ApprovalRequired,
    Event,
    Notice,
    Retrieved,
    TextDelta,
    ToolFinished,
    ToolStarted,
    TurnDone,
    TurnFailed,
)
from agentkit.llm.formats import GENERIC
from agentkit.llm.grounding import IMAGE_LINE
from agentkit.llm.missing import ask_for, is_withdrawn, still_missing, words_for
from agentkit.llm.options import read_tool_choice
from agentkit.llm.protocol import Adaptable, ChatModel, Route, Router
from agentkit.llm.reading import reader_of
from agentkit.messages import (
    Completion,
    Message,
    Reply,
    ToolCall,
    ToolChoice,
    ToolResult,
    ToolSpec,
)
from agentkit.policy import Decision, Mode, Policy
from agentkit.prompts import render_text
from agentkit.retrieval.followup import alone, points_back, understood
from agentkit.store import Session
from agentkit.turn import Approve, Prompts, Tools, Turn, conversation, since_tools

RESERVED_TOKENS = 512
"""Room kept for the answer when a conversation is fitted into the context, at least."""
MOST_RESERVED = 4
"""One in so many of the context's tokens are kept for it at most."""


def check_adapter(model: ChatModel, adapter: str | None) -> None:
    """Tell of a wrong name now, not in the middle of a conversation.

    Raises:
        UsageError: The model takes no adapters, or there is no such adapter.
    """
    if adapter is None:
        return
    if not isinstance(model, Adaptable):
        raise UsageError(f"{model.name} takes no adapters", "leave `adapter` out")
    model.choose_adapter(adapter, quiet=True)


class AgentLoop:
    """An agent in one session.

    Args:
        model: Continues conversations.
        session: Where every message is kept.
        prompts: System prompt and templates.
        tools: What may be called.
        knowledge: What answers are grounded in; without it the agent only chats and calls tools.
        router: Decides what a turn needs; without one the model decides by itself.
        mode: What happens to calls with side effects.
        quote: Answer in the passages' own sentences and the tools' own replies, not in the model's words.
        parallel_tool_calls: The model may make several calls at once.
        max_steps: Model calls per turn at most.
        passage_limit: Passages per question.
        min_score: Cosine similarity under which a passage does not count.
        adapter: What this conversation runs with, where not the model's own choice: ``auto``, ``none``, a name, a path.

    Raises:
        UsageError: The model takes no adapters, or there is no such adapter.
    """

    def __init__(
        self,
        model: ChatModel,
        session: Session,
        prompts: Prompts,
        *,
        tools: Tools,
        knowledge: Knowledge | None = None,
        router: Router | None = None,
        mode: Mode = "ask",
        quote: bool = False,
        parallel_tool_calls: bool = False,
        max_steps: int = 4,
        passage_limit: int = 4,
        min_score: float | None = None,
        adapter: str | None = None,
        answer_tokens: int = RESERVED_TOKENS,
    ) -> None:
        check_adapter(model, adapter)
        self._adapter = adapter
        self.model, self.session, self.tools, self.knowledge = model, session, tools, knowledge
        self._prompts, self._router, self._mode, self._quote = prompts, router, mode, quote
        self._parallel = parallel_tool_calls
        self._max_steps, self._passage_limit, self._min_score = max_steps, passage_limit, min_score
        self._answer_tokens = answer_tokens
        self._policy = Policy()

    def ask(self, text: str, **options: Any) -> Reply:
        """`stream`, drained. Takes the same options.

        Raises:
            ModelError: The turn failed; what was said before is stored.
        """
        for event in self.stream(text, **options):
            if isinstance(event, TurnDone):
                return event.reply
            if isinstance(event, TurnFailed):
                raise ModelError(event.error)
        raise ModelError("the turn ended without a reply", "report this conversation")

    def stream(
        self,
        text: str,
        *,
        tool_choice: ToolChoice = "auto",
        image: str | None = None,
        approve: Approve | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[Event]:
        """Run one turn.

        Args:
            text: What the user says.
            tool_choice: ``auto``, ``none``, ``required`` or ``{"name": ...}``.
            image: Path of a picture that belongs to the message.
            approve: Decides about calls with side effects; without it they are denied.
            cancel: Set it from any thread to stop; what was said so far is kept.

        Yields:
            Events in order; `TurnDone` or `TurnFailed` is the last.

        Raises:
            UsageError: The message is empty or longer than the model's context, ``tool_choice`` means nothing, or
                another turn of the session is under way; nothing has been stored.
        """
        with self.session.turn():
            read_tool_choice(tool_choice, self.tools.specs())
            question = self._accept(text, image)
            turn = self._turn(question, cancel, approve)
            for event in self._guarded(turn, tool_choice):
                if isinstance(event, TurnDone | TurnFailed):
                    break
                if isinstance(event, Notice):
                    turn.notices.append(event.text)
                yield event
        yield event  # everything is stored: whoever hears of the end may begin the next turn

    def route(self, text: str) -> Route | None:
        """What `stream` would decide that a turn needs, if it came now; nothing is stored and nothing decoded.

        Returns:
            The route; None where the model itself decides.

        Raises:
            UsageError: The router cannot tell the tools from its own options.
            KnowledgeError: The knowledge base cannot be searched.
        """
        turn = self._turn(text)
        for _ in (*self._adapt(turn, quiet=True), *self._search(turn)):
            pass
        self._route(turn, "auto")
        return turn.route

    def _turn(
        self, question: str, cancel: threading.Event | None = None, approve: Approve | None = None
    ) -> Turn:
        """A turn that begins now."""
        said = [message for message in self.session.messages() if message.meta.get("kind") != "context"]
        return Turn(question, cancel, approve, question, alone(question), said)

    def _guarded(self, turn: Turn, tool_choice: ToolChoice) -> Iterator[Event]:
        try:
            yield from self._run(turn, tool_choice)
            meta = _plain({"citations": turn.citations, "usage": turn.usage, "notices": turn.notices})
            if turn.lacks is not None:
                tool, missing = turn.lacks
                meta["asked_for"] = {"tool": tool.name, "words": turn.words, "missing": list(missing)}
            if turn.unfinished:
                meta["unfinished"] = turn.unfinished
            self.session.append(Message("assistant", turn.text, meta=meta))
        except AgentkitError as error:
            yield TurnFailed(str(error))
            return
        yield TurnDone(
            Reply(
                turn.text,
                tuple(turn.calls),
                tuple(turn.results),
                turn.citations,
                tuple(turn.notices),
                turn.usage,
                self.session.id,
            )
        )

    def _run(self, turn: Turn, tool_choice: ToolChoice) -> Iterator[Event]:
        """The turn on one screen: search, route, then decode and act until there is an answer."""
        self.session.append(Message("user", turn.question))
        yield from self._adapt(turn)
        yield from self._search(turn)
        choice = self._route(turn, tool_choice)
        if turn.route is not None and turn.route.kind == "decline":
            yield from self._decline(turn)
            return
        if turn.lacks is not None:
            yield from self._ask_for(turn, *turn.lacks)
            return
        self._give_context(turn)
        for step in range(1, self._max_steps + 1):
            if step == self._max_steps and choice != "none" and self.tools.specs():
                yield Notice("max_steps", f"no tool is called in the last of {step} steps: it must answer")
                choice = "none"
            completion = yield from self._query(turn, choice)
            if not completion.tool_calls:
                self._refuse_cut_call(turn, completion)
                break
            yield from self._act(turn, completion)
            choice = self._after_tools(turn, choice)
        if completion.finish_reason in ("length", "cancelled"):
            turn.unfinished = completion.finish_reason
        yield from self._check(turn, completion)

    @staticmethod
    def _refuse_cut_call(turn: Turn, completion: Completion) -> None:
        """A call that did not fit leaves nothing to say."""
        cut = completion.finish_reason == "length" and not completion.text.strip()
        if cut and turn.route is not None and turn.route.tool:
            cause = f"the call of {turn.route.tool} did not fit into the tokens that an answer may have"
            raise ModelError(cause, "shorten the message, or raise [sampling] max_new_tokens")

    def _accept(self, text: str, image: str | None) -> str:
        """The user's message, or an error before anything is stored."""
        if not text.strip() and not image:
            raise UsageError("the question is empty", "ask something")
        question = f"{text.strip()}\n{IMAGE_LINE}{image}" if image else text
        opening = [Message("system", self._prompts.system), Message("user", question)]
        room = self.model.room(opening, self.tools.specs() if self._router is None else [])
        if room is not None and room < RESERVED_TOKENS:
            cause = f"the message is {RESERVED_TOKENS - room} tokens too long for the model's context"
            raise UsageError(cause, "shorten it, or put it into the knowledge base: agentkit knowledge add")
        self.session.heal()
        if not self.session.messages():
            self.session.append(opening[0])
        return question

    def _adapt(self, turn: Turn, *, quiet: bool = False) -> Iterator[Event]:
        """Fix the turn's adapter: another takes its place between turns, not between a call and its result."""
        if isinstance(self.model, Adaptable):
            turn.own["adapter"], changes = self.model.choose_adapter(self._adapter, quiet=quiet)
            yield from changes

    def _search(self, turn: Turn) -> Iterator[Event]:
        said = since_tools(turn.said)
        if turn.said and turn.said[-1].meta.get("asked_for") and is_withdrawn(turn.question):
            said = []  # nothing of the request goes on
        if self.knowledge is None:
            turn.asked = understood(turn.question, said)
            return
        turn.asked = understood(turn.question, said, self.knowledge.corrected)
        if self._is_small_talk(turn):
            said, turn.asked = [], alone(turn.asked.text)
        found = self.knowledge.search(turn.asked.text, self._passage_limit, history=said)
        turn.passages = tuple(p for p in found if self._min_score is None or p.score >= self._min_score)
        yield Retrieved(turn.asked.standalone, turn.passages)

    def _is_small_talk(self, turn: Turn) -> bool:
        """Whether a scrap of a few words is no question at all, so that nothing must be put before it."""
        if self._router is None or turn.asked.standalone == turn.asked.text or points_back(turn.question):
            return False
        return self._router.route(turn.question, self.tools.specs(), None).kind == "chat"

    def _route(self, turn: Turn, tool_choice: ToolChoice) -> ToolChoice:
        """Decide what the turn needs; the caller's own ``tool_choice`` goes first."""
        if self._router is None or tool_choice in ("none", "required") or not isinstance(tool_choice, str):
            return tool_choice
        answerable = self._answerable(turn, self.knowledge) if self.knowledge else None
        turn.route = route = self._router.route(turn.asked.standalone, self.tools.specs(), answerable)
        if route.kind == "knowledge" and answerable is not None and self._is_refuted(answerable):
            turn.route = replace(route, kind="decline")
        self._complete(turn, turn.route)
        return {"name": turn.route.tool} if turn.route.tool else "none"

    def _is_refuted(self, answerable: float) -> bool:
        """Whether a judge says that the passages do not answer, who knows it better than the router can."""
        knowledge = self.knowledge
        if knowledge is None or not getattr(knowledge, "judged", False):
            return False
        return answerable < knowledge.answer_threshold

    def _complete(self, turn: Turn, route: Route) -> None:
        """Gather what the routed tool's arguments can be taken from; the answer to a question goes on from there."""
        stored = turn.said
        asked = stored[-1].meta.get("asked_for") if stored else None
        known = {spec.name for spec in self.tools.specs()}
        if asked and (asked["tool"] not in known or is_withdrawn(turn.question)):
            asked = None
        if asked and route.kind in ("chat", "decline"):
            turn.route = route = replace(route, kind="tool", tool=asked["tool"])
        if asked and route.tool == asked["tool"]:
            turn.words = f"{asked['words']}\n{turn.question}"
        if route.tool:
            spec = self.tools.get(route.tool).spec
            turn.words, missing = words_for(spec, turn.words, stored)
            if asked and route.tool == asked["tool"]:
                missing = still_missing(spec, missing, asked.get("missing", missing), turn.question)
            turn.lacks = (spec, missing) if missing else None

    def _ask_for(self, turn: Turn, tool: ToolSpec, missing: Sequence[str]) -> Iterator[Event]:
        """Ask for the arguments that nothing in the conversation supports."""
        for event in ask_for(tool, missing):
            if isinstance(event, Completion):
                turn.text, turn.passages = event.text, ()
            else:
                yield event

    def _decline(self, turn: Turn) -> Iterator[Event]:
        turn.text, turn.passages = self._prompts.decline, ()
        yield TextDelta(turn.text)
        yield Notice(
            "declined", "no evidence in the knowledge base and no tool for this: a person was offered"
        )

    def _give_context(self, turn: Turn) -> None:
        """Append to the conversation what the turn needs: the passages, or the routed tool's description."""
        if turn.route is not None and turn.route.tool:
            turn.passages = ()
            self._describe_tool(turn, turn.route, self.tools.get(turn.route.tool).spec)
        elif not (turn.route.kind == "knowledge" if turn.route else self._has_evidence(turn)):
            turn.passages = ()
        elif not self._quote:  # a quoted answer needs no reading by the model
            self._append_context(
                passages_prompt(self._prompts.passages, turn.passages, turn.asked, turn.question)
            )

    def _describe_tool(self, turn: Turn, route: Route, spec: ToolSpec) -> None:
        """The tool's schema and nearest examples, in the turn that needs them: a prefix with every tool confuses a
        small model and would cost every session."""
        examples = [
            {"text": example.text, "call": self._call_text(ToolCall("", spec.name, example.arguments))}
            for example in route.examples
        ]
        self._append_context(
            self._prompts.tool_call.render(
                name=spec.name,
                description=spec.description,
                parameters=json.dumps(spec.schema, ensure_ascii=False),
                examples=examples,
                question=turn.words,
            )
        )

    def _call_text(self, call: ToolCall) -> str:
        """The call as the model writes it; a remote model's own format is not known."""
        if hasattr(self.model, "call_text"):
            return str(self.model.call_text(call))
        return "".join(GENERIC.calls((call,)))

    def _has_evidence(self, turn: Turn) -> bool:
        if self.knowledge is None or not turn.passages:
            return False
        return self._answerable(turn, self.knowledge) >= self.knowledge.answer_threshold

    def _answerable(self, turn: Turn, knowledge: Knowledge) -> float:
        """How likely the passages answer the question; the model reads them for it if it has learned to."""
        reader = reader_of(self.model, turn.own.get("adapter"))
        return knowledge.answerable(turn.asked.standalone, turn.passages, reader=reader)

    def _query(self, turn: Turn, choice: ToolChoice) -> Generator[Event, None, Completion]:
        """One model call; returns its `Completion`."""
        specs = self.tools.specs()
        describe = turn.route is None
        messages = yield from self._fit(turn, specs if describe else [])
        forced = choice == "required" or not isinstance(choice, str)
        choices = () if forced else (yield from self._choices(turn))
        for event in self.model.stream(
            messages,
            tools=specs,
            tool_choice=choice,
            parallel_tool_calls=self._parallel,
            describe_tools=describe,
            turn=turn.words,
            choices=choices,
            stop=self._stop(choices),
            cancel=turn.cancel,
            **turn.own,
        ):
            if isinstance(event, Notice) and event.code == "missing_argument":
                turn.passages = ()  # the model's answer is a question for the user
            if isinstance(event, Completion):
                turn.usage += event.usage
                if event.finish_reason == "cancelled":
                    yield Notice("cancelled", "stopped by the user; what was said so far is kept")
                return event
            yield event
        raise ModelError("the model ended without a completion", "report this conversation")

    def _stop(self, choices: Sequence[str]) -> tuple[str, ...] | None:
        """What ends an answer: nothing may cut a quote, and small talk is a paragraph; else the settings say."""
        if not self._quote:
            return None
        return () if choices else ("\n\n",)

    def _choices(self, turn: Turn) -> Generator[Event, None, tuple[str, ...]]:
        """The only things the model may say, where it may not use words of its own."""
        if not self._quote:
            return ()
        if turn.results:
            worded = []
            for call, result in zip(turn.calls[-turn.fresh :], turn.results[-turn.fresh :], strict=True):
                worded.append((yield from self._worded(call, result)))
            return (" ".join(worded),)
        if turn.passages and self.knowledge is not None:
            return (quoted(turn.asked, turn.passages, self.knowledge.embedder),)
        return tuple(dict.fromkeys(turn.route.small_talk)) if turn.route else ()

    def _worded(self, call: ToolCall, result: ToolResult) -> Generator[Event, None, str]:
        """A tool's result in the words of its own reply template, or plainly; of a cut one only its text is left."""
        if not result.ok:
            return f"That did not work: {result.error}."
        template = self.tools.get(call.name).reply
        if template is None or result.truncated:
            return plainly(result.value)
        try:
            return render_text(template, result=result.value, arguments=call.arguments)
        except ProjectError as error:  # the tool has run: its result must not be lost over its words
            yield Notice(
                "reply_template", f"the reply of {call.name} cannot be put into words: {error.cause}"
            )
            return plainly(result.value)

    def _fit(self, turn: Turn, specs: list[ToolSpec]) -> Generator[Event, None, list[Message]]:
        """The conversation as the model reads it, compacted if it has become too long."""
        stored = conversation(self.session.messages())
        if stored[0].role == "system":  # as it was when the session began, on another day perhaps
            stored[0] = replace(stored[0], content=self._prompts.system)
        whole = self.model.room(stored[:1])
        reserved = max(RESERVED_TOKENS, min(self._answer_tokens, (whole or 0) // MOST_RESERVED))
        fitted = compact(stored, lambda messages: self.model.room(messages, specs), reserved)
        if (fitted.results or fitted.turns) and not turn.compacted:
            turn.compacted = True
            cause = f"the conversation has outgrown the model's context: {fitted} left out"
            yield Notice("compacted", f"{cause} of what it reads; the session keeps everything")
        return fitted.messages

    def _act(self, turn: Turn, completion: Completion) -> Iterator[Event]:
        """Store the calls as the model made them, in one message; then run one after the other."""
        stored = copy.deepcopy(completion.tool_calls)
        self.session.append(Message("assistant", completion.text, stored))
        turn.fresh = len(stored)
        for call, shown in zip(stored, completion.tool_calls, strict=True):
            yield from self._run_call(turn, call, shown)

    def _run_call(self, turn: Turn, call: ToolCall, shown: ToolCall) -> Iterator[Event]:
        """Decide, run, store the result; what becomes of the copy that is ``shown`` changes nothing of that."""
        turn.calls.append(shown)
        denied = yield from self._denied(turn, shown)
        if denied is None:
            yield ToolStarted(shown)
            result = self._fitting(self.tools.run(call, turn.cancel), turn)
        else:
            result = ToolResult(call.id, call.name, ok=False, error=f"not run: {denied.reason}")
            yield Notice("denied", f"{call.name} was not run: {denied.reason}")
        turn.results.append(result)
        self.session.append(Message("tool", result.content(), (), call.id, call.name, {"ok": result.ok}))
        if result.truncated:
            yield Notice("truncated", f"the result of {call.name} was cut: it is longer than may be read")
        yield ToolFinished(result)

    def _fitting(self, result: ToolResult, turn: Turn) -> ToolResult:
        """The result as the context has room for it."""
        specs = self.tools.specs() if turn.route is None else []
        opening = [Message("system", self._prompts.system), Message("user", turn.question)]
        return fitted(
            result, opening, lambda messages: self.model.room(messages, specs), RESERVED_TOKENS, turn.fresh
        )

    def _denied(self, turn: Turn, call: ToolCall) -> Generator[Event, None, Decision | None]:
        """Returns the decision that forbids the call, or None."""
        if turn.cancel is not None and turn.cancel.is_set():
            return Decision("deny", "the turn was cancelled before")
        repeated = turn.breaker.decide(call)
        if repeated.action == "deny":
            return repeated
        try:
            side_effect = bool(self.tools.get(call.name).side_effect)
        except NotFoundError as error:  # a remote model may call what was never offered
            return Decision("deny", str(error))
        decision = self._policy.decide(call.name, side_effect, self._mode)
        if decision.action != "ask":
            return decision if decision.action == "deny" else None
        request = ApprovalRequired(call, decision.reason)
        yield request
        if turn.approve is None:
            return Decision("deny", f"{decision.reason}, and nobody was there to approve it")
        answer: object = turn.approve(request)
        if answer is True:
            return None
        if answer is False:
            return Decision("deny", "the user did not approve it")
        if isinstance(answer, Coroutine):
            answer.close()  # nobody will await it
        return Decision("deny", f"`approve` returned neither True nor False, but {type(answer).__name__}")

    def _after_tools(self, turn: Turn, choice: ToolChoice) -> ToolChoice:
        """After a routed or forced call the model puts the result into words; else it goes on deciding."""
        if turn.route is None and choice == "auto":
            return "auto"
        if self._quote:
            return "none"
        last = turn.results[-turn.fresh :]
        content = self._prompts.tool_result.render(
            question=turn.question,
            tool=", ".join(result.name for result in last),
            result="\n".join(result.content() for result in last),
            ok=all(result.ok for result in last),
        )
        self._append_context(content)
        return "none"

    def _append_context(self, content: str) -> None:
        self.session.append(Message("user", content, meta={"kind": "context"}))

    def _check(self, turn: Turn, completion: Completion) -> Iterator[Event]:
        """Tie the answer to its passages; with nothing that supports it, decline."""
        turn.text = completion.text.strip()
        if not turn.passages or self.knowledge is None or completion.finish_reason == "cancelled":
            return
        if turn.results and turn.route is None:
            return  # the answer rests on a tool's result at least as much as on the passages
        grounded = checked(turn.text, turn.asked, turn.passages, self.knowledge.embedder)
        yield from grounded.notices
        if not grounded.citations:
            yield from self._decline(turn)
            return
        turn.text, turn.citations = grounded.text, grounded.citations


def _plain(meta: dict[str, Any]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "citations": [asdict(citation) for citation in meta["citations"]],
        "usage": asdict(meta["usage"]),
        "notices": list(meta["notices"]),
    }
