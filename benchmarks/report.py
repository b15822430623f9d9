"""Write docs/benchmarks.md from the JSON files in docs/benchmarks/.

python benchmarks/report.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetuning import SIDES, TRACES, markdown

from agentkit.evaluation.bfcl import FOUR
from agentkit.evaluation.metrics import wilson

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
HEAD = """# Benchmarks

Written by `python benchmarks/report.py` from the JSON files in `docs/benchmarks/`; every figure comes from a run, and
each section names the commit and the day of its own, where they were recorded. Absolute times drift between machines,
and the program changes: compare rows of one table only. `make bench` installs the peers and runs everything. No figure
has been taken on a GPU.
"""
SEVERAL = "Whether several calls are wanted is told from the category, as no request says it: "


def load(name: str) -> Any:
    return json.loads((DOCS / "benchmarks" / name).read_text(encoding="utf-8"))


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def machine(body: Any) -> str:
    m = body["machine"]
    return f"{m['cpu']} CPU, {m['threads']} threads, torch {m['torch']}"


def reproduce(body: Any, command: str) -> str:
    """How a result is measured again, and where this one comes from."""
    found = body.get("machine", {})
    commit = f"commit {found['commit']}" if found.get("commit") else "commit not recorded"
    return f"Reproduce: `python benchmarks/{command}`; measured: {commit}, {found.get('date', 'day not recorded')}."


def interval(share: Any) -> str:
    """A share of right ones with Wilson's interval, of files too that were written with another one."""
    low, high = wilson(share["value"] * share["count"], share["count"])
    return f"{share['value']:.1%} ({low:.0%} to {high:.0%})"


def speed() -> str:
    body = load("speed.json")
    engines = body["tokens_per_second"]
    ours, plain, llama = (
        engines[name] for name in ("agentkit, int4", "transformers generate, bfloat16", "llama.cpp, Q4_1")
    )
    rows = [(name, r["decode"], r["prefill"], f"{r['share_of_bound']:.0%}") for name, r in engines.items()]
    features = [name for name in body.get("llama_features", ()) if name.startswith(("AVX512", "AMX"))]
    built = f"with {', '.join(features)}" if features else "(with which instructions, was not recorded)"
    return (
        "## Speed of SmolLM2-135M\n\n"
        f"{machine(body)}; greedy, {body['tokens']} tokens decoded after a prompt of 64, a prompt of "
        f"{body['prefill_tokens']} prefilled; the engines take turns, medians of the rounds. The bound is memory: "
        f"{body['read_bytes_per_second'] / 1e9:.0f} GB/s were read in the same run, and a token reads every weight "
        f"once. llama.cpp is built from source {built}; with AMX it crashes here. "
        f"{reproduce(body, 'speed.py')}\n\n"
        + table(("engine", "decode tok/s", "prefill tok/s", "share of the bound"), rows)
        + f"\n\nint4 without an adapter decodes {ours['decode'] / plain['decode']:.1f} times as fast as `generate` and "
        f"{ours['decode'] / llama['decode']:.1f} times as fast as llama.cpp, and reads a prompt "
        f"{ours['prefill'] / llama['prefill']:.1f} times as fast as llama.cpp."
    )


def adapters() -> str:
    body = load("adapters.json")
    kinds = [what for what in body["adapters"]["none"] if what != "share"]
    rows = [
        (
            name,
            *(f"{row[what]} ({row['share'][what]:.2f})" for what in kinds),
            _mb(row["bytes"]) if "bytes" in row else "",
            f"{row['load_seconds'] * 1000:.0f} ms" if "load_seconds" in row else "",
        )
        for name, row in body["adapters"].items()
    ]
    return (
        "## Adapters beside the weights\n\n"
        f"{machine(body)}; SmolLM2-135M in {body['quantization']} with random LoRA adapters of all linears, tokens a "
        f"second and the share of the speed without; {body['tokens']} tokens decoded after a prompt of 64, a prompt of "
        f"{body['prefill_tokens']} prefilled; they take turns, medians of the rounds. The last column is what a swap "
        f"takes. {reproduce(body, 'adapters.py')}\n\n" + table(("adapter", *kinds, "held", "loaded in"), rows)
    )


def quality() -> str:
    body = load("quality.json")
    methods = body["methods"]
    # Who holds the weights has grown by more than them; where a figure is less, memory was given back meanwhile.
    is_growth = all(row["resident_bytes"] > row["weight_bytes"] for row in methods.values())
    rows = [
        (
            {"reference": "transformers, bfloat16"}.get(name, f"agentkit, {name}"),
            row["perplexity"],
            f"{row['perplexity_ratio'] - 1:+.2%}",
            f"{row['weight_bytes'] / 1e6:.0f} MB",
            f"{row['weight_bytes_ratio']:.2f}",
            *((_mb(row["resident_bytes"]),) if is_growth else ()),
        )
        for name, row in methods.items()
    ]
    head = (
        "weights",
        "perplexity",
        "against bf16",
        "held",
        "share of bf16",
        *(("process",) if is_growth else ()),
    )
    process = (
        "; the last column is what a fresh process has grown by after loading and one forward pass, with work buffers; "
        "machine code is loaded before"
    )
    return (
        "## What quantization costs\n\n"
        f"SmolLM2-135M, {body['tokens']} tokens of {body['text']}, 1,024 at a time. What all rows are compared with is "
        "the same GGUF file (Q4_1 linears, a Q8_0 embedding), dequantized to bf16: the table tells what repacking "
        "costs, not what the file has lost of the original weights. Weights are the model's distinct "
        f"tensors, each held once{process if is_growth else ''}. {reproduce(body, 'quality.py')}\n\n"
        + table(head, rows)
    )


def tool_loop() -> str:
    body = load("tool_loop.json")
    ratios = body["ratios"]
    clocks = (
        "Both are timed from outside, encoding and the making of the grammar included. "
        if "timed" in body
        else "agentkit's clock began after encoding and making the grammar, smolagents' before encoding. "
    )
    rows = [
        (
            name,
            round(r["prefilled"]),
            f"{r['seconds']:.1f} s",
            f"{1000 * r['first_token_step_2']:.0f} ms",
            f"{1000 * r['first_token_step_10']:.0f} ms",
        )
        for name, r in body["engines"].items()
    ]
    return (
        "## Ten steps of a tool loop\n\n"
        f"{machine(body)}; a system prompt with tools of {body['prompt_tokens']} tokens, then ten calls with their "
        "results, as many tokens written by both; smolagents' TransformersModel in bf16. "
        f"{clocks}{reproduce(body, 'tool_loop.py')}\n\n"
        + table(("engine", "tokens prefilled", "time", "first token, step 2", "first token, step 10"), rows)
        + f"\n\nagentkit prefills {ratios['prefilled']} times fewer tokens and takes {ratios['seconds']} times less "
        f"time; its first token at step 10 takes {ratios['first_token_step_10_to_2']} times as long as at step 2."
    )


def bfcl() -> str:
    body = load("bfcl.json")
    names = {
        "grammar": "agentkit",
        "bare": "agentkit without evidence",
        "unconstrained": "transformers",
        "xgrammar": "transformers, xgrammar",
    }
    rows: list[tuple[object, ...]] = []
    for category, modes in body["categories"].items():
        for mode, row in modes.items():
            n, mask = row["cases"], row.get("mask")
            rows.append(
                (
                    category,
                    f"{names[mode]}, {row['weights']}",
                    n,
                    f"{row['valid']} ({row['valid'] / n:.1%})",
                    f"{row['correct']} ({row['correct'] / n:.1%})",
                    row["passes_per_case"],
                    "–" if row["passes_per_call"] is None else row["passes_per_call"],
                    *(
                        (
                            f"{mask['share'] * mask['step_us']:.0f} µs",
                            f"{mask['share']:.1%} of {mask['step_us']} µs",
                        )
                        if mask
                        else ("–", "–")
                    ),
                )
            )
    head = (
        "category",
        "decoding",
        "cases",
        "schema-valid",
        "correct",
        "passes a case",
        "passes a call",
        "masks of a pass",
        "share of a step",
    )
    return (
        "## Berkeley function-calling data\n\n"
        f"{machine(body)}; the embedded model without adapter, the same prompts for all, greedy. agentkit decodes "
        "under its grammar, with and without evidence from the turn, xgrammar under one of the same call syntax, "
        "transformers' plain `generate` without any. Nothing is trained on these cases; failures among the first 200 "
        "of simple_python were read while the evidence was made, the second 200 nobody has looked at. Correct by the "
        f"leaderboard's AST checker. {SEVERAL}both grammars allow several in `parallel`, and one elsewhere. "
        "Passes are forward passes, those a call over the cases with a call. Masks of a pass "
        "are the mean time of all that the grammar did for it, and their share is of the decode steps of the same "
        "engine, beside whose mean it stands. agentkit asks about the best token first and makes a mask only where "
        "that one is refused; xgrammar's mask includes accepting the last token. "
        f"{reproduce(body, 'bfcl.py')}\n\n" + table(head, rows)
    )


def routing() -> str:
    body = load("routing.json")
    adapter = body.get("adapter", "none")  # not named as long as there was none
    told = ("machine", "adapter", "abstention_fitted_on")
    rows: list[tuple[object, ...]] = [(name, value) for name, value in body.items() if name not in told]
    model = "without an adapter" if adapter == "none" else f"with the {adapter} adapter"
    return (
        "## Routing and abstention\n\n"
        f"The embedded model {model}; reporting halves of `tests/data/routing.jsonl` and "
        "`tests/data/knowledge_questions.jsonl`; a question counts for abstention as right if it goes to the knowledge "
        "base exactly where the knowledge base answers it. The stress set is made mostly of near misses: questions in "
        "the shop's own words about facts that no document states. It was held out at first; since abstention was "
        "fitted anew it trains too, but for the questions that ask what a report question asks. Cross-validated rows "
        "are over the training halves: each turn, or question by kind, under weights of the router fitted without its "
        "tenth. One of the router's features, whether the passages answer the question, is not cross-validated: its "
        "own weights were fitted on all training questions, so these rows are too good by what that brings. "
        f"{fitted(body, twins=13)}{reproduce(body, f'tune_routing.py --adapter {adapter}')}\n\n"
        + table(("what", "right"), rows)
    )


def drafts() -> str:
    body = load("drafts.json")
    rows: list[tuple[object, ...]] = [
        (kind, name, row["tokens_per_second"], row["tokens_per_pass"])
        for kind, engines in body["answers"].items()
        for name, row in engines.items()
    ]
    r = body["ratios"]
    return (
        "## Drafts from the conversation's own tokens\n\n"
        f"{machine(body)}; {body['prompts']} requests to repeat a passage of the help centre and as many open "
        f"questions, {body['tokens']} tokens each, greedy; only decoding is timed. The engines take turns, medians of "
        f"the rounds; a draft changes no token, which the run checks. {reproduce(body, 'drafts.py')}\n\n"
        + table(("answers", "engine", "tok/s", "tokens per pass"), rows)
        + f"\n\nOn quotes drafts make agentkit {r['quote, drafts to plain']} times as fast as without and "
        f"{r['quote, drafts to prompt lookup']} times as fast as transformers with prompt lookup, which itself is "
        f"{r['quote, prompt lookup to generate']} times as fast as its `generate`: more rows cost the faster engine "
        f"more. Free chat runs at {r['chat, drafts to plain']} times the speed without "
        "(medians of the rounds' ratios). agentkit is served in int4, transformers in bf16."
    )


def sessions() -> str:
    body = load("sessions.json")
    rows: list[tuple[object, ...]] = [
        (name, f"{row['seconds']} s", row["tokens_per_second"]) for name, row in body["engines"].items()
    ]
    r = body["ratios"]
    # Without its rounds the figure is the most of any round, the first included.
    most = "" if "sessions_per_pass_rounds" in body else "at most "
    return (
        f"## {body['sessions']} sessions of {body['turns']} turns\n\n"
        f"{machine(body)}; the same system prompt, {body['tokens']} tokens for each answer, which is part of the next "
        f"turn's prompt; greedy; agentkit in int4, transformers in bf16. {reproduce(body, 'sessions.py')}\n\n"
        + table(("engine", "time", "tok/s"), rows)
        + f"\n\nAt once they take {r['together to agentkit, one after the other']} times less than one after the "
        f"other, {r['together to transformers generate']} times less than with `generate` and "
        f"{r['together to transformers generate_batch']} times less than with `generate_batch` "
        f"(medians of the rounds' ratios); {most}{body['sessions_per_pass']} of them share a forward pass on average."
    )


def arguments() -> str:
    body = load("arguments.json")
    rows: list[tuple[object, ...]] = [
        (name, f"{row['reporting']:.1%}", f"{row['tuning']:.1%}", row["forward_passes"])
        for name, row in body["parts"].items()
    ]
    q = body["questions"]
    # Counted over both as long as they were not counted apart.
    names = {"reporting": "the reporting half", "tuning": "the tuning half"}
    halves = {"both halves": q} if "lacking" in q else {name: q[half] for half, name in names.items()}
    return (
        "## Arguments from the conversation\n\n"
        f"{machine(body)}; the embedded model without adapter, {body['calls']} calls over 55 tools written for this "
        "project, the tool given, greedy; right if every argument is one of those accepted. The tools of the tuning "
        "half were looked at while the parts were made, those of the reporting half were not. "
        f"{reproduce(body, 'arguments.py')}\n\n"
        + table(("evidence", "right, reporting half", "tuning half", "passes a call"), rows)
        + "\n\n"
        + " ".join(_questions(*half) for half in halves.items())
    )


def _questions(half: str, q: Any) -> str:
    return (
        f"Of {q['lacking']} turns of {half} that lack a required argument {q['asked']} are asked about, "
        f"{q['asked_for_exactly_those']} for exactly what is missing; of the {q['complete']} complete ones "
        f"{q['asked_without_cause']} are."
    )


def index() -> str:
    body = load("index.json")
    built, search, change = (body[f"{part}_chunks"] for part in ("build", "search", "change"))
    million, flat, kills = body["search_million"], body["flat"], body["kills"]
    # Only measured after the first search as long as the questions were not waited for.
    is_after = "resident_after_bytes" in search
    after = f", after all of them {_mb(search['resident_after_bytes'])}" if is_after else ""
    when = "all queries included" if is_after else "up to the first search"
    made = body["build_million"]
    construction = made["construction"]
    names = {
        "all": "what a search asks of the index (words, vectors, fetch), all questions of a process",
        "first_half": "the same, the first half of them",
        "second_half": "the same, the second half",
        "words": "by words",
        "vectors": "by vectors",
        "fetch": "fetch chunks with text and vectors",
        "within_a_tenth": "by vectors within a folder of a tenth",
    }
    rows: list[tuple[object, ...]] = [(name, *_times(search[key])) for key, name in names.items()]
    rows += [
        (f"{name} a document of five chunks", *_times(change[name])) for name in ("add", "change", "remove")
    ]
    # Neither number was kept as long as flat search was timed on the first 50 alone.
    asked = million.get("queries", body["queries"]), flat.get("queries", 50)
    own_row = (
        "agentkit",
        f"{asked[0]:,}",
        million["recall"],
        *_times(million),
        _mb(million.get("resident_after_bytes", million["resident_bytes"])),
    )
    flat_row = ("flat search", f"{asked[1]:,}", "1.0", *_times(flat), _mb(flat["resident_bytes"]))
    return (
        "## The index of the knowledge base\n\n"
        f"{machine(body)}; {body['chunks']:,} chunks of real text (docstrings), each with {body['rows']} vectors of "
        f"384 dimensions; {body['queries']:,} questions (first sentences of docstrings), each asked once by a process "
        "that has just started; without embedding. It gets faster: what a word adds to the chunks' scores is kept. The "
        "first vectors are real, the others constructed as below. An addition or change is timed until a search finds "
        f"it, a removal until it is committed. {reproduce(body, 'index.py')}\n\n"
        + table(("at 100,000 chunks", "p50", "p95", "p99"), rows)
        + f"\n\nStoring took {built['put_seconds']:.0f} s, training and writing the view "
        f"{built['flush_seconds']:.0f} s; database and view take {_mb(built['database_bytes'])} and "
        f"{_mb(built['view_bytes'])}, the process after a first search {_mb(search['resident_bytes'])}{after}, its "
        f"start with that search {search['open_seconds']} s.\n\n"
        + table(
            ("a million vectors", "queries", "recall@10", "p50", "p95", "p99", "memory"), [own_row, flat_row]
        )
        + f"\n\nThe first {construction['real']:,} vectors are real; each other one is a real vector moved along the "
        "differences to its 32 nearest. How far is chosen such that the vectors crowd as real ones would: the "
        "median cosine of the tenth neighbour, which grows steadily with every doubling of real vectors, is "
        f"{construction['reached']:.3f} at {body['vectors'] // 8:,}, where the line through the real ones gives "
        f"{construction['goal']:.3f}. The queries are real. Of {made['lists']:,} lists {made['probes']} are searched, "
        "a number that is chosen when they are trained. Flat search is FAISS's IndexFlatIP. Memory is what the "
        f"process grows by, {when}; flat search's is that of its vectors.\n\n"
        f"{kills['kills']} times a process that changes an index was killed: {kills['during, old state']} times "
        f"during a change that was not there afterwards, {kills['during, new state']} times during one that was, "
        f"{kills['between changes']} times between changes; {kills['changes']:,} changes were made. Every time "
        "documents, words and vectors told the same, and nothing had to be repaired."
    )


def search() -> str:
    body = load("search.json")
    rows: list[tuple[object, ...]] = [
        (
            name,
            *(f"{row[key]:.1f} ms" for key in ("p50_ms", "p95_ms", "p99_ms")),
            row["ndcg"],
            f"{row['built_s']:.0f} s",
        )
        for name, row in body["engines"].items()
    ]
    return (
        "## Hybrid search\n\n"
        f"{machine(body)}; {body['chunks']:,} chunks of docstrings, {body['questions']} of their first sentences, "
        "which are not among the texts, as questions; both engines have the same texts and a vector for each chunk "
        f"from a table: no encoding is timed. The vectors of {body['real']:,} chunks, with all that is asked for, are "
        "MiniLM's, the others constructed (below). agentkit's index also holds a vector for each docstring's title, "
        "txtai's does not. agentkit's time includes reading the passages. nDCG@10 over docstrings, of ten results: "
        "agentkit's are passages, in which chunks that lie side by side are joined, txtai's are chunks, of which "
        "several may be of one docstring; so it has fewer docstrings to be right with. "
        f"{reproduce(body, 'search.py')}\n\n"
        + table(("engine", "p50", "p95", "p99", "nDCG@10", "built in"), rows)
    )


def ingest() -> str:
    body = load("ingest.json")
    return (
        "## Indexing a folder\n\n"
        f"{machine(body)}; {body['documents']} Markdown files, {body['chunks']:,} chunks; with sentences and titles "
        f"{body['texts']:,} texts are embedded. {reproduce(body, 'ingest.py')}\n\n"
        + table(
            ("", "chunks/s", "agentkit's share of it"),
            [
                ("agentkit: read, cut, embed, store, index", body["indexed"], ""),
                ("the embedder alone, the same texts", body["embedder_same_texts"], body["ratio_same_texts"]),
                (
                    "the embedder alone, chunks only",
                    body["embedder_chunks_alone"],
                    body["ratio_chunks_alone"],
                ),
            ],
        )
    )


def rag() -> str:
    body = load("rag.json")

    def cell(name: str, value: Any) -> str:
        ends = value["low"], value["high"]
        if name not in RESAMPLED:
            ends = wilson(value["value"] * value["count"], value["count"])
        return f"{value['value']:.3f} ({ends[0]:.2f} to {ends[1]:.2f})"

    def cells(group: Any, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(cell(name, group[name]) for name in names)

    judged = (
        '; judged is with mpnet and `[knowledge] reranker = "qwen2.5-coder-1.5b"`' if "judged" in body else ""
    )
    runs = {"": body, **{f", {name}": body[name] for name in ("untuned", "mpnet", "judged") if name in body}}
    # No adapter takes part in search.
    of_search = {name: run for name, run in runs.items() if name != ", untuned"}
    measures = ("hit@1", "hit@3", "hit@5", "mrr", "ndcg@10")
    answers, abstained = (
        ("groundedness", "right"),
        ("precision", "recall", "recall_near_misses", "recall_others"),
    )
    documents = sum(path.is_file() for path in (ROOT / "knowledge").rglob("*"))
    # Not kept as long as it did not get the conversation.
    dense = (
        "the same question as the agent's search, understood from the conversation, its spelling put right"
        if "dense_asked" in body
        else "the question as it was asked, its spelling put right, without the conversation that the agent has"
    )
    return (
        "## Answers from documents\n\n"
        f"{machine(body)}; the report split of `tests/data/rag.jsonl`, {body['questions']} questions over the "
        "starter's knowledge base, on none of which weights were fitted: plain, paraphrased, misspelt, "
        f"follow-ups, and 30 that no document answers, half of them near misses. {fitted(body, twins=69)}"
        "Recipes of the adapter and of the judge were compared by them, and both have learned from passages of "
        "shops, some with terms that are the starter's too: it is no foreign subject to them. In brackets "
        "intervals of 95 %, Wilson's of shares, bootstrap of MRR, nDCG and groundedness. Retrieval counts documents, "
        f"of which there are {documents}: a hit is any passage of a right one. The dense part alone gets {dense}. "
        "Groundedness is the share of sentences whose cited quote stands in the document and supports them; right is "
        "an answer with all labelled facts. The agent quotes, so its groundedness is nearly given; right is the figure "
        "to look at. The embedder is MiniLM, or mpnet where that is said (`[knowledge] embedder`), whose run is one of "
        f"its own{judged}; untuned is as it comes, but for the model's adapter (`--adapter none`). "
        f"{reproduce(body, 'rag.py')}\n\n"
        + table(
            ("retrieval", *measures),
            [
                (f"{name}{which}", *cells(run["retrieval"][side], measures))
                for which, run in of_search.items()
                for side, name in (("agent", "agentkit"), ("dense", "the dense part alone"))
                if (side, which) != ("dense", ", judged")  # that of mpnet
            ],
        )
        + "\n\n"
        + table(
            ("answers", "groundedness", "right"),
            [
                *(
                    (f"agentkit{which}", *cells(run["answers"]["agent"], answers))
                    for which, run in runs.items()
                ),
                ("the model without knowledge", *cells(body["answers"]["model"], answers)),
            ],
        )
        + "\n\n"
        + table(
            ("abstention", "precision", "recall", "recall, near misses", "recall, others"),
            [(f"agentkit{which}", *cells(run["abstention"], abstained)) for which, run in runs.items()],
        )
        + "\n\n"
        + table(
            ("seconds", *(f"{part}, {name}" for part in ("search", "turn") for name in ("p50", "p95"))),
            [
                (
                    f"agentkit{which}",
                    *(
                        f"{run['latency_s'][part][name]:.2f}"
                        for part in ("search", "turn")
                        for name in ("p50", "p95")
                    ),
                )
                for which, run in runs.items()
            ],
        )
    )


RESAMPLED = ("mrr", "ndcg@10", "groundedness")
"""Figures that are no plain shares."""


def fitted(body: Any, twins: int) -> str:
    """What abstention was fitted on, on which the other weights build.

    Args:
        body: The result; weights that were fitted before all twins were taken out of training say nothing.
        twins: Report questions of which that training held a twin.
    """
    if body.get("abstention_fitted_on"):
        return (
            f"Abstention was fitted on {body['abstention_fitted_on']} others, none of which asks the same. "
        )
    return (
        f"But {twins} of the questions had a twin, which asks the same, among those that the weights were fitted on "
        "when this was measured; no twin is fitted on any more. "
    )


def finetuning() -> str:
    head = "## Fine-tuning\n\n"
    if not (DOCS / "benchmarks" / "finetuning.json").exists():
        return f"{head}agentkit's training loop and TRL's SFTTrainer with its defaults: not measured yet."
    body = load("finetuning.json")
    first = next(iter(body["traces"].values()))
    times = ", ".join(
        f"{many} times those of {SIDES[side]} ({TRACES[kind]})"
        for kind, found in body["traces"].items()
        for side, many in found["times"].items()
    )
    return (
        f"{head}{machine(body)}, TRL {body['machine']['trl']}; SmolLM2-135M, {first['rows']} traces of tool calls of "
        f"at most {body['max_length']} tokens, one pass in steps of {body['batch']}, LoRA of rank "
        f"{body['lora']['rank']} on all linears; the same token ids, labels and learning rates for both, "
        f"trained {body['rounds']} time{'s' if body['rounds'] != 1 else ''} each by turns, each in its own process. "
        "Labels are the assistant's tokens, "
        "tokens all but padding, a beginning that several traces share counted for each. The loss is over the labels "
        f"of {body['held_out']} traces with other sets of tools, measured by one program in fp32. "
        f"{reproduce(body, 'finetuning.py')}\n\n{markdown(body)}\n\nagentkit's useful tokens a second are {times}."
        f"{beside()}"
    )


def beside() -> str:
    """The chat while a job runs."""
    if not (DOCS / "benchmarks" / "beside.json").exists():
        return ""
    body = load("beside.json")
    rows = [
        (name, f"{found['turn_p50_s']:.2f}", f"{found['turn_max_s']:.2f}", f"{found['tokens_per_s']:.0f}")
        for name, found in body.items()
        if isinstance(found, dict) and "turn_p50_s" in found
    ]
    return (
        f"\n\n**The chat while a job runs**, {machine(body)}: questions to the starter's help centre, each asked once "
        "before, so that what was read for it is in the cache, and free answers of the embedded model. "
        f"{reproduce(body, 'beside.py')}\n\n"
        + table(("the chat", "seconds of a turn, p50", "the longest", "tokens a second"), rows)
        + f"\n\nThe job goes through {body['steps_per_s']:.2f} steps a second by itself and "
        f"{body['steps_per_s_beside']:.2f} while it is talked to."
    )


def shipped() -> str:
    body = load("shipped.json")
    without, with_it = (body["adapters"][name] for name in ("none", "shipped"))
    rows = [
        (
            name,
            found["count"],
            *map(interval, pair),
        )
        for name, found in without["cases"].items()
        for pair in [(found, with_it["cases"][name])]
    ]
    decided = any(name.endswith("under auto") for name in without["cases"])
    auto = (
        "; under `auto` the model that `load_model` gives decides, without the adapter its router"
        if decided
        else ""
    )

    def together(adapter: Any) -> str:
        """The average over the cases that were read and the others."""
        pairs = [
            (adapter["cases"][name], adapter["cases"][f"{name}, {body['limit']} others"]) for name in FOUR
        ]
        shares = [
            sum(found["value"] * found["count"] for found in pair) / sum(found["count"] for found in pair)
            for pair in pairs
        ]
        return f"{sum(shares) / len(FOUR):.1%}"

    return (
        "## The adapter that comes with agentkit\n\n"
        "Right cases of SmolLM2-135M in int4 under the grammar, with Wilson's intervals of 95 %; the first "
        f"{body['limit']} of each Berkeley category by the leaderboard's checker, `irrelevance` needing no call. Calls "
        f"are required where they are needed{auto}. {SEVERAL}the grammar allows several in the `parallel` ones. "
        "Failures among them, and among the first 200 of `simple_python`, were read while the evidence for arguments "
        f"was made; nobody has looked at the {body['limit']} others, which follow. "
        "Recipes were compared by the first too, so that the others are the fairer figure. Of our own sets "
        f"the reporting halves. {reproduce(body, 'shipped.py')}\n\n"
        + table(("cases", "count", "without", "with the adapter"), rows)
        + f"\n\nThe average of the four categories that need calls is {without['average']:.1%} without and "
        f"{with_it['average']:.1%} with it; over the others {without['average_unseen']:.1%} and "
        f"{with_it['average_unseen']:.1%}, over both {together(without)} and {together(with_it)}. With a limit of 100 "
        "both are the whole of three categories, of 200 cases each."
    )


def recipe() -> str:
    title = "## The recipe of that adapter\n\n"
    if not (DOCS / "benchmarks" / "recipe.json").exists():
        return f"{title}How it is made is told in [training/README.md](../training/README.md)."
    body = load("recipe.json")
    machine = body["machine"]
    rows: list[tuple[object, ...]] = [
        (
            stage["number"],
            f"{stage['examples']:,}",
            stage["batch_size"],
            f"{stage['learning_rate']:g}, {stage['ratio']:g}",
            stage["steps"],
            f"{stage['seconds']:,.0f}",
            f"{stage['loss_before']:.3f} to {stage['loss_after']:.3f}",
            f"{stage['loss'][0]:.2f} to {stage['loss'][-1]:.2f}",
        )
        for stage in body["stages"]
    ]
    head = (
        "stage", "dialogues", "a step", "learning rate, LoRA+ ratio", "steps", "seconds",
        "held-out loss", "training loss, the first and the last twenty steps",
    )  # fmt: skip
    return (
        f"{title}{machine['cpu']} CPU {'with' if machine['amx'] else 'without'} AMX, "
        f"{machine['threads']} threads, torch {machine['torch']}; seed {body['seed']}: {body['seconds']:,.0f} s of "
        "training. What each stage is for, and what was tried beside it, is told in "
        "[training/README.md](../training/README.md). Make it anew: `python training/make_adapter.py`.\n\n"
        + table(head, rows)
        + "\n\n![Training loss, learning rate and gradient norm over the steps of all stages](images/recipe.png)"
    )


def perplexity() -> str:
    head = "## Plain conversation\n\n"
    what = "Perplexity of the answers in `tests/data/plain_chat.jsonl`, which nobody is trained on"
    if not (DOCS / "benchmarks" / "perplexity.json").exists():
        return f"{head}{what}, with the shipped adapter and without: not measured yet."
    body, rows = load("perplexity.json"), []
    for name, row in body["adapters"].items():
        found = row["perplexity"]
        rows.append(
            (name, row["tokens"], f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})")
        )
    return (
        f"{head}{what}; in brackets bootstrap intervals of 95 % over the prompts. "
        f"{reproduce(body, 'perplexity.py')}\n\n" + table(("adapter", "tokens", "perplexity"), rows)
    )


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f} MB"


def _times(row: Any) -> tuple[str, ...]:
    return tuple(f"{row[share]} ms" for share in ("p50", "p95", "p99"))


def page() -> str:
    """All of ``docs/benchmarks.md``."""
    parts = (
        speed(), adapters(), drafts(), sessions(), quality(), tool_loop(), bfcl(), arguments(),
        finetuning(), shipped(), recipe(), perplexity(), search(), index(), ingest(), rag(), routing(),
    )  # fmt: skip
    return "\n\n".join((HEAD.strip(), *parts)) + "\n"


def main() -> None:
    (DOCS / "benchmarks.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
