"""The adapter with which ``qwen2.5-coder-1.5b`` as reranker judges whether a passage states an answer, made anew.

    python training/make_judge.py                     # about half an hour on two cores
    python training/make_judge.py --judgements 400    # a smaller one, to look at

It learns from the judgements of `passages`, as the adapter of `make_adapter` does among other things. A run that was
stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from random import Random
from typing import Any

from make_adapter import ROOT, SEED, digest, save, split_of, write_card
from passages import grouped_judgements

from agentkit.assets import asset_path
from agentkit.engine.weights import load_weights
from agentkit.llm.encoding import ChatEncoder
from agentkit.training import loop
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
    options.build.mkdir(parents=True, exist_ok=True)
    data = options.build / "data.jsonl"
    with data.open("w", encoding="utf-8") as file:
        for groups, example in grouped_judgements(SEED, options.judgements):
            split = split_of(groups)
            if split is not None:
                file.write(json.dumps({**example, "split": split}, ensure_ascii=False) + "\n")
    train(options.build, data, settings_of(options, data))
    return 0


def settings_of(options: argparse.Namespace, data: Path) -> JobSettings:
    """What it is trained by, the data among it."""
    return make_settings(
        {
            "name": options.model, "model_name": options.model, "model_source": str(asset_path(options.model)),
            "data_name": data.name, "data_sha256": digest(data), "start_sha256": "", "adapters_dir": options.build,
            "device": "cpu", "epochs": 1, "batch_size": 24, "batch_tokens": 8192, "max_length": 1024,
            "rank": options.rank, "alpha": 2 * options.rank, "learning_rate": 3e-4, "warmup": 0.08, "seed": SEED,
        }
    )  # fmt: skip


def train(build: Path, data: Path, settings: JobSettings) -> None:
    """One pass; the adapter lies in ``adapter`` under ``build`` then."""
    loaded = load_weights(
        settings.model_source, name=settings.model_name, device="cpu", quantize="none", trainable=True
    )
    encoder = ChatEncoder(loaded.tokenizer, loaded.eos_ids)
    rows, report = encode(load_chats(data), encoder, settings.max_length)
    plan = steps([row for row in rows if row.split == "train"], settings, Random(settings.seed))
    read = sum(len(packed.ids) for step in plan for packed in step)
    print(f"{report}; {read} tokens to be read in {len(plan)} steps", flush=True)
    with (build / "progress.jsonl").open("a", encoding="utf-8") as log:

        def note(progress: dict[str, Any]) -> None:
            log.write(json.dumps(progress) + "\n")
            log.flush()
            print(progress, flush=True)

        trained = loop.train(settings, loaded.model, rows, note, checkpoint_dir=build / "checkpoints")
    print(f"{trained.seconds:.0f} s; held out {trained.loss_before} to {trained.loss_after}")
    save(trained.model, build / "adapter", settings.model_name)
    write_card(build / "adapter", settings, report, trained, {"reads": True})


if __name__ == "__main__":
    sys.exit(main())
