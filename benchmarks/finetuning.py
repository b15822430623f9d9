"""Fine-tuning on tool traces: agentkit's training loop and TRL's SFTTrainer with its defaults, on this CPU or a GPU.

    python benchmarks/finetuning.py                       # prints a table, writes docs/benchmarks/finetuning.json
    python benchmarks/finetuning.py --traces shared       # the other set of traces; beside the first in that file
    python benchmarks/finetuning.py --device cuda         # on a GPU; writes docs/benchmarks/finetuning_gpu.json
    python benchmarks/finetuning.py --rows 16 --held-out 4 --out try.json    # a try

Both learn from the same token ids and labels, made by agentkit's encoder, with the same LoRA configuration, learning
rate, schedule, batch size, seed and passes. Each training is a process of its own; the sides take turns, round by
round. Afterwards one process measures the loss of all adapters over the same held-out traces, in fp32.

The traces come from the recipe of the shipped adapter (`training/calls.py`), in two sets: `shared`, as the recipe
makes them, where eight dialogues have one set of tools, which agentkit reads once; and `own`, where each dialogue has
tools of its own, as in a user's store of conversations. The held-out traces have other sets of tools than either.

TRL's defaults (1.16): fp32 weights under bf16 autocast, gradient checkpointing, 8 traces per step, each padded to the
longest of its step. Only what the comparison fixes is set otherwise, and `use_cpu`, without which it refuses to start;
`--tuned` adds TRL without its two costliest defaults: bf16 weights, no checkpointing.

What stays different: the order of the traces, and that transformers' warm-up begins at zero, agentkit's a step later.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from finetuning_sides import ALPHA, BATCH, LEARNING_RATE, MODEL, RANK, SEED, save_rows

if TYPE_CHECKING:
    from agentkit.training.data import Row

ROOT = Path(__file__).resolve().parent.parent
TRACES = {"shared": "eight dialogues per set of tools", "own": "own tools for each dialogue"}
SIDES = {"agentkit": "agentkit", "trl": "TRL, defaults", "tuned": "TRL, bf16 weights, no checkpointing"}
_RATES = {"agentkit": 700, "trl": 220, "tuned": 400}
"""Tokens a second to be expected of two cores, only to say beforehand about how long it takes."""


def traces(kind: str, first: int = 0) -> Iterator[dict[str, Any]]:
    """Dialogues with tools from the scene ``first`` on, without end."""
    sys.path.insert(0, str(ROOT / "training"))
    from calls import Scene
    from domains import load, load_together

    functions = load()
    together = load_together(functions)
    for number in count(first):
        made = Scene(functions, Random(f"{SEED}/{number}"), together).examples()
        for example in made if kind == "shared" else islice(made, 1):
            yield example.to_json()


def encoded(found: Iterator[dict[str, Any]], wanted: int, most: int, folder: Path) -> list[Row]:
    """So many distinct dialogues of at most ``most`` tokens, as the model is served."""
    from transformers import AutoTokenizer

    from agentkit.assets import asset_path
    from agentkit.llm.encoding import ChatEncoder
    from agentkit.training.data import encode, load_chats

    tokenizer = AutoTokenizer.from_pretrained(asset_path(MODEL))
    encoder = ChatEncoder(tokenizer, frozenset((tokenizer.eos_token_id,)))
    file = folder / "traces.jsonl"
    rows: list[Row] = []
    lines: list[str] = []
    while len(rows) < wanted:
        lines += [json.dumps(body) + "\n" for body in islice(found, max(200, wanted))]
        file.write_text("".join(lines), encoding="utf-8")
        rows, _ = encode(load_chats(file), encoder, most)
    return rows[:wanted]


def started(*arguments: object) -> Any:
    """Run a worker and return what it found."""
    script = Path(__file__).with_name("finetuning_sides.py")
    command = [sys.executable, str(script), *map(str, arguments)]
    from agentkit.training.memory import (
        HUGE_PAGES,  # as jobs are started; what it brings, it brings both sides
    )

    environment = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **HUGE_PAGES, **os.environ}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{arguments[0]} ended with {done.returncode}; see above")
    return json.loads(done.stdout.splitlines()[-1])


@dataclass
class Comparison:
    """One set of traces, learned by all sides in turns."""

    kind: str
    rows: list[Row]
    folder: Path

    def data(self) -> dict[str, Any]:
        """How much there is to learn from."""
        from agentkit.training.data import IGNORED
        from agentkit.training.packing import share

        return {
            "rows": len(self.rows),
            "tokens": sum(len(row.ids) for row in self.rows),
            "labels": sum(label != IGNORED for row in self.rows for label in row.labels),
            "read_once": sum(group.tokens for group in share(self.rows, None)),
        }

    def run(self, sides: list[str], rounds: int, most: int, held_out: Path, device: str) -> dict[str, Any]:
        """Speed, losses and memory of each side."""
        file = self.folder / f"{self.kind}.json"
        save_rows(self.rows, file)
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for turn in range(rounds):
            for side in sides if turn % 2 == 0 else sides[::-1]:
                out = self.folder / f"{self.kind}-{side}-{turn}"
                made = started(side, "--data", file, "--out", out, "--max-length", most, "--device", device)
                found[side].append(made)
                print(
                    f"{self.kind}, {side}: {made['seconds']:.0f} s, {made['steps']} steps",
                    file=sys.stderr,
                    flush=True,
                )
        adapters = [self.folder / f"{self.kind}-{side}-0" for side in sides]
        before, *after = started("losses", "--data", held_out, "--adapters", *adapters)
        data = self.data()
        body: dict[str, Any] = {**data, "loss_before": round(before, 4), "sides": {}}
        for side, loss in zip(sides, after, strict=True):
            body["sides"][side] = self._summary(found[side], data, loss)
        body["times"] = {
            side: round(
                statistics.median(
                    theirs["seconds"] / ours["seconds"]
                    for theirs, ours in zip(found[side], found["agentkit"], strict=True)
                ),
                2,
            )
            for side in sides
            if side != "agentkit"
        }
        return body

    @staticmethod
    def _summary(runs: list[dict[str, Any]], data: dict[str, Any], loss: float) -> dict[str, Any]:
        seconds = statistics.median(run["seconds"] for run in runs)
        return {
            "seconds": round(seconds, 1),
            "all_seconds": [round(run["seconds"], 1) for run in runs],
            "tokens_per_s": round(data["tokens"] / seconds, 1),
            "labels_per_s": round(data["labels"] / seconds, 1),
            "loss_after": round(loss, 4),
            "steps": runs[0]["steps"],
            "peak_bytes": max(run["peak_bytes"] for run in runs),
            "dtype": runs[0]["dtype"],
            "threads": runs[0]["threads"],
        }


def markdown(body: dict[str, Any]) -> str:
    """The result as a table."""
    lines = [
        "| traces | trained by | labels/s | tokens/s | training | held-out loss | peak memory | weights |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind, found in body["traces"].items():
        for side, row in found["sides"].items():
            lines.append(
                f"| {TRACES[kind]} | {SIDES[side]} | {row['labels_per_s']} | {row['tokens_per_s']} "
                f"| {row['seconds']:.0f} s | {found['loss_before']:.3f} → {row['loss_after']:.3f} "
                f"| {row['peak_bytes'] / 1e6:.0f} MB | {row['dtype'].removeprefix('torch.')} |"
            )
    return "\n".join(lines)


def expected(compared: list[Comparison], sides: list[str], rounds: int) -> float:
    """Minutes that it may take on two cores."""
    seconds = 0.0
    for one in compared:
        data = one.data()
        for side in sides:
            read = data["read_once"] if side == "agentkit" else data["tokens"]
            seconds += rounds * (30 + read / _RATES[side])
        seconds += 40 * (1 + len(sides))
    return seconds / 60


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--held-out", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1, help="trainings of each side on each set")
    parser.add_argument("--traces", choices=(*TRACES, "both"), default="own")
    parser.add_argument("--max-length", type=int, default=512, help="tokens of a trace, at most")
    parser.add_argument("--tuned", action="store_true", help="also TRL without its costliest defaults")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file in place of the one under docs/benchmarks")
    options = parser.parse_args()
    from machine import RESULTS, machine, write

    sides = [side for side in SIDES if side != "tuned" or options.tuned]
    kinds = list(TRACES) if options.traces == "both" else [options.traces]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compared = [
            Comparison(kind, encoded(traces(kind), options.rows, options.max_length, folder), folder)
            for kind in kinds
        ]
        held_out = folder / "held_out.json"
        save_rows(encoded(traces("own", 10**6), options.held_out, options.max_length, folder), held_out)
        if options.device == "cpu":
            minutes = expected(compared, sides, options.rounds)
            print(f"about {minutes:.0f} minutes on two cores without other work", file=sys.stderr, flush=True)
        body: dict[str, Any] = {
            "device": device_name(options.device),
            "machine": machine(),
            "model": MODEL,
            "rounds": options.rounds,
            "held_out": options.held_out,
            "max_length": options.max_length,
            "lora": {"rank": RANK, "alpha": ALPHA},
            "learning_rate": LEARNING_RATE,
            "batch": BATCH,
            "traces": {
                one.kind: one.run(sides, options.rounds, options.max_length, held_out, options.device)
                for one in compared
            },
        }
    print(markdown(body))
    for kind, found in body["traces"].items():
        for side, times in found["times"].items():
            print(f"\n{TRACES[kind]}: {times} times the useful tokens a second of {SIDES[side]}")
    if options.out:
        options.out.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    else:
        name = "finetuning.json" if options.device == "cpu" else "finetuning_gpu.json"
        write(name, beside_others(body, RESULTS / name))


def device_name(device: str) -> str:
    """What computed: the GPU's name, or the processor's instructions."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability()


def beside_others(body: dict[str, Any], path: Path) -> dict[str, Any]:
    """The result, with what the file holds of the other set of traces by the same machine under the same settings."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if not before or _settings(before) != _settings(body):
        return body
    found = {**before["traces"], **body["traces"]}
    return {**body, "traces": {kind: found[kind] for kind in TRACES if kind in found}}


def _settings(body: dict[str, Any]) -> dict[str, Any]:
    """All but what was found, and on which day."""
    machine = {key: value for key, value in body["machine"].items() if key != "date"}
    return {**body, "traces": None, "machine": machine}


if __name__ == "__main__":
    main()
