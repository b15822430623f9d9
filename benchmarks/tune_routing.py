"""Fit and report the router on the labelled turns of tests/data/routing.jsonl and knowledge_questions.jsonl.

    python benchmarks/tune_routing.py            # report only
    python benchmarks/tune_routing.py --fit      # fit on the tuning halves, write agentkit/llm/routing.json
    python benchmarks/tune_routing.py --adapter auto --summary docs/benchmarks/routing.json

The reporting halves take no part in fitting, and neither does a turn that asks what one of their questions asks
(``same_as``). The stress set of near misses is fitted on. Abstention is the router's too: a question counts as right
if it is sent to the knowledge base exactly where the knowledge base answers it.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from machine import machine
from tune_abstention import fitted_on, kind, mix, trains, weights_digest

from agentkit.build import DEFAULT_MODEL, adapter_folder, open_project
from agentkit.llm import routing
from agentkit.llm.adapters import AdapterFolder
from agentkit.llm.reading import reader_of
from agentkit.llm.routing import EmbeddingRouter, Features

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "agentkit/llm/routing.json"
TURNS = ROOT / "tests/data/routing.jsonl"
QUESTIONS = ROOT / "tests/data/knowledge_questions.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def questions() -> list[dict[str, Any]]:
    """The knowledge questions as turns."""
    rows = read(QUESTIONS)
    return [
        {**row, "text": row["question"], "route": "knowledge" if row["document"] else "decline"}
        for row in rows
    ]


def kind_of(option: str) -> str:
    return option if option in ("knowledge", "chat", "decline") else "tool"


def collect(adapter: str, *files: list[dict[str, Any]]) -> None:
    """Add the features of every option to every turn, as the agent has them with this adapter."""
    with open_project(ROOT, {"adapter": adapter}) as workspace:
        reader = reader_of(workspace.model)
        knowledge = workspace.ready_knowledge()
        router: EmbeddingRouter = workspace.router
        specs = workspace.registry.specs()
        for turn in itertools.chain(*files):
            passages = knowledge.search(turn["text"])
            answerable = knowledge.answerable(turn["text"], passages, reader)
            turn["features"] = router.features(turn["text"], specs, answerable)


def importance(turns: list[dict[str, Any]]) -> list[float]:
    """Knowledge questions weigh as much together as the other turns do, in the mix that customers ask them."""
    asked = [turn for turn in turns if "question" in turn]
    shares = iter(mix([kind(turn) for turn in asked]))
    scale = (len(turns) - len(asked)) / len(asked)
    return [scale * float(next(shares)) if "question" in turn else 1.0 for turn in turns]


def fit(turns: list[dict[str, Any]], decay: float = 0.001, steps: int = 300) -> dict[str, Features]:
    """Multinomial logistic regression with weights shared by all tools, L2-regularized."""
    options = list(turns[0]["features"])
    names = {kind_of(option): ["bias", *turns[0]["features"][option]] for option in options}
    weights = {kind: torch.zeros(len(columns), requires_grad=True) for kind, columns in names.items()}
    optimizer = torch.optim.LBFGS(list(weights.values()), max_iter=steps, line_search_fn="strong_wolfe")
    inputs = {o: torch.tensor([[1.0, *turn["features"][o].values()] for turn in turns]) for o in options}
    truth = torch.tensor([options.index(turn["route"]) for turn in turns])
    shares = torch.tensor(importance(turns))

    def loss() -> torch.Tensor:
        scores = torch.stack([inputs[o] @ weights[kind_of(o)] for o in options], 1)
        each = torch.nn.functional.cross_entropy(scores, truth, reduction="none")
        return (shares * each).sum() / shares.sum() + decay * sum(
            (w[1:] ** 2).sum() for w in weights.values()
        )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return {
        kind: dict(zip(columns, (round(w, 4) for w in weights[kind].tolist()), strict=True))
        for kind, columns in names.items()
    }


def fitted(turns: list[dict[str, Any]], adapter: AdapterFolder | None) -> dict[str, Any]:
    """What ``routing.json`` holds: the features come from the adapter's judgements, so the fit is for these weights."""
    of = {"adapter_sha256": weights_digest(adapter.path)} if adapter else {}
    told = {"source": "benchmarks/tune_routing.py", "adapter": name_of(adapter), **of, "turns": len(turns)}
    return {**told, "weights": fit(turns)}


def name_of(adapter: AdapterFolder | None) -> str:
    return adapter.name if adapter else "none"


def cross_validate(turns: list[dict[str, Any]], folds: int = 10) -> dict[str, str]:
    """Print and return what weights fitted without a turn's fold make of it."""
    found: dict[str, list[bool]] = {}
    for fold in range(folds):
        weights = fit([turn for n, turn in enumerate(turns) if n % folds != fold])
        for turn in turns[fold::folds]:
            guess = predict(weights, turn)
            if "question" in turn:
                found.setdefault(kind(turn), []).append(
                    (guess == "knowledge") == (kind(turn) == "answerable")
                )
            else:
                found.setdefault("other turns", []).append(guess == turn["route"])
    rows = {name: f"{sum(hits)} of {len(hits)}" for name, hits in found.items()}
    print("cross-validated", *(f"  {name:<12}{text:>10}" for name, text in rows.items()), sep="\n")
    return rows


def predict(weights: dict[str, Features], turn: dict[str, Any]) -> str:
    scores = {o: routing._score(weights[kind_of(o)], values) for o, values in turn["features"].items()}
    return max(scores, key=lambda option: scores[option])


def report(weights: dict[str, Features], turns: list[dict[str, Any]], *, errors: bool) -> dict[str, str]:
    """Print accuracy per class and return it."""
    right, total = Counter[str](), Counter[str]()
    for turn in turns:
        guess = predict(weights, turn)
        total[turn["route"]] += 1
        right[turn["route"]] += guess == turn["route"]
        if errors and guess != turn["route"]:
            print(f"    {turn['id']} {turn['route']} -> {guess}: {turn['text'][:100]!r}")
    for route in sorted(total):
        print(f"  {route:<12}{right[route]:>3} of {total[route]}")
    accuracy = sum(right.values()) / sum(total.values())
    overall = f"{sum(right.values())} of {sum(total.values())} = {accuracy:.3f}"
    print(f"  {'all':<12}{overall:>3}")
    return {**{route: f"{right[route]} of {total[route]}" for route in sorted(total)}, "all": overall}


def abstention(weights: dict[str, Features], asked: list[dict[str, Any]]) -> str:
    """Print and return how often a question is answered from the knowledge base just where it can be."""
    answered = [(predict(weights, turn) == "knowledge", turn["route"] == "knowledge") for turn in asked]
    wrongly_answered = sum(guess and not truth for guess, truth in answered)
    wrongly_declined = sum(truth and not guess for guess, truth in answered)
    right = len(answered) - wrongly_answered - wrongly_declined
    text = (
        f"{right} of {len(answered)} = {right / len(answered):.3f} "
        f"(answered without evidence {wrongly_answered}, declined with evidence {wrongly_declined})"
    )
    print(f"  abstention  {text}")
    return text


def ask_model(turns: list[dict[str, Any]]) -> None:
    """The chat model's own choice among the same options, decoded under a grammar of their names."""
    right = Counter[str]()
    with open_project(ROOT, {"adapter": "none", "agent.routing": "model"}) as workspace:
        lines = [f"{spec.name}: {spec.description}" for spec in workspace.registry.specs()]
        lines += [
            "knowledge: Answer a question about the shop from its help centre.",
            "chat: Make small talk.",
            "decline: Say that this cannot be answered.",
        ]
        system = "Choose what the customer's message needs. Answer with one word.\n" + "\n".join(lines)
        names = [line.split(":")[0] for line in lines]
        for turn in turns:
            messages = [{"role": "system", "content": system}, {"role": "user", "content": turn["text"]}]
            right[turn["route"]] += workspace.model.chat(messages, choices=names).text == turn["route"]
    print(
        f"the chat model alone: {sum(right.values())} of {len(turns)} = {sum(right.values()) / len(turns):.3f}"
    )
    print(f"  {dict(right)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fit", action="store_true", help="fit on the tuning halves and write the weights")
    parser.add_argument("--errors", action="store_true", help="print wrong turns of the tuning half")
    parser.add_argument("--model", action="store_true", help="report the chat model's own choice instead")
    parser.add_argument("--tuning", action="store_true", help="leave the reporting half alone")
    parser.add_argument("--summary", type=Path, help="write the reporting half's figures as JSON too")
    parser.add_argument(
        "--adapter",
        default="none",
        help="as the agent runs with it, if it reads; auto is what it runs with by default",
    )
    options = parser.parse_args()
    if options.model:
        ask_model([turn for turn in read(TURNS) if turn["split"] == "report"])
        return
    turns, asked = read(TURNS), questions()
    adapter = adapter_folder(options.adapter, DEFAULT_MODEL)
    collect(options.adapter, turns, asked)
    tune, tune_asked = [turn for turn in turns if trains(turn)], [turn for turn in asked if trains(turn)]
    if options.fit:
        together = [*tune, *tune_asked]
        WEIGHTS.write_text(json.dumps(fitted(together, adapter), indent=1) + "\n", encoding="utf-8")
        routing.load_weights.cache_clear()
    weights = routing.load_weights()
    validated = cross_validate([*tune, *tune_asked])
    print("tuning halves and stress set")
    report(weights, tune, errors=options.errors)
    abstention(weights, tune_asked)
    if options.tuning:
        return
    print("reporting half")
    rows = report(weights, [turn for turn in turns if turn["split"] == "report"], errors=False)
    rows["abstention"] = abstention(weights, [turn for turn in asked if turn["split"] == "report"])
    for name, own in (("stress set", [t for t in asked if t["split"] == "stress"]), ("all questions", asked)):
        print(name)
        rows[f"abstention, {name} ({sum(map(trains, own))} of {len(own)} fitted on)"] = abstention(
            weights, own
        )
    rows.update({f"cross-validated, {name}": text for name, text in validated.items()})
    if options.summary is not None:
        told = {"machine": machine(), "adapter": name_of(adapter), "abstention_fitted_on": fitted_on()}
        body = {**told, **rows}
        options.summary.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
