"""Fit and report the router on the labelled turns of tests/data/routing.jsonl and knowledge_questions.jsonl.

    python benchmarks/tune_routing.py            # report only
    python benchmarks/tune_routing.py --fit      # fit on the tuning half, write agentkit/llm/routing.json

The reporting halves take no part in fitting. Abstention is the router's too: a question counts as right if it is
sent to the knowledge base exactly where the knowledge base answers it.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from agentkit.build import open_project
from agentkit.llm import routing
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


def collect(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the features of every option to every turn."""
    with open_project(ROOT, {}) as workspace:
        knowledge = workspace.ready_knowledge()
        router: EmbeddingRouter = workspace.router
        specs = workspace.registry.specs()
        for turn in turns:
            passages = knowledge.search(turn["text"])
            answerable = knowledge.answerable(turn["text"], passages)
            turn["features"] = router.features(turn["text"], specs, answerable)
    return turns


def fit(turns: list[dict[str, Any]], decay: float = 0.001, steps: int = 300) -> dict[str, Features]:
    """Multinomial logistic regression with weights shared by all tools, L2-regularized."""
    names: dict[str, list[str]] = {}
    for option, values in turns[0]["features"].items():
        names.setdefault(kind_of(option), ["bias", *values])
    weights = {kind: torch.zeros(len(columns), requires_grad=True) for kind, columns in names.items()}
    optimizer = torch.optim.LBFGS(list(weights.values()), max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        total = torch.zeros(())
        for turn in turns:
            options = list(turn["features"])
            rows = [torch.tensor([1.0, *turn["features"][o].values()]) for o in options]
            scores = torch.stack([weights[kind_of(o)] @ row for o, row in zip(options, rows, strict=True)])
            total = total - scores.log_softmax(0)[options.index(turn["route"])]
        return total / len(turns) + decay * sum((w[1:] ** 2).sum() for w in weights.values())

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
    parser.add_argument("--fit", action="store_true", help="fit on the tuning half and write the weights")
    parser.add_argument("--errors", action="store_true", help="print wrong turns of the tuning half")
    parser.add_argument("--model", action="store_true", help="report the chat model's own choice instead")
    parser.add_argument("--summary", type=Path, help="write the reporting half's figures as JSON too")
    options = parser.parse_args()
    if options.model:
        ask_model([turn for turn in read(TURNS) if turn["split"] == "report"])
        return
    turns, asked = collect(read(TURNS)), collect(questions())
    tune = [turn for turn in turns if turn["split"] == "tune"]
    tune_asked = [turn for turn in asked if turn["split"] == "tune"]
    if options.fit:
        together = [*tune, *tune_asked]
        body = {"source": "benchmarks/tune_routing.py", "turns": len(together), "weights": fit(together)}
        WEIGHTS.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
        routing.load_weights.cache_clear()
    weights = routing.load_weights()
    print("tuning half")
    report(weights, tune, errors=options.errors)
    abstention(weights, tune_asked)
    print("reporting half")
    rows = report(weights, [turn for turn in turns if turn["split"] == "report"], errors=False)
    rows["abstention"] = abstention(weights, [turn for turn in asked if turn["split"] == "report"])
    print("stress set: near misses, taken for neither fitting nor reporting")
    rows["abstention, stress set"] = abstention(
        weights, [turn for turn in asked if turn["split"] == "stress"]
    )
    if options.summary is not None:
        options.summary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
