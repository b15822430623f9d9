"""How likely the embedded model finds written answers to plain prompts, with adapters and without.

python benchmarks/perplexity.py              # prints the result, writes docs/benchmarks/perplexity.json
python benchmarks/perplexity.py none shipped warm-wishes
"""

from __future__ import annotations

import argparse
from typing import Any

from machine import ROOT, write

from agentkit import load_model
from agentkit.evaluation.perplexity import read_references
from agentkit.evaluation.suite import perplexities

DATA = ROOT / "tests" / "data" / "plain_chat.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("adapters", nargs="*", default=["none", "shipped"])
    references = read_references(DATA)
    body: dict[str, Any] = {}
    for adapter in parser.parse_args().adapters:
        model = load_model("smollm2-135m", adapter=adapter)
        found = perplexities(model, references).summary
        body[adapter] = {key: found[key] for key in ("prompts", "tokens", "perplexity", "kinds")}
        print(adapter, found["perplexity"])
    write("perplexity.json", {"adapters": body})


if __name__ == "__main__":
    main()
