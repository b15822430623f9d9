"""Put what `make_adapter.py` has made in the place of the adapter that ships, and fit what is fitted over it.

python training/ship.py [--build DIR]

The adapter goes to ``agentkit/_adapters``, the course of its training to ``docs/benchmarks/recipe.json`` and
``docs/images/recipe.png`` (matplotlib, of the extra ``eval``). Then the
weights of abstention and of the router are fitted to its judgements, in this order, as the router asks abstention.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from make_adapter import MODEL, ROOT, RUN, STAGES, progress

from agentkit.engine.peft_files import CONFIG, WEIGHTS
from agentkit.training.adapters import CARD, SHIPPED
from agentkit.training.curves import draw_curves

SHIP = ("--fit", "--adapter", "shipped")
FITS = (
    ("tune_abstention.py", *SHIP),
    ("tune_abstention.py", *SHIP, "--embedder", "mpnet"),
    ("tune_routing.py", *SHIP, "--summary", "docs/benchmarks/routing.json"),
)


def whole(build: Path) -> list[dict[str, Any]]:
    """The steps of all stages, numbered through."""
    lines = itertools.chain.from_iterable(progress(stage, build) for stage in STAGES)
    return [{**line, "step": number} for number, line in enumerate(lines, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "adapter")
    build: Path = parser.parse_args().build
    for name in (CONFIG, WEIGHTS, CARD):
        shutil.copyfile(build / "adapter" / name, SHIPPED / MODEL / name)
    shutil.copyfile(build / RUN, ROOT / "docs" / "benchmarks" / "recipe.json")
    draw_curves(whole(build), ROOT / "docs" / "images" / "recipe.png")
    for script, *arguments in FITS:
        print(script, *arguments, flush=True)
        subprocess.run([sys.executable, f"benchmarks/{script}", *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
