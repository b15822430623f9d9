"""The engines of `bfcl.py`, each with the same prompts, greedy: agentkit's grammar, transformers, xgrammar.

The weights are those of one GGUF file of 4 bits: agentkit holds its very levels, transformers has them in bf16.
Every engine is a function of the model, the cases, the category's limits and a batch size; it yields an `Outcome` a
case.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from agentkit.assets import asset_path
from agentkit.evaluation.calls import Call, parse
from agentkit.llm.formats.generic import FORMAT
from agentkit.llm.grammar import Grammar
from agentkit.llm.guide import Guided
from agentkit.messages import ToolSpec

MODEL = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A case as an engine sees it."""

    id: str
    messages: tuple[dict[str, Any], ...]
    tools: list[ToolSpec]
    parallel: bool
    """Several calls are wanted: told from the category, as no request says it; only grammars go by it."""
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an engine made of a case."""

    id: str
    calls: list[Call]
    passes: int
    """Forward passes in which this case took part."""
    seconds: float
    """In a batch its share of the batch's time."""
    cut: bool
    """The token budget ended before the answer did."""
    masks: list[float] = field(default_factory=list)
    """Seconds of each mask, computed and applied."""
    span: float = 0.0
    """Seconds from the beginning of the first mask to that of the last: whole decode steps."""


class Watch:
    """Times every call of a mask function."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.seconds: list[float] = []
        self._inside = False

    def around(self, mask: Callable[..., Any]) -> Callable[..., Any]:
        """``mask``, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:  # of another mask, which counts it
                return mask(*args, **kwargs)
            started = time.perf_counter()
            self._inside = True
            try:
                made = mask(*args, **kwargs)
            finally:
                self._inside = False
            self.starts.append(started)
            self.seconds.append(time.perf_counter() - started)
            return made

        return timed

    def take(self) -> dict[str, Any]:
        """The masks since the last time, as fields of an `Outcome`."""
        span = self.starts[-1] - self.starts[0] if self.starts else 0.0
        taken = {"masks": self.seconds, "span": span}
        self.starts, self.seconds = [], []
        return taken


def agentkit_grammar(model: Any, prompts: list[Prompt], *, evidence: bool) -> Iterator[Outcome]:
    """agentkit's engine, one call of `chat` a case; without evidence there is no turn to take arguments from."""
    watch = Watch()
    timed = [
        (owner, name, getattr(owner, name)) for owner in (Guided, Grammar) for name in ("mask", "permits")
    ]
    for owner, name, method in timed:
        setattr(owner, name, watch.around(method))
    try:
        for prompt in prompts:
            several = {"parallel_tool_calls": True} if prompt.parallel else {}
            started = time.perf_counter()
            reply = model.chat(
                prompt.messages,
                tools=prompt.tools,
                tool_choice="required",
                max_new_tokens=prompt.max_tokens,
                turn=None if evidence else "",
                **several,
            )
            seconds = time.perf_counter() - started
            calls = [(call.name, call.arguments) for call in reply.tool_calls]
            cut = reply.finish_reason == "length"
            yield Outcome(prompt.id, calls, reply.usage.forward_passes, seconds, cut, **watch.take())
    finally:
        for owner, name, method in timed:
            setattr(owner, name, method)


class Transformers:
    """Plain `generate` of transformers in batches; prompts of like length together, padded on the left."""

    def __init__(self, model: Any) -> None:
        self.model = model
        """agentkit's, for its prompts and tokenizer."""
        self.peer = AutoModelForCausalLM.from_pretrained(asset_path(MODEL), dtype=torch.bfloat16).eval()
        self.end = model.tokenizer.eos_token_id

    def run(self, prompts: list[Prompt], batch: int) -> Iterator[Outcome]:
        """An outcome a case, in order of the prompts' length."""
        rendered = {prompt.id: self.model.render(prompt.messages, prompt.tools) for prompt in prompts}
        order = sorted(prompts, key=lambda prompt: len(rendered[prompt.id]))
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            yield from self._batch(chosen, [rendered[prompt.id] for prompt in chosen])

    def _batch(self, prompts: list[Prompt], rendered: list[list[int]]) -> Iterator[Outcome]:
        width = max(len(ids) for ids in rendered)
        ids = torch.tensor([[self.end] * (width - len(row)) + row for row in rendered])
        attention = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rendered])
        started = time.perf_counter()
        options = self.options(prompts)
        out = self.peer.generate(
            input_ids=ids,
            attention_mask=attention,
            max_new_tokens=prompts[0].max_tokens,
            do_sample=False,
            eos_token_id=self.end,
            pad_token_id=self.end,
            **options,
        )
        seconds = (time.perf_counter() - started) / len(prompts)
        taken = self.taken(len(prompts))
        for prompt, row in zip(prompts, out[:, width:].tolist(), strict=True):
            ended = self.end in row
            length = row.index(self.end) + 1 if ended else len(row)
            text = self.model.tokenizer.decode(row[:length], skip_special_tokens=True)
            yield Outcome(prompt.id, list(parse(text)), length, seconds, not ended, **taken)

    def options(self, prompts: list[Prompt]) -> dict[str, Any]:
        """What else `generate` is given for a batch."""
        return {}

    def taken(self, size: int) -> dict[str, Any]:
        """Mask times of the batch just generated, as fields of an `Outcome`."""
        return {}


class XGrammar(Transformers):
    """The same under xgrammar's own logits processor; masks are only timed in batches of one."""

    def __init__(self, model: Any) -> None:
        import xgrammar

        super().__init__(model)
        info = xgrammar.TokenizerInfo.from_huggingface(
            model.tokenizer, vocab_size=self.peer.config.vocab_size, stop_token_ids=[self.end]
        )
        self._compiler = xgrammar.GrammarCompiler(info)
        self._watch = Watch()

    def options(self, prompts: list[Prompt]) -> dict[str, Any]:
        from xgrammar.contrib.hf import LogitsProcessor

        processor = LogitsProcessor(
            [self._compiler.compile_structural_tag(structural_tag(prompt)) for prompt in prompts]
        )
        return {"logits_processor": [self._watch.around(processor)]}

    def taken(self, size: int) -> dict[str, Any]:
        taken = self._watch.take()
        return taken if size == 1 else {}


def structural_tag(prompt: Prompt) -> dict[str, Any]:
    """The call syntax of `agentkit.llm.formats.generic` for xgrammar, with the separators of ``json.dumps``."""
    import xgrammar

    tags = []
    for tool in prompt.tools:
        grammar = xgrammar.Grammar.from_json_schema(json.dumps(tool.parameters), any_whitespace=False)
        tags.append(
            {
                "type": "tag",
                "begin": "".join(FORMAT.head(tool.name)),
                "content": {"type": "grammar", "grammar": str(grammar)},
                "end": "".join(FORMAT.tail("")),
            }
        )
    calls = {
        "type": "tags_with_separator",
        "tags": tags,
        "separator": "\n",
        "at_least_one": True,
        "stop_after_first": not prompt.parallel,
    }
    return {"type": "structural_tag", "format": calls}


Engine = Callable[[list[Prompt], int], Iterator[Outcome]]


def engine(mode: str, model: Any) -> Engine:
    """The engine of a mode: grammar, bare (grammar without evidence), unconstrained or xgrammar."""
    if mode in ("grammar", "bare"):
        return lambda prompts, batch: agentkit_grammar(model, prompts, evidence=mode == "grammar")
    return (XGrammar if mode == "xgrammar" else Transformers)(model).run
