"""The adapter that agentkit ships for smollm2-135m, made anew: data, training, and where the result lies.

    python training/make_adapter.py                  # everything; some three hours on two cores
    python training/make_adapter.py --scenes 200     # a smaller one, to look at
    python training/make_adapter.py --data-only      # only write the data

Training goes through the dialogues in stages (`STAGES`), each from where the one before has left off. A run that was
stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from calls import examples
from chat import SOURCES, replies
from jsonl import read_jsonl
from passages import Grouped, grouped_conversations, grouped_judgements
from written import grouped_written

from agentkit.__about__ import __version__
from agentkit.assets import asset_path
from agentkit.engine.peft_files import read_lora
from agentkit.engine.weights import load_weights
from agentkit.llm.encoding import ChatEncoder
from agentkit.training import loop
from agentkit.training.adapters import CARD, Adapter
from agentkit.training.data import IGNORED, Report, Row, Split, encode, load_chats
from agentkit.training.memory import HUGE_PAGES
from agentkit.training.methods import exported
from agentkit.training.plan import steps
from agentkit.training.settings import JobSettings, make_settings

MODEL = "smollm2-135m"
ROOT = Path(__file__).resolve().parent.parent
SEED = 6
WEIGHTS = "adapter_model.safetensors"
RUN = "run.json"
"""How the training went, for the record."""
MEAN_OF = 20
"""Steps that a value of its curve is the mean over."""
MADE = "settings.json"
"""What the adapter in a stage's folder was trained by; written last."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One pass over dialogues, from where the stage before has left off."""

    number: int
    share: int
    """Percent of the dialogues, by their groups; other ones in every stage."""
    fresh: int
    """Percent of as many judgements as there are, made anew for this stage."""
    written: int
    """Times that it goes through the written dialogues, with other tools beside theirs every time."""
    batch_size: int
    learning_rate: float
    ratio: float = 1.0
    """``loraplus_lr_ratio``."""

    def folder(self, build: Path) -> Path:
        """Its data, log, checkpoints and adapter."""
        return build / f"stage-{self.number}"


STAGES = (
    Stage(1, 55, 0, 0, 12, 8e-4, 4),
    Stage(2, 16, 140, 2, 24, 6e-4),
)
"""Half of them; then what was written dialogue by dialogue, and many judgements, each of which has a single token to be
learned by."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1300, help="sets of tools, with eight dialogues each")
    parser.add_argument("--judgements", type=int, default=6000, help="questions whether a passage tells")
    parser.add_argument("--conversations", type=int, default=600, help="questions answered from passages")
    parser.add_argument("--chats", type=int, default=1000, help="plain answers of the untuned model")
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build" / "adapter", help="data, checkpoints, log"
    )
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--data-only", action="store_true")
    options = parser.parse_args()
    if not HUGE_PAGES.keys() <= os.environ.keys():  # the C library looks at them as the process begins
        os.execve(sys.executable, [sys.executable, *sys.argv], {**HUGE_PAGES, **os.environ})
    before: Path | None = None
    for stage in STAGES:
        folder = stage.folder(options.build)
        folder.mkdir(parents=True, exist_ok=True)
        data = folder / "data.jsonl"
        print(f"{write(data, options, stage)} dialogues in {folder}", flush=True)
        settings = settings_of(folder, options, stage, before)
        if options.data_only or not is_trained(folder, settings):
            train(folder, options, stage, settings, before)
        before = None if options.data_only else folder / "adapter"
    if not options.data_only:
        finish(options.build)
    return 0


HELD_OUT_EVERY = 100
"""Of so many groups one is held out, to watch the training by: with all dialogues over the same tools, all questions
about a passage or the versions of a contrast pair, all answers to a prompt."""
JUDGEMENT_WEIGHT = 10.0
"""A judgement is one token, a call some forty."""
KEEP_WEIGHT = 2.0
"""Of plain conversation: divergences are small where losses are not."""


SERVED = {"reads": True, "decides": True, "evidence": {"values": 0.75, "calls": 0.75}}
"""What serving goes by; how far evidence counts was chosen on ``tests/data/messages.jsonl`` and the tuning half of
``tests/data/several.jsonl``."""


def write(path: Path, options: argparse.Namespace, stage: Stage = STAGES[0]) -> int:
    """The data of a stage; returns the number of dialogues."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for groups, example in dialogues(options, stage):
            split = split_of(groups)
            if split is not None:
                file.write(json.dumps({**example, "split": split}, ensure_ascii=False) + "\n")
                count += 1
    return count


def dialogues(options: argparse.Namespace, stage: Stage) -> Iterator[Grouped]:
    """The dialogues of a stage, with their groups; what is held out is the same in all of them, but that
    written dialogues are held out only where some are learned from."""
    for groups, example in grouped(options):
        drawn = zlib.crc32(f"{stage.number} {min(groups)}".encode()) % 100
        if drawn < stage.share or split_of(groups) == "validation":
            yield groups, example
    for groups, example in grouped_judgements(SEED + stage.number, options.judgements * stage.fresh // 100):
        if split_of(groups) == "train":
            yield groups, example
    for time in range(stage.written):
        for groups, example in grouped_written(SEED + stage.number + time):
            if time == 0 or split_of(groups) == "train":
                yield groups, example


def grouped(options: argparse.Namespace) -> Iterator[Grouped]:
    """Every dialogue with the groups that it belongs to."""
    tools = (example.to_json() for example in examples(SEED, options.scenes))
    kept = read_jsonl(chats(options))
    return itertools.chain(
        ((frozenset((json.dumps(example["tools"]),)), example) for example in tools),
        grouped_judgements(SEED, options.judgements),
        grouped_conversations(SEED, options.conversations),
        ((frozenset((example["messages"][0]["content"],)), example) for example in kept),
    )


def split_of(groups: frozenset[str]) -> Split | None:
    """Where a dialogue belongs; nowhere if only some of its passages are held out."""
    held_out = {zlib.crc32(group.encode()) % HELD_OUT_EVERY == 0 for group in groups}
    if len(held_out) > 1:
        return None
    return "validation" if held_out == {True} else "train"


def chats(options: argparse.Namespace) -> Path:
    """The untuned model's answers, which take some minutes and are written once for a build, until `SOURCES` change."""
    asked = hashlib.sha256(b"".join(file.read_bytes() for file in SOURCES)).hexdigest()
    path: Path = options.build / f"chats-{SEED}-{options.chats}-{asked[:8]}.jsonl"
    if not path.exists():
        unfinished = path.with_suffix(".part")
        with unfinished.open("w", encoding="utf-8") as file:
            for example in replies(SEED, options.chats):
                file.write(json.dumps(example, ensure_ascii=False) + "\n")
        unfinished.replace(path)
    return path


def weighted(rows: list[Row]) -> list[Row]:
    """Judgements weigh more, and so does what is kept."""

    def weight(row: Row) -> float:
        if row.keep:
            return KEEP_WEIGHT
        return JUDGEMENT_WEIGHT if sum(label != IGNORED for label in row.labels) <= 3 else 1.0

    return [replace(row, weight=weight(row)) for row in rows]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def settings_of(folder: Path, options: argparse.Namespace, stage: Stage, before: Path | None) -> JobSettings:
    """What a stage is trained by, the data and the adapter that it begins from among it."""
    data = folder / "data.jsonl"
    return make_settings(
        {
            "name": MODEL, "model_name": MODEL, "model_source": str(asset_path(MODEL)), "data_name": data.name,
            "data_sha256": digest(data), "start_sha256": digest(before / WEIGHTS) if before else "",
            "adapters_dir": folder, "device": "cpu", "epochs": 1, "batch_size": stage.batch_size,
            "batch_tokens": 16384, "max_length": 1792, "rank": options.rank, "alpha": 2 * options.rank,
            "learning_rate": stage.learning_rate, "loraplus_lr_ratio": stage.ratio, "warmup": 0.04,
            "seed": SEED + stage.number - 1,
        }
    )  # fmt: skip


def is_trained(folder: Path, settings: JobSettings) -> bool:
    """Whether a stage has been trained by these settings."""
    made = folder / MADE
    return made.exists() and made.read_text(encoding="utf-8") == settings.model_dump_json()


def train(
    folder: Path, options: argparse.Namespace, stage: Stage, settings: JobSettings, before: Path | None
) -> None:
    """One stage, from the adapter of the one before."""
    loaded = load_weights(settings.model_source, name=MODEL, device="cpu", quantize="none", trainable=True)
    encoder = ChatEncoder(loaded.tokenizer, loaded.eos_ids)
    rows, report = encode(load_chats(folder / "data.jsonl"), encoder, settings.max_length)
    rows = weighted(rows)
    plan = steps([row for row in rows if row.split == "train"], settings, Random(settings.seed))
    read = sum(len(packed.ids) for step in plan for packed in step)
    print(f"{report}; {read} tokens to be read in {len(plan)} steps", flush=True)
    if options.data_only:
        return
    (folder / MADE).unlink(missing_ok=True)
    for later in STAGES[stage.number :]:  # they would go on from another adapter
        shutil.rmtree(later.folder(options.build), ignore_errors=True)
    with (folder / "progress.jsonl").open("a", encoding="utf-8") as log:

        def note(progress: dict[str, Any]) -> None:
            log.write(json.dumps(progress) + "\n")
            log.flush()
            print(progress, flush=True)

        start = read_lora(before) if before else None
        kept = folder / "checkpoints"
        trained = loop.train(settings, loaded.model, rows, note, start=start, checkpoint_dir=kept)
    print(f"{trained.seconds:.0f} s; held out {trained.loss_before} to {trained.loss_after}")
    save(trained.model, folder / "adapter", MODEL)
    write_card(folder / "adapter", settings, report, trained, SERVED)
    (folder / MADE).write_text(settings.model_dump_json(), encoding="utf-8")


def finish(build: Path) -> None:
    """The last stage's adapter, with a card that tells of all of them."""
    folders = [stage.folder(build) / "adapter" for stage in STAGES]
    cards = [json.loads((folder / CARD).read_text(encoding="utf-8")) for folder in folders]
    summed = {
        key: sum(card[key] for card in cards) for key in ("examples", "duplicates", "cut", "epochs", "steps")
    }
    seconds = round(sum(card["seconds"] for card in cards), 1)
    # Losses are the last stage's: each holds out dialogues of its own.
    whole = {**cards[-1], **summed, "seconds": seconds}
    whole |= {"data_sha256": cards[0]["data_sha256"], **SERVED}
    shutil.copytree(folders[-1], build / "adapter", dirs_exist_ok=True)
    (build / "adapter" / CARD).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    run = {
        "seed": SEED, "seconds": seconds, "machine": machine(), "stages": [told(stage, build) for stage in STAGES]
    }  # fmt: skip
    (build / RUN).write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")


def told(stage: Stage, build: Path) -> dict[str, Any]:
    """What a stage went through and how its losses went."""
    card = json.loads((stage.folder(build) / "adapter" / CARD).read_text(encoding="utf-8"))
    values = [line["loss"] for line in progress(stage, build)]
    means = [round(fmean(values[n : n + MEAN_OF]), 4) for n in range(0, len(values), MEAN_OF)]
    kept = ("examples", "steps", "seconds", "loss_before", "loss_after")
    return {**asdict(stage), **{key: card[key] for key in kept}, "loss": means}


def progress(stage: Stage, build: Path) -> list[dict[str, Any]]:
    """What was noted of its steps; those that a resumed run went through again are there once, those of another not."""
    noted = read_jsonl(stage.folder(build) / "progress.jsonl")
    lines = {line["step"]: line for line in noted if line["steps"] == noted[-1]["steps"]}
    return [lines[step] for step in sorted(lines)]


def machine() -> dict[str, Any]:
    """What the speed of a training depends on; whether the processor multiplies matrices of bf16 (AMX) among it."""
    import torch

    return {
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "amx": bool(torch.cpu.get_capabilities().get("amx_bf16")),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def save(model: Any, folder: Path, base: str) -> None:
    """In PEFT's form, in bf16."""
    import torch
    from safetensors.torch import save_file

    config, weights = exported(model, base)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    halved = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
    save_file(halved, folder / WEIGHTS, metadata={"format": "pt"})


def write_card(
    folder: Path, settings: JobSettings, report: Report, trained: Any, served: Mapping[str, Any]
) -> None:
    """What `agentkit finetune list` tells of it, and what serving goes by."""
    made = Adapter(
        name=folder.name, path=folder, base=settings.model_name, data=settings.data_name,
        data_sha256=settings.data_sha256, examples=report.count,
        duplicates=report.duplicates, cut=report.cut, epochs=settings.epochs,
        steps=trained.steps, train_loss=round(trained.train_loss, 4), loss_before=round(trained.loss_before, 4),
        loss_after=round(trained.loss_after, 4), seconds=round(trained.seconds, 1),
        created=datetime.now(UTC).isoformat(timespec="seconds"), version=__version__, **served,
    )  # fmt: skip
    card = {key: value for key, value in made.to_json().items() if key not in ("name", "path")}
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
