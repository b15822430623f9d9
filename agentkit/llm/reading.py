"""Does a passage state the answer to a question? The judgement of a chat model that has been trained to make it.

One forward pass, one token: the log-odds of "Yes" against "No". The passage stands first, so that several questions
about one passage share its part of the KV cache, in training as in serving. An untrained small model's judgement is
worth little: only an adapter that declares ``reads`` in its ``agentkit.json`` should be asked.

What a passage says can sway the judgement, as it can sway an embedding; all that follows is whether the agent answers
from that very passage.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol

from agentkit.messages import Message, Passage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHAT = "chat"
"""Name of the reader that a conversation's own model is."""
READING_TASK = "Does the passage state the answer to the question? Reply Yes or No."
READING_PROMPT = "{heading}\n{text}\n\nQuestion: {question}"
YES, NO = "Yes", "No"


class Scores(Protocol):
    """A model that scores what its answer may begin with; `LocalModel` is one."""

    def first_logits(
        self, messages: Sequence[Message], answers: Sequence[str], *, adapter: Any = None
    ) -> list[float]: ...


def reading(heading: str, text: str, question: str) -> list[Message]:
    """The conversation whose answer is `YES` or `NO`.

    Args:
        heading: The passage's heading path.
        text: Its text.
        question: As somebody would ask it who has said nothing before.
    """
    content = READING_PROMPT.format(heading=heading, text=text, question=" ".join(question.split()))
    return [Message("system", READING_TASK), Message("user", content)]


def supported(model: Scores, question: str, passage: Passage, adapter: Any = None) -> float:
    """Log-odds that the passage states the answer to the question; above 0 it more likely does."""
    asked = reading(passage.heading, passage.text, question)
    yes, no = model.first_logits(asked, (YES, NO), adapter=adapter)
    return yes - no


def reader_of(model: object, adapter: Any = None) -> ModelReader | None:
    """The model as a reader, where it says (``reads``) that it has been trained to be one.

    Args:
        model: Any chat model.
        adapter: What it runs with in this turn (`protocol.Adaptable`), where not its own choice: that has the say.
    """
    reads = getattr(model if adapter is None else adapter, "reads", False)
    return ModelReader(model, adapter) if reads else None  # type: ignore[arg-type]


class ModelReader:
    """A `retrieval.protocol.Reader` over a conversation's model."""

    name = CHAT

    def __init__(self, model: Scores, adapter: Any = None) -> None:
        self._model, self._adapter = model, adapter

    def supported(self, question: str, passage: Passage) -> float:
        """See `supported`."""
        return supported(self._model, question, passage, self._adapter)


class ModelReranker:
    """A `retrieval.protocol.Reranker` over a chat model: each text by itself, by the log-odds of "Yes" against "No".

    The form is that of monoT5 (arXiv:2003.06713). Qwen2.5-Coder judges well untrained at 1.5 billion parameters, not at
    0.5 (docs/decisions/abstention.md). Of a text that was read before only the question costs time.

    Args:
        model: Any chat model.
        adapter: What it runs with.
        name: Whose judgement it is, where the adapter was trained to make one.
    """

    depth = 8
    """Texts to be scored; each is a pass of the model."""
    _QUERY, _TEXT = 1_000, 8_000
    _REMEMBERED = 256
    """Scores: the same question is searched for again with another limit."""

    def __init__(self, model: Scores, adapter: Any = None, name: str = "") -> None:
        self._model, self._adapter, self.name = model, adapter, name
        self._score = lru_cache(self._REMEMBERED)(self._read)

    @property
    def reader(self) -> ModelReranker | None:
        """Itself, where it was trained to judge."""
        return self if self.name else None

    def supported(self, question: str, passage: Passage) -> float:
        """Log-odds that the passage states the answer; what `scores` has read is not read again."""
        return self._score(question, f"{passage.heading}\n{passage.text}"[: self._TEXT])

    def scores(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Reranker`.

        Raises:
            ModelError: The model failed.
        """
        import numpy as np

        score = partial(self._score, query[: self._QUERY])
        # Texts that are read at the same time share the passes of the model.
        with ThreadPoolExecutor(self.depth, thread_name_prefix="agentkit-reading") as pool:
            return np.fromiter(pool.map(score, (text[: self._TEXT] for text in texts)), np.float32)

    def _read(self, query: str, text: str) -> float:
        heading, _, body = text.partition("\n")
        yes, no = self._model.first_logits(reading(heading, body, query), (YES, NO), adapter=self._adapter)
        return yes - no
