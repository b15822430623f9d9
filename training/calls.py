"""Dialogues in which tools are called, several or none, asked back about, and put into words.

A `Scene` is a set of tools with many requests: the training reads the tools once for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import yaml
from domains import Function, Json, Together, load, load_together
from listing import several
from schemas import Manner, arguments_of, manner, name_of, tool_of

PHRASES: dict[str, list[str]] = yaml.safe_load((Path(__file__).parent / "phrases.yaml").read_text("utf-8"))

KINDS = {"one": 27, "many": 17, "both": 24, "none": 18, "ask_back": 5, "reply": 4, "go_on": 5}
"""Shares of the kinds of dialogue, in percent; `Scenes` has a method for each."""
REQUESTS = 8
"""Dialogues per set of tools."""


@dataclass(frozen=True, slots=True)
class Example:
    """One line of training data."""

    messages: list[Json]
    tools: list[Json]
    kind: str

    def to_json(self) -> Json:
        """In the OpenAI form that `agentkit finetune` reads."""
        return {"messages": self.messages, "tools": self.tools} if self.tools else {"messages": self.messages}


def examples(seed: int, scenes: int, functions: Sequence[Function] | None = None) -> Iterator[Example]:
    """`REQUESTS` dialogues for each of so many sets of tools."""
    functions = functions or load()
    together = load_together(functions)
    for number in range(scenes):
        yield from Scene(functions, Random(f"{seed}/{number}"), together).examples()


class Scene:
    """A set of tools, written in one manner, and requests for them."""

    def __init__(
        self, functions: Sequence[Function], random: Random, together: Sequence[Together] = ()
    ) -> None:
        self.all, self.random = functions, random
        self.manner: Manner = manner(random)
        first = random.choice(functions)
        of_domain = [message for message in together if message.domain == first.domain]
        wanted = [first]
        if of_domain and random.random() < 0.55:
            wanted = [function for function, _ in random.choice(of_domain).calls]
        self.functions = list({f.name: f for f in [*wanted, *self._others(wanted[0])]}.values())
        self.names = {function.name for function in self.functions}
        self.together = [message for message in of_domain if message.names <= self.names]
        random.shuffle(self.functions)
        self.tools = [tool_of(function, self.manner) for function in self.functions]
        self.system = self._system()

    def examples(self) -> Iterator[Example]:
        """The dialogues."""
        kinds = self.random.choices(list(KINDS), list(KINDS.values()), k=REQUESTS)
        for kind in kinds:
            messages = getattr(self, f"_{kind}")()
            if messages is not None:
                yield Example([*self.system, *messages], self.tools, kind)

    def _others(self, first: Function) -> list[Function]:
        count = self.random.choices((0, 1, 2, 3, 4), (20, 30, 26, 16, 8))[0]
        near = [f for f in self.all if f.domain == first.domain and f.name != first.name]
        found = {first.name: first}
        for _ in range(count):
            other = self.random.choice(near if self.random.random() < 0.6 else self.all)
            found.setdefault(other.name, other)
        return [function for function in found.values() if function is not first]

    def _system(self) -> list[Json]:
        if self.random.random() < 0.6:
            return []
        return [{"role": "system", "content": self.random.choice(PHRASES["system"])}]

    # One method for each of KINDS: messages, or None where the functions have nothing of the kind.

    def _one(self) -> list[Json] | None:
        function, said, calls = self._request()
        return [_user(said), self._called([(function, calls[0])])]

    def _many(self) -> list[Json] | None:
        function = self.random.choice(self.functions)
        said, calls = self._several(function)
        return [_user(self._dressed(said)), self._called([(function, call) for call in calls])]

    def _several(self, function: Function) -> tuple[str, list[Json]]:
        """One function wanted more than once in a message: as its author put it, as a list, or anew."""
        random = self.random
        draw = random.random()
        if function.many and draw < 0.3:
            return function.fill(random.choice(function.many), random)
        ask = random.choice(function.ask)
        listed = several(function, ask, random)
        if listed is not None and draw < 0.85:
            return function.fill(listed, random)
        parts = [function.fill(random.choice(function.ask), random) for _ in range(random.choice((2, 2, 3)))]
        return self._strung([said for said, _ in parts]), [calls[0] for _, calls in parts]

    def _both(self) -> list[Json] | None:
        """Several functions wanted in one message: as its author put it, or one request after the other."""
        if self.together and self.random.random() < 0.7:
            said, calls = self.random.choice(self.together).fill(self.random)
            return [_user(self._dressed(said)), self._called(calls)]
        if len(self.functions) < 2:
            return None
        return self._strung_together()

    def _strung_together(self) -> list[Json]:
        """Independent requests, some of them for several calls."""
        chosen = self.random.sample(
            self.functions, 3 if len(self.functions) > 2 and self.random.random() < 0.35 else 2
        )
        said: list[str] = []
        calls: list[tuple[Function, Json]] = []
        for function in chosen:
            if self.random.random() < 0.25:
                words, given = self._several(function)
            else:
                words, given = function.fill(self.random.choice(function.ask), self.random)
            said.append(words)
            calls += [(function, each) for each in given]
        return [_user(self._strung(said)), self._called(calls)]

    def _none(self) -> list[Json] | None:
        """A request that none of the tools can serve: near one of them, for another function, or small talk."""
        draw = self.random.random()
        near = [(function, ask) for function in self.functions for ask in function.near]
        if near and draw < 0.35:
            function, ask = self.random.choice(near)
            said = function.fill(ask, self.random)[0]
        elif draw < 0.92:
            domains = {function.domain for function in self.functions}
            absent = [function for function in self.all if function.name not in self.names]
            same = [function for function in absent if function.domain in domains]
            other = [function for function in absent if function.domain not in domains]
            function = self.random.choice(same if same and draw < 0.72 else other)
            said = function.fill(self.random.choice(function.ask), self.random)[0]
        else:
            said = self.random.choice(PHRASES["small_talk"])
            return [_user(said), _assistant(self.random.choice(PHRASES["small_talk_answers"]))]
        return [_user(self._dressed(said)), _assistant(self.random.choice(PHRASES["no_tool"]))]

    def _ask_back(self) -> list[Json] | None:
        """Something is missing, and is asked for."""
        able = [function for function in self.functions if function.partial and function.missing]
        if not able:
            return None
        function = self.random.choice(able)
        ask = self.random.choice(function.partial)
        said = function.fill(ask, self.random)[0]
        there = {slot.partition("~")[0] for slot in ask.slots} | set(ask.given)
        absent = [name for name in function.missing if name not in there]
        if not absent:
            return None
        question = self.random.choice(function.missing[absent[0]])
        return [_user(self._dressed(said)), _assistant(question)]

    def _reply(self) -> list[Json] | None:
        """A call and its result, put into words."""
        able = [function for function in self.functions if function.replies]
        if not able:
            return None
        function = self.random.choice(able)
        said, calls = function.fill(self.random.choice(function.ask), self.random)
        reply = self.random.choice(function.replies)
        return [_user(self._dressed(said)), *self._answered(function, calls[0], reply)]

    def _go_on(self) -> list[Json] | None:
        """A second request after a first one that was answered."""
        before = self._reply()
        if before is None:
            return None
        function, said, calls = self._request()
        return [*before, _user(said), self._called([(function, calls[0])])]

    def _answered(self, function: Function, call: Json, reply: Json) -> list[Json]:
        called = self._called([(function, call)])
        id = called["tool_calls"][0]["id"]
        result = json.dumps(reply["result"], ensure_ascii=False)
        return [called, {"role": "tool", "tool_call_id": id, "content": result}, _assistant(reply["say"])]

    def _request(self) -> tuple[Function, str, list[Json]]:
        function = self.random.choice(self.functions)
        said, calls = function.fill(self.random.choice(function.ask), self.random)
        return function, self._dressed(said), calls

    def _called(self, calls: Sequence[tuple[Function, Json]]) -> Json:
        made = []
        for number, (function, given) in enumerate(calls, 1):
            arguments = json.dumps(arguments_of(given, function.params, self.manner), ensure_ascii=False)
            body = {"name": name_of(function, self.manner), "arguments": arguments}
            made.append({"id": f"call_{number}", "type": "function", "function": body})
        return {"role": "assistant", "content": "", "tool_calls": made}

    def _dressed(self, said: str) -> str:
        """Greetings, reasons and thanks, as people add them or not."""
        random = self.random
        draw = random.random()
        if draw < 0.12:
            return f"{random.choice(PHRASES['before'])} {said}"
        if draw < 0.2:
            return f"{said} {random.choice(PHRASES['after'])}"
        if draw < 0.25:
            return said.rstrip(".?!")
        return said

    def _strung(self, said: Sequence[str]) -> str:
        first, *rest = said
        style = self.random.choice(PHRASES["joints"])
        if style[-2] in " ," and not style.startswith("\n"):
            rest = [words[0].lower() + words[1:] if words[1:2].islower() else words for words in rest]
        if style.startswith(","):
            first = first.rstrip(".?!")
            rest = [*(words.rstrip(".?!") for words in rest[:-1]), rest[-1]]
        return first + "".join(style.replace("…", words) for words in rest)


def _user(said: str) -> Json:
    return {"role": "user", "content": said[:1].upper() + said[1:] if len(said) % 3 else said}


def _assistant(said: str) -> Json:
    return {"role": "assistant", "content": said}
