"""Messages to token ids, segment by segment. Content is never control.

The chat template is rendered with a placeholder for every piece of foreign text. What stands between the
placeholders is the template's own and may become control tokens; the foreign text is encoded by a copy of the
tokenizer that knows no added token, so ``<|im_end|>`` typed by a user is seven ordinary tokens.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from agentkit.errors import ModelError
from agentkit.llm.formats import hermes
from agentkit.messages import Message, ToolSpec

_OPEN, _CLOSE = "\ue0f0", "\ue0f1"
"""Private-use characters around a placeholder's number; they are in no template."""
_REMEMBERED = 512
"""Assistant texts whose ids are kept."""
_PLACEHOLDER = re.compile(f"{_OPEN}(\\d+){_CLOSE}")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a conversation."""

    ids: list[int]
    assistant: list[bool]
    """True for the ids an assistant wrote, its end-of-turn token included: the labels of fine-tuning."""


class ChatEncoder:
    """Renders conversations for one tokenizer and its chat template.

    Args:
        tokenizer: A fast transformers tokenizer with a chat template.
        eos_ids: Ids that end a turn.
    """

    def __init__(self, tokenizer: Any, eos_ids: frozenset[int]) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError("the model has no chat template", "use a chat-tuned model")
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError("the model has no fast tokenizer", "use a model with a tokenizer.json")
        self._tokenizer = tokenizer
        self._eos_ids = eos_ids
        self._plain = without_added_tokens(tokenizer)
        self._control = {id for token, id in tokenizer.get_added_vocab().items() if token.strip()}
        self._system_role = self._supports_system()
        self._encode_plain = lru_cache(maxsize=512)(self.plain)
        self._spoken: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def encode(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, generation_prompt: bool = True
    ) -> Encoded:
        """Token ids of ``messages``, ready for the assistant's next words if ``generation_prompt``."""
        texts: list[str] = []
        turns = [
            {"role": role, "content": self._hold(content, texts)}
            for role, content in self._turns(messages, tools)
        ]
        rendered = self._render(turns, generation_prompt)
        return self._assemble(rendered, texts, [turn["role"] == "assistant" for turn in turns])

    def _turns(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[tuple[str, str]]:
        """(role, text) in the roles every template knows: system, user, assistant."""
        length = next((n for n, message in enumerate(messages) if message.role != "system"), len(messages))
        prompt = "\n\n".join(message.content for message in messages[:length])
        system = hermes.system(prompt, tools)
        other = "system" if self._system_role else "user"
        turns = _merged(_turn(message, other) for message in messages[length:])
        if system and self._system_role:
            turns.insert(0, ("system", system))
        elif system:
            turns = _merged([("user", system), *turns])
        return turns

    @staticmethod
    def _hold(text: str, texts: list[str]) -> str:
        texts.append(text)
        return f"{_OPEN}{len(texts) - 1}{_CLOSE}"

    def _render(self, turns: list[dict[str, str]], generation_prompt: bool) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=generation_prompt
                )
            )
        except Exception as error:  # templates raise whatever their author chose
            remedy = "check the order of roles: user and assistant must take turns"
            raise ModelError(
                f"the model's chat template refuses the conversation: {error}", remedy
            ) from error

    def _assemble(self, rendered: str, texts: list[str], by_assistant: list[bool]) -> Encoded:
        ids: list[int] = []
        assistant: list[bool] = []
        awaiting_end = False
        for position, part in enumerate(_PLACEHOLDER.split(rendered)):
            if position % 2 == 0:
                new = self._tokenizer.encode(part, add_special_tokens=False) if part else []
                labels = [False] * len(new)
                if awaiting_end:  # some templates put a space before the end-of-turn token
                    end = next((n for n, id in enumerate(new, 1) if id in self._eos_ids), 0)
                    labels[:end] = [True] * end
            else:
                index = int(part)
                awaiting_end = by_assistant[index]
                spoken = self._spoken.get(texts[index]) if awaiting_end else None
                new = list(spoken or self._encode_plain(texts[index]))
                labels = [awaiting_end] * len(new)
            ids += new
            assistant += labels
        return Encoded(ids, assistant)

    def plain(self, text: str) -> tuple[int, ...]:
        """Ids of foreign text: no control token, whatever it says."""
        text = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text
        ids = self._plain.encode(text, add_special_tokens=False).ids
        if self._control.isdisjoint(ids):
            return tuple(ids)
        # Some vocabularies hold a control token as an ordinary piece too: no single letter is one.
        letters = (self._plain.encode(letter, add_special_tokens=False).ids for letter in text)
        return tuple(id for letter in letters for id in letter)

    def remember(self, text: str, ids: Sequence[int]) -> None:
        """Keep the very ids with which the model wrote ``text``.

        Text has many tokenizations, and a model under a grammar often writes an unusual one: encoding its words
        anew would part from its own cache. Ids that say anything else than ``text`` (a stop string that was cut
        off, a control token) are not kept.
        """
        said = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if said != text or not self._control.isdisjoint(ids):
            return
        self._spoken[text] = tuple(ids)
        if len(self._spoken) > _REMEMBERED:
            self._spoken.popitem(last=False)

    @cached_property
    def rewrites_history(self) -> bool:
        """Whether the template renders what was said otherwise once more has been said.

        Some put the system prompt into the latest message, or leave out of earlier answers what stood before them.
        The cache of a conversation is then of use only up to there.
        """
        messages = [Message("system", "Be kind."), Message("user", "one"), Message("assistant", "two")]
        messages += [Message("user", "three"), Message("assistant", "four"), Message("user", "five")]
        try:
            before = self.encode(messages[:2]).ids
            for said, asked in ((2, 4), (4, 6)):
                after = self.encode(messages[:asked]).ids
                before += self.plain(messages[said].content)
                if after[: len(before)] != before:
                    return True
                before = after
        except ModelError:  # it refuses a plain conversation: every turn will say so by itself
            return False
        return False

    def _supports_system(self) -> bool:
        """Some templates refuse or drop the system role."""
        marker = f"{_OPEN}0{_CLOSE}"
        turns = [{"role": "system", "content": marker}, {"role": "user", "content": "x"}]
        try:
            return marker in self._tokenizer.apply_chat_template(turns, tokenize=False)
        except Exception:  # a template that raises does not support it, whatever it raises
            return False


def _merged(turns: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """One turn where a role speaks twice in a row: many templates insist on alternation."""
    merged: list[tuple[str, str]] = []
    for role, text in turns:
        if merged and merged[-1][0] == role:
            text = f"{merged.pop()[1]}\n\n{text}"
        merged.append((role, text))
    return merged


def _turn(message: Message, system: str) -> tuple[str, str]:
    if message.role == "system":
        return system, message.content
    if message.role == "tool":
        return "user", hermes.result(message.content)
    if message.tool_calls:
        calls = "\n".join(hermes.call(call) for call in message.tool_calls)
        return "assistant", f"{message.content}\n{calls}" if message.content else calls
    return message.role, message.content


def without_added_tokens(tokenizer: Any) -> Any:
    """The tokenizer's model without a single added token, so that no text can produce a control id."""
    from tokenizers import Tokenizer

    backend = tokenizer.backend_tokenizer
    plain = Tokenizer(backend.model)  # shared: a vocabulary of 262,144 tokens takes seconds to be read again
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if getattr(backend, part) is not None:
            setattr(plain, part, getattr(backend, part))
    return plain
