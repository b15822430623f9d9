"""Messages to token ids, segment by segment. Content is never control.

The chat template is rendered with a placeholder for every piece of foreign text. What stands between the
placeholders is the template's own and may become control tokens; the foreign text is encoded by a copy of the
tokenizer that knows no added token, so ``<|im_end|>`` typed by a user is seven ordinary tokens. Only the `Markup` of
the tool-call format becomes control tokens, where the vocabulary has them.
"""

from __future__ import annotations

import copy
import json
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from agentkit.errors import ModelError
from agentkit.llm.formats import AUTO, find_format
from agentkit.llm.formats.base import Format, Markup, Parts
from agentkit.messages import Message, ToolCall, ToolSpec

_OPEN, _CLOSE = "\ue0f0", "\ue0f1"
"""Private-use characters around a placeholder's number; they are in no template."""
_REMEMBERED = 512
"""Assistant texts whose ids are kept."""
_PLACEHOLDER = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_MARKER = f"{_OPEN}0{_CLOSE}"
_THINK, _THINK_END = "<think>", "</think>"

Segments = tuple[str | int, ...]
"""Text to be encoded without control, and ids of control tokens."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """One message as the chat template sees it."""

    role: str
    parts: Parts
    is_result: bool = False
    """Nothing but results of tools."""

    @property
    def text(self) -> str:
        return "".join(self.parts)


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
        tool_format: Name of the tool-call format; ``auto`` chooses by template and added tokens.
    """

    def __init__(self, tokenizer: Any, eos_ids: frozenset[int], tool_format: str = AUTO) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ModelError("the model has no chat template", "use a chat-tuned model")
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError("the model has no fast tokenizer", "use a model with a tokenizer.json")
        self.tokenizer = tokenizer
        self._eos_ids = eos_ids
        self.format: Format = find_format(tool_format, tokenizer)
        self._plain = without_added_tokens(tokenizer)
        added = {token: id for token, id in tokenizer.get_added_vocab().items() if token.strip()}
        self._added, self.control = added, frozenset(added.values())
        """``control``: ids that no foreign text becomes."""
        longest_first = sorted(map(re.escape, added), key=len, reverse=True)
        self._added_pattern = re.compile(f"({'|'.join(longest_first)})") if added else None
        self._system_role = self._supports("system") is not None
        self._result_role, self._result_quoted = self._find_result_role()
        self.encode_plain = lru_cache(maxsize=2048)(self.plain)
        """`plain`, remembered."""
        self._spoken: OrderedDict[Segments, tuple[int, ...]] = OrderedDict()

    def encode(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), *, generation_prompt: bool = True
    ) -> Encoded:
        """Token ids of ``messages``, ready for the assistant's next words if ``generation_prompt``."""
        turns = self._turns(messages, tools)
        held = [{"role": turn.role, "content": f"{_OPEN}{n}{_CLOSE}"} for n, turn in enumerate(turns)]
        return self._assemble(self._render(held, generation_prompt), turns)

    def encode_answer(self, messages: Sequence[Message], answer: str) -> tuple[list[int], list[int]]:
        """Token ids of a conversation that an assistant's answer follows, and of that answer to the end of its turn."""
        encoded = self.encode([*messages, Message("assistant", answer)], generation_prompt=False)
        end = len(encoded.ids) - encoded.assistant[::-1].index(True)
        start = next((n for n in range(end, 0, -1) if not encoded.assistant[n - 1]), 0)
        return encoded.ids[:start], encoded.ids[start:end]

    def _turns(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[_Turn]:
        """The messages in the roles that the template knows: system, user, assistant, and mostly no other."""
        length = next((n for n, message in enumerate(messages) if message.role != "system"), len(messages))
        prompt = "\n\n".join(message.content for message in messages[:length])
        system = self.format.system(prompt, tools)
        turns = self._merged(self._turn(message) for message in messages[length:])
        if any(system) and self._system_role:
            turns.insert(0, _Turn("system", system))
        elif any(system):
            turns = self._merged([_Turn("user", system), *turns])
        return turns

    def _turn(self, message: Message) -> _Turn:
        if message.role == "system":
            return _Turn("system" if self._system_role else "user", (message.content,))
        if message.role == "tool":
            return _Turn(self._result_role, self.format.result(message), True)
        if message.tool_calls:
            return _Turn("assistant", self.said_and_called(message.content, message.tool_calls))
        return _Turn(message.role, (message.content,))

    def said_and_called(self, said: str, calls: Sequence[ToolCall]) -> Parts:
        """An assistant's message that makes calls, after some words or none."""
        before = (said, self.format.before_call) if said else ()
        return (*before, *self.format.calls(calls))

    def _merged(self, turns: Iterable[_Turn]) -> list[_Turn]:
        """One turn where a role speaks twice in a row: many templates insist on alternation."""
        merged: list[_Turn] = []
        for turn in turns:
            if merged and merged[-1].role == turn.role and turn.role in ("user", "assistant", "system"):
                last = merged.pop()
                results = last.is_result and turn.is_result
                between = self.format.between_results if results else "\n\n"
                turn = _Turn(turn.role, (*last.parts, between, *turn.parts), results)
            merged.append(turn)
        return merged

    def _render(self, turns: list[dict[str, str]], generation_prompt: bool) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=generation_prompt
                )
            )
        except Exception as error:  # templates raise whatever their author chose
            remedy = "check the order of roles: user and assistant must take turns"
            raise ModelError(
                f"the model's chat template refuses the conversation: {error}", remedy
            ) from error

    def _assemble(self, rendered: str, turns: list[_Turn]) -> Encoded:
        ids: list[int] = []
        assistant: list[bool] = []
        awaiting_end = False
        for position, part in enumerate(self._pieces(rendered, turns)):
            if position % 2 == 0:
                new = self.tokenizer.encode(part, add_special_tokens=False) if part else []
                labels = [False] * len(new)
                if awaiting_end:  # some templates put a space before the end-of-turn token
                    end = next((n for n, id in enumerate(new, 1) if id in self._eos_ids), 0)
                    labels[:end] = [True] * end
            else:
                turn = turns[int(part)]
                awaiting_end = turn.role == "assistant"
                segments = self.segments(turn.parts)
                if turn.is_result and self._result_quoted:
                    segments = tuple(_quoted(s) if isinstance(s, str) else s for s in segments)
                new = list((self._spoken.get(segments) if awaiting_end else None) or self._ids(segments))
                labels = [awaiting_end] * len(new)
            ids += new
            assistant += labels
        return Encoded(ids, assistant)

    def _pieces(self, rendered: str, turns: list[_Turn]) -> list[str]:
        """The template's own text and the turns' numbers by turns, without what belongs around no result."""
        pieces = _PLACEHOLDER.split(rendered)
        if self.format.around_result:
            before, after = self.format.around_result
            for at in range(1, len(pieces), 2):
                if turns[int(pieces[at])].is_result:
                    pieces[at - 1] = re.sub(before, "", pieces[at - 1])
                    pieces[at + 1] = re.sub(after, "", pieces[at + 1])
        return pieces

    def segments(self, parts: Sequence[str]) -> Segments:
        """Control tokens where markup is one in this vocabulary; all the rest is text."""
        found: list[str | int] = []
        for piece in self._split(parts):
            if isinstance(piece, str) and found and isinstance(found[-1], str):
                found[-1] += piece
            elif piece != "":
                found.append(piece)
        return tuple(found)

    def _split(self, parts: Sequence[str]) -> Iterator[str | int]:
        for part in parts:
            if isinstance(part, Markup) and self._added_pattern:
                pieces = self._added_pattern.split(part)
                yield from (self._added[piece] if n % 2 else piece for n, piece in enumerate(pieces))
            else:
                yield part

    def _ids(self, segments: Segments) -> Iterator[int]:
        for segment in segments:
            yield from (segment,) if isinstance(segment, int) else self.encode_plain(segment)

    @cached_property
    def thinking(self) -> tuple[Segments, Segments] | None:
        """What stands before and after a thought, where the model thinks before it speaks; else None."""
        if _THINK not in self._added and _THINK not in str(self.tokenizer.chat_template):
            return None
        before = () if self._opens_thought else self.segments((Markup(_THINK),))
        return before, self.segments((Markup(_THINK_END),))

    def has_thought(self, written: str) -> bool:
        """Whether an answer begins with a thought: the template, or the model, has opened one."""
        return self.thinking is not None and (self._opens_thought or written.lstrip().startswith(_THINK))

    @cached_property
    def _opens_thought(self) -> bool:
        """The template begins an answer with an open thought."""
        try:
            return self._render([{"role": "user", "content": "x"}], True).rstrip().endswith(_THINK)
        except ModelError:
            return False

    def plain(self, text: str) -> tuple[int, ...]:
        """Ids of foreign text: no control token, whatever it says."""
        text = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no text
        ids = self._plain.encode(text, add_special_tokens=False).ids
        if self.control.isdisjoint(ids):
            return tuple(ids)
        # Some vocabularies hold a control token as an ordinary piece too: no single letter is one.
        letters = (self._plain.encode(letter, add_special_tokens=False).ids for letter in text)
        return tuple(id for letter in letters for id in letter)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens included."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def remember(self, parts: Sequence[str], ids: Sequence[int]) -> None:
        """Keep the very ids with which the model wrote a turn.

        Text has many tokenizations, and a model under a grammar often writes an unusual one: encoding its words
        anew would part from its own cache. Ids that say anything else than ``parts`` (a stop string that was cut
        off, a control token that is neither markup nor around a thought) are not kept.
        """
        said = self.decode(ids)
        key = self.segments(parts)
        thought = {self._added.get(_THINK), self._added.get(_THINK_END)}
        control = [id for id in ids if id in self.control and id not in thought]
        if said != "".join(parts) or control != [part for part in key if isinstance(part, int)]:
            return
        self._spoken[key] = tuple(ids)
        if len(self._spoken) > _REMEMBERED:
            self._spoken.popitem(last=False)

    def without_memory(self) -> ChatEncoder:
        """The same rules, for texts whose tokens must not depend on what was said here before."""
        other = copy.copy(self)
        other._spoken = OrderedDict()
        return other

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

    def _find_result_role(self) -> tuple[str, bool]:
        """The role that results have in this template, and whether it makes a JSON string of them."""
        role = self.format.result_role
        rendered = self._supports(role) if role != "user" else None
        return (role, f'"{_MARKER}"' in rendered) if rendered else ("user", False)

    def _supports(self, role: str) -> str | None:
        """What the template makes of a message in this role; None where it refuses or drops it."""
        turns = [{"role": role, "content": _MARKER}, {"role": "user", "content": "x"}]
        if role != "system":
            asked = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]
            turns = [*asked, *turns]
        try:
            rendered = str(self.tokenizer.apply_chat_template(turns, tokenize=False))
        except Exception:  # a template that raises does not support it, whatever it raises
            return None
        return rendered if _MARKER in rendered else None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def without_added_tokens(tokenizer: Any) -> Any:
    """The tokenizer's model without a single added token, so that no text can produce a control id."""
    from tokenizers import Tokenizer

    backend = tokenizer.backend_tokenizer
    plain = Tokenizer(backend.model)  # shared: a vocabulary of 262,144 tokens takes seconds to be read again
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if getattr(backend, part) is not None:
            setattr(plain, part, getattr(backend, part))
    return plain
