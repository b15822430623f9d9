"""Routing: what does a user turn need? Knowledge, a tool, small talk, or a polite no.

A small model asked to choose between "answer" and five tools does little better than chance, and its scores carry no
signal worth mixing in (measured: docs/decisions/routing.md). The embedder's similarity does: a turn is compared with
every tool's example turns and description, with phrases of small talk and with questions out of scope, and the
knowledge base says how likely its passages answer it. A linear softmax over these features decides; its weights are
shared by all tools, so a new tool needs examples, not training. `benchmarks/tune_routing.py` fits them.
"""

from __future__ import annotations

import json
import math
import mimetypes
import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path, PurePath
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from agentkit.errors import UsageError
from agentkit.llm.grounding import PATH, QUOTED, copied_parameters, mentions, paths
from agentkit.llm.protocol import Route
from agentkit.messages import ToolSpec
from agentkit.retrieval.kept import kept_vectors
from agentkit.retrieval.protocol import Embedder
from agentkit.retrieval.words import words

Features = dict[str, float]
Item = TypeVar("Item")
Kind = Literal["knowledge", "tool", "chat", "decline"]

_PAYLOAD = re.compile(r"[:\"“”«»‘]|(?<!\w)'|\n")
"""What sets off a text to work on from the request itself: a colon, quotation marks, a new line."""
_SHORT = 8
"""Characters of a request, at least."""
EXAMPLES = 2
"""Examples of a tool that its prompt shows."""
_MOST_TEXTS = 1_000
"""Lists of texts whose vectors stay in memory."""
_OPTIONS = ("knowledge", "chat", "decline")
"""The options beside the tools."""
_ROUTED_CHARACTERS = 2_000
"""The beginning of a turn says what is wanted; the rest is material."""


def check_names(tools: Sequence[ToolSpec]) -> None:
    """Refuse tools that the router could not tell from its own options.

    Raises:
        UsageError: Names one.
    """
    for tool in tools:
        if tool.name in _OPTIONS:
            cause = f"a tool cannot be called {tool.name!r}: the router has an option of that name"
            raise UsageError(cause, "rename it")


class EmbeddingRouter:
    """A `Router` over an embedder.

    Args:
        embedder: Texts to unit vectors.
        small_talk: Phrases that need neither knowledge nor tools, each with a reply.
        out_of_scope: Questions that should be declined.
        kept_in: Folder for the vectors of phrases and examples; without one they are made in every run.
    """

    def __init__(
        self,
        embedder: Embedder,
        small_talk: Sequence[tuple[str, str]] = (),
        out_of_scope: Sequence[str] = (),
        kept_in: Path | None = None,
    ) -> None:
        self._embedder, self._kept_in = embedder, kept_in
        self._replies = tuple(reply for _, reply in small_talk)
        self._phrases = {"chat": tuple(phrase for phrase, _ in small_talk), "decline": tuple(out_of_scope)}
        self._vectors: dict[tuple[str, ...], NDArray[np.float32]] = {}

    def route(self, text: str, tools: Sequence[ToolSpec], answerable: float | None) -> Route:
        """Choose between knowledge, one of the tools, small talk and declining."""
        weights = load_weights()
        features = self.features(text, tools, answerable)
        scores = {
            option: _score(weights[_kind(option, tools)], values) for option, values in features.items()
        }
        probabilities = _softmax(scores)
        best = max(probabilities, key=lambda option: probabilities[option])
        kind = _kind(best, tools)
        if kind == "chat":
            replies = self._nearest(text, self._phrases["chat"], self._replies)
            return Route(kind, None, probabilities, small_talk=tuple(reply for reply in replies if reply))
        tool = next((tool for tool in tools if tool.name == best), None)
        if tool is None:
            return Route(kind, None, probabilities)
        texts = tuple(example.text for example in tool.examples)
        return Route(kind, best, probabilities, self._nearest(text, texts, tool.examples))

    def features(self, text: str, tools: Sequence[ToolSpec], answerable: float | None) -> dict[str, Features]:
        """The signals of every option: tools by name, and ``knowledge``, ``chat``, ``decline``."""
        check_names(tools)
        text = text[:_ROUTED_CHARACTERS]
        vector = self._embedder.embed([text])[0]
        known = 0.0 if answerable is None else answerable
        found: dict[str, Features] = {tool.name: self._tool_features(text, vector, tool) for tool in tools}
        found["chat"] = self._phrase_features("chat", text, vector)
        found["decline"] = {**self._phrase_features("decline", text, vector), "unanswerable": 1 - known}
        if answerable is not None:
            found["knowledge"] = {"answerable": known, "question": _looks_like_question(text)}
        return found

    def _nearest(self, text: str, texts: tuple[str, ...], items: tuple[Item, ...]) -> tuple[Item, ...]:
        """Up to `EXAMPLES` of ``items``, those whose texts are most similar, the nearest last."""
        if not texts:
            return ()
        cosines = self._texts(texts) @ self._embedder.embed([text[:_ROUTED_CHARACTERS]])[0]
        return tuple(items[int(n)] for n in np.argsort(cosines)[-EXAMPLES:])

    def _tool_features(self, text: str, vector: NDArray[np.float32], tool: ToolSpec) -> Features:
        texts = tuple(example.text for example in tool.examples)
        best, second = self._similarity((tool.description, *texts), vector)
        asking, asked = _request(text), tuple(map(_request, texts))
        bare = vector if asking == text else self._embedder.embed([asking])[0]
        own = _words(asking)
        return {
            "best": best,
            "second": second,
            "request": self._similarity((tool.description, *asked), bare)[0],
            "words": max((_dice(own, _words(each)) for each in asked), default=0.0),
            "path": _path_evidence(text, tool),
            "payload": _payload_evidence(text, tool),
            "mention": _mention_evidence(text, tool),
            "named": float(re.search(rf"\b{re.escape(tool.name)}\b", text, re.IGNORECASE) is not None),
        }

    def _phrase_features(self, kind: str, text: str, vector: NDArray[np.float32]) -> Features:
        best, second = self._similarity(self._phrases[kind], vector)
        own = _words(text)
        shared = max((_dice(own, _words(phrase)) for phrase in self._phrases[kind]), default=0.0)
        return {"best": best, "second": second, "words": shared}

    def _similarity(self, texts: tuple[str, ...], vector: NDArray[np.float32]) -> tuple[float, float]:
        """Cosines of the two nearest texts."""
        if not texts:
            return 0.0, 0.0
        cosines = np.sort(self._texts(texts) @ vector)
        return float(cosines[-1]), float(cosines[-min(2, len(cosines))])

    def _texts(self, texts: tuple[str, ...]) -> NDArray[np.float32]:
        if texts not in self._vectors:
            folder = self._kept_in
            self._vectors[texts] = (
                kept_vectors(self._embedder, texts, folder) if folder else self._embedder.embed(texts)
            )
            if len(self._vectors) > _MOST_TEXTS:
                self._vectors.pop(next(iter(self._vectors)))
        return self._vectors[texts]


@cache
def load_weights() -> dict[str, Features]:
    """Weights by kind of option and feature, as fitted."""
    text = resources.files("agentkit.llm").joinpath("routing.json").read_text(encoding="utf-8")
    weights: dict[str, Features] = json.loads(text)["weights"]
    return weights


def _kind(option: str, tools: Sequence[ToolSpec]) -> Kind:
    if any(tool.name == option for tool in tools):
        return "tool"
    return option  # type: ignore[return-value]  # the other options are named as their kinds


def _score(weights: Features, features: Features) -> float:
    return weights["bias"] + sum(weights[name] * value for name, value in features.items())


def _softmax(scores: dict[str, float]) -> dict[str, float]:
    top = max(scores.values())
    powers = {option: math.exp(score - top) for option, score in scores.items()}
    total = sum(powers.values())
    return {option: power / total for option, power in powers.items()}


@lru_cache(4096)
def _words(text: str) -> frozenset[str]:
    return frozenset(words(text))


def _dice(one: frozenset[str], other: frozenset[str]) -> float:
    """The share of words that two texts have in common (Dice, Ecology 26, 1945)."""
    return 2 * len(one & other) / max(1, len(one) + len(other))


def _request(text: str) -> str:
    """The words that ask, without the text that they ask about; all where nothing is left."""
    bare = QUOTED.sub(" ", text)
    bare = re.sub(r":\s.*", " ", bare, flags=re.DOTALL)
    bare = " ".join(bare.split())
    return bare if len(bare) > _SHORT else text


def _looks_like_question(text: str) -> float:
    return float("?" in text)


def _path_evidence(text: str, tool: ToolSpec) -> float:
    """1 if the tool takes a file and the turn names one of that kind, -1 if it names none, 0 if it takes none."""
    wanted = {
        _file_kind(str(v)) for e in tool.examples for v in e.arguments.values() if PATH.fullmatch(str(v))
    }
    if not wanted:
        return 0.0
    return 1.0 if any(_file_kind(path) in wanted for path in paths(text)) else -1.0


def _file_kind(path: str) -> str:
    """``image``, ``audio``, … or the suffix itself."""
    guessed = (mimetypes.guess_type(path)[0] or "").split("/")[0]
    return guessed if guessed in ("image", "audio", "video") else PurePath(path).suffix.lower()


def _payload_evidence(text: str, tool: ToolSpec) -> float:
    """1 if the tool works on a text and the turn sets one off, -1 if it does not, 0 if the tool takes none."""
    copies = "text" in copied_parameters(tool).values()
    if not copies:
        return 0.0
    return 1.0 if _PAYLOAD.search(text) else -1.0


def _mention_evidence(text: str, tool: ToolSpec) -> float:
    """1 if a required closed-vocabulary value is mentioned, -1 if none is, 0 if the tool takes none."""
    properties = tool.parameters.get("properties", {})
    required = [properties.get(name) for name in tool.parameters.get("required", ())]
    wanted = [
        schema["x-synonyms"] for schema in required if isinstance(schema, Mapping) and "x-synonyms" in schema
    ]
    if not wanted:
        return 0.0
    return 1.0 if all(mentions(synonyms, text) for synonyms in wanted) else -1.0
