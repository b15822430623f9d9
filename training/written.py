"""Dialogues written one by one: sets of tools, what people ask of an assistant that has them, and the calls to make.

``data/calls/*.jsonl`` has a set per line: ``tools`` (name, description, parameters), ``messages`` (text, calls), and
``beside``, requests that sound as if a tool could serve them and that none can. Beside templates (`calls`) they bring
what templates lack: requests told in passing, shared values, lists within lists, background that does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from calls import PHRASES
from jsonl import read_jsonl

Json = dict[str, Any]
Grouped = tuple[frozenset[str], Json]

FILES = Path(__file__).parent / "data" / "calls"
SYSTEM = 0.3
"""Share of sets that a system message precedes."""
STRANGERS = {0: 0.55, 1: 0.3, 2: 0.15}
"""Tools of other sets among those of a set, by share."""
MOST = 5
"""Tools of a set with strangers, at most."""


@cache
def written_sets() -> tuple[Json, ...]:
    """All of them, in the order of the files."""
    return tuple(found for file in sorted(FILES.glob("*.jsonl")) for found in read_jsonl(file))


def grouped_written(seed: int) -> Iterator[Grouped]:
    """Every dialogue once, with the group of its set; the order of tools and messages, and what stands beside them,
    follow from the seed.
    """
    random = Random(f"written {seed}")
    sets = list(written_sets())
    random.shuffle(sets)
    for each in sets:
        group = frozenset((each["tools"][0]["name"] + each["domain"],))
        for example in _examples(each, random):
            yield group, example


def _examples(each: Json, random: Random) -> list[Json]:
    tools = [*each["tools"]]
    wanted = random.choices(list(STRANGERS), list(STRANGERS.values()))[0]
    while len(tools) < min(MOST, len(each["tools"]) + wanted):
        other = random.choice(random.choice(written_sets())["tools"])
        if all(other["name"].lower() != tool["name"].lower() for tool in tools):
            tools.append(other)
    random.shuffle(tools)
    system = []
    if random.random() < SYSTEM:
        system = [{"role": "system", "content": random.choice(PHRASES["system"])}]
    made = [[_user(message["text"]), _called(message["calls"], each)] for message in each["messages"]]
    made += [[_user(text), _assistant(random.choice(PHRASES["no_tool"]))] for text in each["beside"]]
    random.shuffle(made)
    offered = [{"type": "function", "function": tool} for tool in tools]
    return [{"messages": [*system, *messages], "tools": offered} for messages in made]


def _user(text: str) -> Json:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Json:
    return {"role": "assistant", "content": text}


def _called(calls: list[Json], each: Json) -> Json:
    """The calls, with arguments in the order of the schema, as the grammar wants them."""
    schemas = {tool["name"]: tool["parameters"] for tool in each["tools"]}
    made = []
    for number, call in enumerate(calls, 1):
        names = [name for name in schemas[call["name"]]["properties"] if name in call["arguments"]]
        arguments = json.dumps({name: call["arguments"][name] for name in names}, ensure_ascii=False)
        body = {"name": call["name"], "arguments": arguments}
        made.append({"id": f"call_{number}", "type": "function", "function": body})
    return {"role": "assistant", "content": "", "tool_calls": made}
