"""JSON schemas to token masks with llguidance: a call under a grammar is valid, or the budget ended.

A schema the grammar cannot express exactly is refused; nothing is approximated.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agentkit.engine.masks import Bits, Masked, first_of, has, packed_bits
from agentkit.errors import ModelError, SchemaError
from agentkit.llm.arguments import argument_rules, schema_text
from agentkit.llm.encoding import without_added_tokens
from agentkit.llm.grounding import DEFINITIONS, sources
from agentkit.messages import ToolSpec

if TYPE_CHECKING:
    import torch

_BRANCHES = ("anyOf", "allOf", "oneOf", "prefixItems")


class GrammarCompiler:
    """Compiles grammars for one tokenizer.

    Args:
        tokenizer: A fast transformers tokenizer.
        vocab_size: Rows of the model's output head; may exceed the tokenizer's vocabulary.
    """

    def __init__(self, tokenizer: Any, vocab_size: int) -> None:
        import llguidance.hf

        whole = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocab_size)
        plain: Any = _PlainTokenizer(tokenizer, whole)
        self._ll_tokenizer = llguidance.LLTokenizer(plain, n_vocab=vocab_size, eos_token=whole.eos_tokens)
        self._vocab_size = vocab_size
        self._closers = Closers.of(tokenizer, vocab_size)

    def tool_call(
        self, tools: Sequence[ToolSpec], opening: str, closing: str, turn: str = "", copy: bool = False
    ) -> Grammar:
        """A grammar for exactly one call of one of ``tools``.

        Args:
            tools: The tools that may be called.
            opening: What stands before the JSON object.
            closing: What stands after it.
            turn: The user's turn; copied parameters take their values from it (`agentkit.llm.grounding`).
            copy: Take required texts of tools without examples from it too.
        """
        for tool in tools:
            self.check(tool.schema, f"tool {tool.name!r}")
        lines = [f"start: {json.dumps(opening)} call {json.dumps(closing)}"]
        lines.append("call: " + " | ".join(f"call{n}" for n in range(len(tools))))
        for n, tool in enumerate(tools):
            head = f'{{"name": {json.dumps(tool.name)}, "arguments": '
            lines.append(f"call{n}: {json.dumps(head)} args{n} " + '"}"')
            lines += argument_rules(f"args{n}", tool.schema, sources(tool, turn, copy=copy) if turn else {})
        return self._grammar("\n".join(lines))

    def choice(self, texts: Sequence[str]) -> Grammar:
        """A grammar for exactly one of ``texts``."""
        # the empty text has no tokens to choose it by, and a lexer takes no empty word
        texts = [text for text in texts if text] or [""]
        return self._grammar("start: " + " | ".join(json.dumps(text, ensure_ascii=False) for text in texts))

    def json_value(self, schema: dict[str, Any]) -> Grammar:
        """A grammar for one JSON value of ``schema``."""
        self.check(schema, "response_format")
        return self._grammar(f"start: %json {schema_text(schema)}")

    def check(self, schema: dict[str, Any], owner: str) -> None:
        """Refuse a schema that the grammar cannot express.

        Raises:
            SchemaError: Names ``owner``, the path in the schema and the reason.
        """
        reason = self._reason(schema)
        if reason:
            path = self._locate(schema, schema, "#")
            raise SchemaError(
                f"{owner}: the schema at {path} cannot be made a grammar: {reason}", "simplify it there"
            )

    def _reason(self, schema: Any) -> str:
        import llguidance

        try:
            text = f"start: %json {schema_text(schema)}"
        except (TypeError, ValueError) as error:
            return str(error)
        message = llguidance.LLMatcher.validate_grammar(text, self._ll_tokenizer)
        first_line = message.splitlines()[0] if message else ""
        return re.sub(r"^at \d+\(\d+\): failed to compile JSON schema: ", "", first_line)

    def _locate(self, schema: Any, root: dict[str, Any], path: str) -> str:
        """The deepest sub-schema that fails by itself."""
        for part, child in _children(schema):
            shared = {key: root[key] for key in DEFINITIONS if key in root}
            alone = {**child, **shared} if isinstance(child, dict) else child
            if self._reason(alone):
                return self._locate(child, root, f"{path}/{part}")
        return path

    def _grammar(self, text: str) -> Grammar:
        import llguidance

        # The lexer takes neither DEL nor half a surrogate pair; the escape means the same.
        text = text.encode("utf-8", "replace").decode("utf-8").replace("\x7f", "\\u007f")
        matcher = llguidance.LLMatcher(self._ll_tokenizer, text)
        if matcher.is_error():
            raise SchemaError(
                f"the grammar does not compile: {matcher.get_error().splitlines()[0]}", "simplify it"
            )
        return Grammar(matcher, self._vocab_size, self._closers)


class _PlainTokenizer:
    """What llguidance tokenizes forced text with: ``<|im_end|>`` in an enum or a quote is text, not control."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Any, whole: Any) -> None:
        ids = range(whole.vocab_size)
        self.tokens = [whole.decode_bytes([token]) for token in ids]
        self.special_token_ids = [token for token in ids if whole.is_special_token(token)]
        self.eos_token_id, self.bos_token_id = whole.eos_token, None
        self._plain = without_added_tokens(tokenizer)

    def __call__(self, text: str) -> list[int]:
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids


class Grammar:
    """A `MaskProvider` of the decode loop: one use, one output."""

    WRAP_UP = 64
    """Tokens to spare, besides the shortest output, from which on everything is closed as soon as possible."""
    SHORTEST_AT_MOST = 256
    """Choices after which the search for the shortest output gives up."""

    def __init__(self, matcher: Any, vocab_size: int, closers: Closers) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._closers = closers
        self._wrap_up: int | None = None
        self._masked = Masked(vocab_size)
        self._bits = np.zeros((vocab_size + 31) // 32, np.int32)

    @property
    def complete(self) -> bool:
        return bool(self._matcher.is_stopped())

    def mask(self, logits: torch.Tensor, remaining: int) -> torch.Tensor:
        """Forbid what the grammar does not allow; near the end of the budget, prefer what closes.

        The result holds until the next call.
        """
        return self._masked(logits, self._allowed(closing=self._closing(remaining)))

    def permits(self, token: int, remaining: int) -> bool:
        """Whether `mask` leaves this token, and so the best of all stays the best."""
        return not self._closing(remaining) and self.allows([token]) == 1

    def _closing(self, remaining: int) -> bool:
        """Whether so little of the budget is left that everything must be closed."""
        if self._wrap_up is None:
            shortest = self._shortest()
            self._wrap_up = shortest + min(self.WRAP_UP, max(remaining - shortest, 0) // 2)
        return remaining <= self._wrap_up

    def _allowed(self, *, closing: bool) -> Bits:
        """What may come next; the buffer is written anew by the next call."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._raise_on_error()
        return self._closers.among(self._bits) if closing else self._bits

    def _shortest(self) -> int:
        """Tokens of an output that closes whatever it can: what must be kept for a valid end."""
        trial = Grammar(self._matcher.deep_copy(), self._vocab_size, self._closers)
        tokens = 0
        for _ in range(self.SHORTEST_AT_MOST):
            if trial.complete:
                return tokens
            token = first_of(trial._allowed(closing=True))
            trial.accept(token)
            tokens += 1 + len(trial.forced())
        return 0

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._raise_on_error()

    def forced(self) -> list[int]:
        """Tokens that the grammar leaves no choice about; accepted already."""
        if self.complete:
            return []
        tokens: list[int] = self._matcher.compute_ff_tokens()
        if tokens:
            self._matcher.consume_tokens(tokens)
            self._raise_on_error()
        return tokens

    def allows(self, draft: Sequence[int]) -> int:
        """How many of these tokens it would accept, one after the other; none is accepted by this."""
        return int(self._matcher.validate_tokens(list(draft)))

    def _raise_on_error(self) -> None:
        if self._matcher.is_error():
            raise ModelError(
                f"the grammar failed: {self._matcher.get_error().splitlines()[0]}", "report this schema"
            )


def _children(schema: Any) -> list[tuple[str, Any]]:
    if not isinstance(schema, dict):
        return []
    found = [(f"{key}/{name}", child) for key in (*DEFINITIONS, "properties", "patternProperties")
             for name, child in (schema.get(key) or {}).items()]  # fmt: skip
    found += [(f"{key}/{n}", child) for key in _BRANCHES for n, child in enumerate(schema.get(key) or [])]
    return found + [
        (key, schema[key]) for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)
    ]


@dataclass(frozen=True, slots=True)
class Closers:
    """Tokens that bring a JSON value to its end."""

    quotes: Bits
    brackets: Bits
    letter: int
    """A letter that begins no JSON literal: where it is allowed, a string is open and a bracket is only text."""

    @classmethod
    def of(cls, tokenizer: Any, vocab_size: int) -> Closers:
        quotes, brackets = np.zeros((2, vocab_size), bool)
        special = set(tokenizer.get_added_vocab().values())
        texts = tokenizer.batch_decode([[n] for n in range(min(vocab_size, len(tokenizer)))])
        for token, text in enumerate(texts):
            if token not in special and text and set(text) <= set('"}]'):
                (quotes if text[0] == '"' else brackets)[token] = True
        letters = (texts.index(letter) for letter in string.ascii_uppercase if letter in texts)
        return cls(packed_bits(quotes), packed_bits(brackets), next(letters, 0))

    def among(self, allowed: Bits) -> Bits:
        """The allowed tokens that close something; all allowed ones where none does."""
        in_string = has(allowed, self.letter)
        for wanted in (self.quotes,) if in_string else (self.brackets, self.quotes):
            closing = allowed & wanted
            if closing.any():
                return closing
        return allowed
