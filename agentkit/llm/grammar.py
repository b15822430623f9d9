"""JSON schemas to token masks with llguidance: a call under a grammar is valid, or the budget ended.

A schema the grammar cannot express exactly is refused; nothing is approximated.
"""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from agentkit.engine.masks import Bits, Masked, first_of, has, packed_bits
from agentkit.errors import ModelError, SchemaError
from agentkit.llm.arguments import is_plain_object, schema_text
from agentkit.llm.encoding import ChatEncoder, Segments, without_added_tokens
from agentkit.llm.evidence import Parameter, evidence
from agentkit.llm.formats.base import MAX_RULES, ArgumentSyntax, Format, Markup
from agentkit.llm.grounding import sources
from agentkit.llm.guide import FULL, CallText, Cut, Guided, Strength
from agentkit.llm.plan import plan
from agentkit.llm.schemas import SchemaCheck, canonical
from agentkit.messages import ToolSpec

if TYPE_CHECKING:
    import torch

EMPTY = '""'


MAX_CALLS = 16
"""Calls in one message at most."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a message that makes calls may look."""

    turn: str = ""
    """The user's turn; copied parameters take their values from it (`agentkit.llm.grounding`)."""
    strength: Strength = FULL
    """How far what the turn says weighs, for tools without examples (`agentkit.llm.evidence`)."""
    parallel: bool = False
    """Further calls may follow the first."""
    copies: bool = True
    """Copied parameters take their values from the turn; not where a call goes on from another's result."""
    thought: int = 0
    """Tokens that a thought before the first call may have, where the model thinks; 0 allows none."""
    number: int = 0
    """Differs between the messages of a conversation, so that the ids of their calls do."""


class GrammarCompiler:
    """Compiles grammars for one tokenizer.

    Args:
        encoder: Of the model: its tokenizer and its tool-call format.
        vocab_size: Rows of the model's output head; may exceed the tokenizer's vocabulary.
        eos_ids: Tokens with which the model ends what may go on.
    """

    def __init__(self, encoder: ChatEncoder, vocab_size: int, eos_ids: frozenset[int] = frozenset()) -> None:
        import llguidance.hf

        tokenizer = encoder.tokenizer
        whole = llguidance.hf.from_tokenizer(tokenizer, n_vocab=vocab_size)
        ends = sorted({*whole.eos_tokens, *eos_ids})
        plain: Any = _PlainTokenizer(tokenizer, whole, encoder.control)
        self._ll_tokenizer = llguidance.LLTokenizer(plain, n_vocab=vocab_size, eos_token=ends)
        self._encoder, self._vocab_size = encoder, vocab_size
        self._eos_ids = frozenset(ends)
        self._closers = Closers.of(tokenizer, vocab_size, ends)
        escape = encoder.segments((Markup(encoder.format.escape or ""),))
        escape_id = next((id for id in escape if isinstance(id, int)), None)
        self._syntax = ArgumentSyntax(escape_id)
        self._schemas = SchemaCheck(self._ll_tokenizer)
        self._fit: set[str] = set()
        """Tools that passed `check_tool`: no turn compiles them only to look."""
        self._call_closers = self._closers
        if encoder.format.escape:
            self._call_closers = self._closers.ending_texts(escape_id, tokenizer, vocab_size)

    @property
    def format(self) -> Format:
        """The model's tool-call format."""
        return self._encoder.format

    def tool_call(self, tools: Sequence[ToolSpec], options: CallOptions | None = None) -> Grammar | Guided:
        """A grammar for one call of one of ``tools``, or for several calls.

        Args:
            tools: The tools that may be called.
            options: What else may be in the message.

        Raises:
            SchemaError: A schema cannot be expressed; names the tool and the path.
        """
        options = options or CallOptions()
        lines = self._message_rules(options)
        lines.append("call: " + " | ".join(f"call{n}" for n in range(len(tools))))
        for n, tool in enumerate(tools):
            lines.append(f"call{n}: {self._literal(self.format.head(tool.name))} args{n}")
            try:
                lines += self._argument_rules(f"args{n}", tool, options)
            except SchemaError as error:
                owner = f"tool {tool.name!r}: "
                raise SchemaError(owner + error.cause.removeprefix(owner), error.remedy) from error
        return self._guided(self._grammar("\n".join(lines), self._call_closers), tools, options)

    def _guided(self, grammar: Grammar, tools: Sequence[ToolSpec], options: CallOptions) -> Grammar | Guided:
        """Weighed by what the turn says, where the arguments are JSON and examples do not settle what they are."""
        own = [
            tool
            for tool in tools
            if is_plain_object(tool.schema)
            and (
                not tool.examples or set(tool.schema.get("required", ())) - sources(tool, options.turn).keys()
            )
        ]
        if (
            not own
            or not options.turn
            or not any(astuple(options.strength))
            or self.format.escape is not None
        ):
            return grammar
        most = MAX_CALLS if options.parallel else 1
        heads = {tool.name: "".join((*self.format.head(tool.name), "{")) for tool in tools}
        known: dict[str, list[list[Parameter]]] = {heads[tool.name]: [] for tool in own}
        order: list[tuple[str, float]] = []
        for asked in plan(options.turn, tools, options.parallel):
            tool, head = tools[asked.tool], heads[tools[asked.tool].name]
            if tool in own:
                where = (asked.start, asked.end) if options.parallel else None
                made = evidence(tool.schema, options.turn, most, where, heads)
                known[head] += made
                order += [(head, asked.sure)] * len(made)
            else:
                order.append((head, asked.sure))
        for tool in own:
            head = heads[tool.name]
            known[head] = known[head] or evidence(tool.schema, options.turn, most, tools=heads)
        encode, decode = self._encoder.encode_plain, self._encoder.decode
        around = self._call_text(options.number, most)
        return Guided(grammar, known, around, encode, decode, options.strength, order)

    def _call_text(self, number: int, calls: int) -> CallText:
        """What stands around the arguments in the ``number``-th message with calls, of which it may have so many."""
        form = self.format
        tails = [form.tail(_call_id(number, n)) for n in range(calls)]
        every = (*form.head(""), *tails[0], *form.between, *form.closing)
        control = (piece for piece in self._encoder.segments(every) if isinstance(piece, int))
        return CallText(
            tuple(dict.fromkeys(map("".join, tails))),
            "".join(form.between),
            "".join(form.closing),
            self._eos_ids,
            {self._encoder.decode([token]): token for token in control},
        )

    def check_tool(self, tool: ToolSpec) -> None:
        """Refuse a tool that the grammar or the tool-call format cannot express.

        Raises:
            SchemaError: Names the tool, the path in its schema and the reason.
        """
        known = canonical([tool.name, tool.parameters])
        if known is not None and known in self._fit:
            return
        try:
            grammar = self.tool_call([tool])
            assert isinstance(grammar, Grammar)
            grammar.try_out()
        except ModelError as error:  # it compiles, but the lexer cannot afford it
            cause = f"tool {tool.name!r}: the schema at # is too complex: {error.cause}"
            raise SchemaError(cause, "simplify it") from error
        if known is not None:
            self._fit.add(known)

    def _argument_rules(self, name: str, tool: ToolSpec, options: CallOptions) -> list[str]:
        try:
            self._schemas.check(tool.schema, f"tool {tool.name!r}", arguments=True)
            found = sources(tool, options.turn) if options.turn and options.copies else {}
            rules = self.format.argument_rules(name, tool.schema, found, self._syntax)
            if len(rules) > MAX_RULES and found:  # without copied values most formats need one rule
                rules = self.format.argument_rules(name, tool.schema, {}, self._syntax)
            return rules
        except RecursionError as error:
            cause = f"tool {tool.name!r}: the schema at # is nested too deeply"
            raise SchemaError(cause, "simplify it") from error

    def _message_rules(self, options: CallOptions) -> list[str]:
        """Thought, calls and what stands around them; every call has an id of its own, which is forced."""
        opening, between, closing = (
            self._literal(parts) for parts in (self.format.opening, self.format.between, self.format.closing)
        )
        thinking = self._encoder.thinking if options.thought else None
        thought = "" if thinking is None else "thought?" if thinking[0] else "thought"
        lines = [f"start: {thought} {opening} call tail0 more0 {closing}"]
        calls = MAX_CALLS if options.parallel else 1
        for n in range(calls):
            tail = self.format.tail(_call_id(options.number, n))
            lines.append(f"tail{n}: {self._literal(tail) or EMPTY}")
            more = f" | {between} call tail{n + 1} more{n + 1}" if n + 1 < calls else ""
            lines.append(f"more{n}: {EMPTY}{more}")
        if thinking:
            before, after = (self._segments_literal(segments) for segments in thinking)
            end = json.dumps(f"\n{self.format.before_call}")
            # Where the end is written out it must not be able to begin within the thought: the lexer never looks back.
            words = "/(?s:.*)/" if isinstance(thinking[1][0], int) else "/[^<]*/"
            lines.append(f"thought: {before} thought_words {after} {end}")
            lines.append(f"thought_words[max_tokens={options.thought}]: {words}")
        return lines

    def _literal(self, parts: Sequence[str]) -> str:
        return self._segments_literal(self._encoder.segments(parts))

    @staticmethod
    def _segments_literal(segments: Segments) -> str:
        return " ".join(f"<[{s}]>" if isinstance(s, int) else json.dumps(s) for s in segments)

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
        """Refuse a schema that the grammar cannot express; see `SchemaCheck`."""
        self._schemas.check(schema, owner)

    def _grammar(self, text: str, closers: Closers | None = None) -> Grammar:
        import llguidance

        # The lexer takes neither DEL nor half a surrogate pair; the escape means the same.
        text = text.encode("utf-8", "replace").decode("utf-8").replace("\x7f", "\\u007f")
        matcher = llguidance.LLMatcher(self._ll_tokenizer, text, log_level=0)
        if matcher.is_error():
            raise SchemaError(
                f"the grammar does not compile: {matcher.get_error().splitlines()[0]}", "simplify it"
            )
        return Grammar(matcher, self._vocab_size, closers or self._closers)


def _call_id(number: int, n: int) -> str:
    """Of the ``n``-th call in a message; nine letters and digits, as Mistral has them."""
    return hashlib.sha256(f"{number}:{n}".encode()).hexdigest()[:9]


class _PlainTokenizer:
    """What llguidance tokenizes forced text with: ``<|im_end|>`` in an enum or a quote is text, not control."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Any, whole: Any, control: frozenset[int]) -> None:
        ids = range(whole.vocab_size)
        self.tokens = [whole.decode_bytes([token]) for token in ids]
        self.special_token_ids = [id for id in ids if id in control or whole.is_special_token(id)]
        self.eos_token_id, self.bos_token_id = whole.eos_token, None
        self._plain = without_added_tokens(tokenizer)

    def __call__(self, text: str) -> list[int]:
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids


class Grammar:
    """A `MaskProvider` of the decode loop: one use, one output."""

    WRAP_UP = 64
    """Tokens to spare, besides the shortest output, from which on it is looked whether everything has to be closed."""
    SPARE = 8
    """Tokens that are then kept beyond the shortest end, at least; those of the shortest output, if that is more: one
    more token may open something that has to be closed."""
    SHORTEST_AT_MOST = 256
    """Choices after which the search for the shortest output gives up."""

    def __init__(self, matcher: Any, vocab_size: int, closers: Closers) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._closers = closers
        self._wrap_up: int | None = None
        self._spare = self.SPARE
        self._count = 0
        """Tokens accepted."""
        self._left: tuple[int, int | None] = -1, None
        """At which count the shortest end was looked for, and its tokens."""
        self.cut: Cut = None
        self._masked = Masked(vocab_size)
        self._bits = np.zeros((vocab_size + 31) // 32, np.int32)

    @property
    def complete(self) -> bool:
        return bool(self._matcher.is_stopped())

    def mask(self, logits: torch.Tensor, remaining: int) -> torch.Tensor:
        """Forbid what the grammar does not allow; near the end of the budget only the best token is left, if what it
        opens still fits, or what closes.

        The result holds until the next call.
        """
        if not self._closing(remaining):
            return self._masked(logits, self._allowed(closing=False))
        allowed = self._allowed(closing=False)
        wanted = int(self._masked(logits, allowed).argmax())
        token = wanted
        if not self._fits(wanted, remaining):
            token = first_of(self._closers.among(allowed))  # as the shortest end was found
            c = self._closers
            if not has(c.quotes | c.brackets | c.ends, wanted):
                self.cut = "end" if has(c.ends, token) else "value"
        only = np.zeros(self._vocab_size, bool)
        only[token] = True
        return self._masked(logits, packed_bits(only))

    def permits(self, token: int, remaining: int) -> bool:
        """Whether `mask` leaves this token, and so the best of all stays the best."""
        return not self._closing(remaining) and self.allows([token]) == 1

    def _closing(self, remaining: int) -> bool:
        """Whether so little of the budget is left that everything must be closed."""
        if self._wrap_up is None:
            shortest = self._shortest() or 0
            self._wrap_up = shortest + min(self.WRAP_UP, max(remaining - shortest, 0) // 2)
            self._spare = max(self.SPARE, shortest)
        if remaining > self._wrap_up:
            return False
        if self._left[0] != self._count:
            self._left = self._count, self._shortest()
        return self._left[1] is None or remaining <= self._left[1] + self._spare

    def _fits(self, token: int, remaining: int) -> bool:
        """Whether the output can still be ended after a token."""
        trial = Grammar(self._matcher.deep_copy(), self._vocab_size, self._closers)
        trial.accept(token)
        used, rest = 1 + len(trial.forced()), trial._shortest()
        return rest is not None and used + rest < remaining

    def _allowed(self, *, closing: bool) -> Bits:
        """What may come next; the buffer is written anew by the next call."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._raise_on_error()
        return self._closers.among(self._bits) if closing else self._bits

    def _shortest(self) -> int | None:
        """Tokens of an output that closes whatever it can: what must be kept for a valid end; none if that is many."""
        trial = Grammar(self._matcher.deep_copy(), self._vocab_size, self._closers)
        tokens = 0
        for _ in range(self.SHORTEST_AT_MOST):
            if trial.complete:
                return tokens
            token = first_of(trial._allowed(closing=True))
            trial.accept(token)
            tokens += 1 + len(trial.forced())
        return None

    def try_out(self) -> None:
        """Walk through a short output once.

        Raises:
            ModelError: The lexer gave up on the way.
        """
        self.forced()
        self._shortest()

    def accept(self, token: int) -> None:
        self._count += 1
        self._matcher.consume_token(token)
        self._raise_on_error()

    def forced(self) -> list[int]:
        """Tokens that the grammar leaves no choice about; accepted already."""
        if self.complete:
            return []
        tokens: list[int] = self._matcher.compute_ff_tokens()
        if tokens:
            self._count += len(tokens)
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


@dataclass(frozen=True, slots=True)
class Closers:
    """Tokens that bring a JSON value to its end."""

    quotes: Bits
    brackets: Bits
    letter: int
    """A letter that begins no JSON literal: where it is allowed, a string is open and a bracket is only text."""
    ends: Bits
    """End-of-turn tokens; allowed only where the output may end."""

    @classmethod
    def of(cls, tokenizer: Any, vocab_size: int, eos_ids: Sequence[int] = ()) -> Closers:
        quotes, brackets, ends = np.zeros((3, vocab_size), bool)
        ends[list(eos_ids)] = True
        special = set(tokenizer.get_added_vocab().values())
        texts = tokenizer.batch_decode([[n] for n in range(min(vocab_size, len(tokenizer)))])
        for token, text in enumerate(texts):
            if token not in special and text and set(text) <= set('"}]'):
                (quotes if text[0] == '"' else brackets)[token] = True
        letters = (texts.index(letter) for letter in string.ascii_uppercase if letter in texts)
        return cls(packed_bits(quotes), packed_bits(brackets), next(letters, 0), packed_bits(ends))

    def ending_texts(self, token: int | None, tokenizer: Any, vocab_size: int) -> Closers:
        """The same where a text ends with ``token``, or without one with what begins by ``<``."""
        begins = [token] if token is not None else tokenizer.encode("<", add_special_tokens=False)[-1:]
        quotes = np.zeros(vocab_size, bool)
        quotes[begins] = True
        return replace(self, quotes=packed_bits(quotes))

    def among(self, allowed: Bits) -> Bits:
        """The allowed tokens that close something; all allowed ones where none does."""
        ending = allowed & self.ends
        if ending.any():
            return ending
        in_string = has(allowed, self.letter)
        for wanted in (self.quotes,) if in_string else (self.brackets, self.quotes):
            closing = allowed & wanted
            if closing.any():
                return closing
        return allowed
