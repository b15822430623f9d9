"""The adapter with which ``qwen2.5-coder-1.5b`` as reranker judges whether a passage states an answer, made anew.

    python training/make_judge.py                     # about three quarters of an hour on two cores
    python training/make_judge.py --judgements 400    # a smaller one, to look at

It learns from the judgements of `passages`, as the adapter of `make_adapter` does among other things; and then, in
smaller steps, from pairs of short passages whose questions ask for what one of them only seems to state. A run that was
stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from make_adapter import ROOT, SEED, WEIGHTS, digest, save, split_of, write_card
from passages import Grouped, grouped_judgements, grouped_near

from agentkit.assets import asset_path
from agentkit.engine.peft_files import read_lora
from agentkit.engine.weights import load_weights
from agentkit.llm.encoding import ChatEncoder
from agentkit.training import loop
from agentkit.training.adapters import CARD
from agentkit.training.data import encode, load_chats
from agentkit.training.memory import HUGE_PAGES
from agentkit.training.plan import steps
from agentkit.training.settings import JobSettings, make_settings

MODEL = "qwen2.5-coder-1.5b"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--judgements", type=int, default=5000, help="questions whether a passage tells")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "judge", help="data, checkpoints, log")
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--model", default=MODEL, help="an embedded chat model")
    options = parser.parse_args()
    if not HUGE_PAGES.keys() <= os.environ.keys():  # the C library looks at them as the process begins
        os.execve(sys.executable, [sys.executable, *sys.argv], {**HUGE_PAGES, **os.environ})
    passes = (
        (grouped_judgements(SEED, options.judgements), 3e-4),
        (grouped_near(SEED), 1.5e-4),
    )
    before: Path | None = None
    for number, (examples, rate) in enumerate(passes, 1):
        folder = options.build / f"pass-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "data.jsonl", examples)
        if not (folder / "adapter" / CARD).exists():
            train(folder, settings_of(options, folder, rate, before), before)
        before = folder / "adapter"
    return 0


def write(path: Path, examples: Iterable[Grouped]) -> None:
    """The data of a pass."""
    with path.open("w", encoding="utf-8") as file:
        for groups, example in examples:
            split = split_of(groups)
            if split is not None:
                file.write(json.dumps({**example, "split": split}, ensure_ascii=False) + "\n")


def settings_of(options: argparse.Namespace, folder: Path, rate: float, before: Path | None) -> JobSettings:
    """What a pass is trained by, the data and the adapter that it begins from among it."""
    data = folder / "data.jsonl"
    return make_settings(
        {
            "name": options.model, "model_name": options.model, "model_source": str(asset_path(options.model)),
            "data_name": data.name, "data_sha256": digest(data),
            "start_sha256": digest(before / WEIGHTS) if before else "", "adapters_dir": folder,
            "device": "cpu", "epochs": 1, "batch_size": 24, "batch_tokens": 8192, "max_length": 1024,
            "rank": options.rank, "alpha": 2 * options.rank, "learning_rate": rate, "warmup": 0.08, "seed": SEED,
        }
    )  # fmt: skip


def train(folder: Path, settings: JobSettings, before: Path | None) -> None:
    """One pass, from the adapter of the one before."""
    loaded = load_weights(
        settings.model_source, name=settings.model_name, device="cpu", quantize="none", trainable=True
    )
    encoder = ChatEncoder(loaded.tokenizer, loaded.eos_ids)
    rows, report = encode(load_chats(folder / "data.jsonl"), encoder, settings.max_length)
    plan = steps([row for row in rows if row.split == "train"], settings, Random(settings.seed))
    read = sum(len(packed.ids) for step in plan for packed in step)
    print(f"{report}; {read} tokens to be read in {len(plan)} steps", flush=True)
    with (folder / "progress.jsonl").open("a", encoding="utf-8") as log:

        def note(progress: dict[str, Any]) -> None:
            log.write(json.dumps(progress) + "\n")
            log.flush()
            print(progress, flush=True)

        start = read_lora(before) if before else None
        kept = folder / "checkpoints"
        trained = loop.train(settings, loaded.model, rows, note, start=start, checkpoint_dir=kept)
    print(f"{trained.seconds:.0f} s; held out {trained.loss_before} to {trained.loss_after}")
    save(trained.model, folder / "adapter", settings.model_name)
    write_card(folder / "adapter", settings, report, trained, {"reads": True})


if __name__ == "__main__":
    sys.exit(main())
