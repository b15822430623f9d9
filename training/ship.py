"""Put what `make_adapter.py` has made in the place of the adapter that ships, and fit what is fitted over it.

python training/ship.py [--build DIR]

The adapter goes to ``agentkit/_adapters``, the course of its training to ``docs/benchmarks/recipe.json``. Then the
weights of abstention and of the router are fitted to its judgements, in this order, as the router asks abstention.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from make_adapter import MODEL, ROOT, RUN

from agentkit.engine.peft_files import CONFIG, WEIGHTS
from agentkit.training.adapters import CARD, SHIPPED

SHIP = ("--fit", "--adapter", "shipped")
FITS = (
    ("tune_abstention.py", *SHIP),
    ("tune_abstention.py", *SHIP, "--embedder", "mpnet"),
    ("tune_routing.py", *SHIP, "--summary", "docs/benchmarks/routing.json"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "adapter")
    build: Path = parser.parse_args().build
    for name in (CONFIG, WEIGHTS, CARD):
        shutil.copyfile(build / "adapter" / name, SHIPPED / MODEL / name)
    shutil.copyfile(build / RUN, ROOT / "docs" / "benchmarks" / "recipe.json")
    for script, *arguments in FITS:
        print(script, *arguments, flush=True)
        subprocess.run([sys.executable, f"benchmarks/{script}", *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
