"""What every benchmark says about where it ran."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "benchmarks"
MEASURED = ("agentkit", "benchmarks", "knowledge", "prompts", "tests/data", "tools", "training")
"""What figures depend on; the results themselves change with every benchmark."""
PEERS = ("transformers", "llama-cpp-python", "smolagents", "bitsandbytes", "xgrammar", "txtai", "trl")


def machine() -> dict[str, Any]:
    """Commit and day, processor, threads and versions."""
    return {
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "amx": bool(torch.cpu.get_capabilities().get("amx_bf16")),
        "bf16_native": bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: version(name) for name in PEERS},
    }


def positive(text: str) -> int:
    """A number of rounds or cases from the command line: at least one, or there is nothing to report."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def commit() -> str:
    """The checkout's commit, and whether it is not quite that; empty where there is no git, or this is no checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        found = git("rev-parse", "--short", "HEAD")
        return f"{found} with changes" if git("status", "--porcelain", "--", *MEASURED) else found
    except (OSError, subprocess.CalledProcessError):
        return ""


def version(project: str) -> str:
    try:
        return metadata.version(project)
    except metadata.PackageNotFoundError:
        return "not installed"


def read_bandwidth(megabytes: int = 400, runs: int = 7) -> float:
    """Bytes a second that all threads together read from memory: the best of a few sums over a large buffer."""
    buffer = torch.ones(megabytes * 250_000)
    best = 0.0
    for _ in range(runs):
        started = time.perf_counter()
        buffer.sum()
        best = max(best, buffer.numel() * 4 / (time.perf_counter() - started))
    return best


def write(name: str, body: dict[str, Any]) -> None:
    """Keep a result under docs/benchmarks/."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / name).write_text(json.dumps({"machine": machine(), **body}, indent=1) + "\n", encoding="utf-8")
