"""One self-contained HTML page of a run: figures, plots, and every miss with what was expected and what came."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from agentkit.evaluation import plots
from agentkit.evaluation.metrics import hit
from agentkit.evaluation.rows import Row
from agentkit.evaluation.summary import misses

_NAMES = {"mrr": "MRR", "ndcg@10": "nDCG@10"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #1a202c }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; width: 100%; font-size: 0.87rem }
th, td { text-align: left; vertical-align: top; padding: 0.35rem 0.7rem; border-bottom: 1px solid #e2e8f0 }
th { background: #f7fafc } td.n { white-space: nowrap; font-variant-numeric: tabular-nums }
small { color: #718096 }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { color: #4a5568; font-size: 0.87rem } svg { max-width: 100%; height: auto }
.bad { color: #c53030 } td p { margin: 0 0 0.4rem }
"""


def render(rows: Sequence[Row], summary: dict[str, Any], identity: dict[str, str], threshold: float) -> str:
    """The page.

    Args:
        rows: Of every question.
        summary: `agentkit.evaluation.summary.summarize` of them.
        identity: What was run: shown at the top.
        threshold: Score under which the knowledge base says that it does not know.

    Raises:
        MissingBackendError: matplotlib is not installed.
    """
    wrong, asked = misses(rows), [row for row in rows if not row.failed]
    parts = [
        f"<h1>Retrieval and answers: {summary['questions']} questions</h1>",
        f"<p><small>{_text(', '.join(f'{key} {value}' for key, value in identity.items()))}</small></p>",
        *(
            [f"<p>{summary['failed']} failed: wrong answers, and in no other figure.</p>"]
            if summary["failed"]
            else []
        ),
        "<h2>Retrieval, by document</h2>",
        _shares(summary["retrieval"], {"agent": "search", "dense": "cosine alone"}),
        "<h2>Answers</h2>",
        _shares(summary["answers"], {"agent": "agent", "model": "the model without knowledge"}),
        "<h2>Abstention, unanswerable questions being the positive class</h2>",
        _shares({"": summary["abstention"]}, {"": "agent"}),
        "<h2>By kind of question</h2>",
        _shares(summary["kinds"], {kind: _label(kind) for kind in summary["kinds"]}),
        "<h2>Latency</h2>",
        _latency(summary["latency_s"]),
        "<p><small>Small print beside a share: its 95 % interval.</small></p>",
        '<h2>Plots</h2><div class="plots">',
        _figure(plots.hit_curve(asked), "Answerable questions with a right document among the first k."),
        _figure(plots.score_histogram(asked, threshold), "What the knowledge base thinks of each question."),
        _figure(
            plots.abstention_curve(asked, threshold),
            "Abstaining by that score alone; the agent's router weighs more.",
        ),
        _figure(
            plots.kind_bars(summary["kinds"]), "By kind; of unanswerable questions, right is to abstain."
        ),
        _figure(plots.latency_histogram(asked), "Latency, logarithmic."),
        "</div>",
        f"<h2>Misses: {len(wrong)} of {len(rows)}</h2>",
        _misses(wrong),
    ]
    head = f'<meta charset="utf-8"><title>agentkit eval rag</title><style>{_STYLE}</style>'
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _text(value: str) -> str:
    """Foreign text as HTML: no markup, no control characters."""
    return html.escape(_CONTROL.sub("\ufffd", value))


def _label(name: str) -> str:
    return _text(_NAMES.get(name, name.replace("_", " ")))


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in heading)
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _shares(groups: dict[str, dict[str, Any]], labels: dict[str, str]) -> str:
    names = list(next(iter(groups.values())))
    rows = [
        [f"<td>{_text(labels[key])}</td>", *(_cell(group[name]) for name in names)]
        for key, group in groups.items()
    ]
    return _table(["", *map(_label, names)], rows)


def _cell(value: Any) -> str:
    if not isinstance(value, dict):
        return f'<td class="n">{value}</td>'
    if value["value"] is None:
        return '<td class="n">–</td>'
    interval = f"{value['low']:.3f}–{value['high']:.3f}"
    return f'<td class="n">{value["value"]:.3f} <small>{interval}</small></td>'


def _latency(parts: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(parts.values())))
    rows = [
        [f"<td>{_text(part)}</td>", *(f'<td class="n">{values[name] * 1000:.0f} ms</td>' for name in names)]
        for part, values in parts.items()
    ]
    return _table(["", *names], rows)


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{_text(caption)}</figcaption></figure>"


def _misses(rows: Sequence[Row]) -> str:
    cells = [
        [
            f'<td class="n" id="miss-{_text(row.id)}">{_text(row.id)}<br><small>{_label(row.kind)}</small></td>',
            f"<td><p>{_text(row.question)}</p>{_asked(row)}</td>",
            f"<td>{_expected(row)}</td>",
            f"<td>{_got(row)}</td>",
        ]
        for row in rows
    ]
    return _table(["id", "question", "expected", "got"], cells)


def _asked(row: Row) -> str:
    return "" if row.query == row.question else f"<small>searched for: {_text(row.query)}</small>"


def _expected(row: Row) -> str:
    if not row.is_answerable:
        return "an abstention"
    facts = "; ".join(" or ".join(fact) for fact in row.facts)
    return f"<p>{_text(facts)}</p><small>{_text(', '.join(row.documents))}</small>"


def _got(row: Row) -> str:
    """The reply, what is wrong with it, and the documents that were found; or why there is none."""
    if row.failed:
        return f'<p class="bad">failed: {_text(row.failed)}</p>'
    faults = [
        f"unsupported: {claim.text}" for claim in row.claims if not claim.grounded and not row.abstained
    ]
    if row.is_answerable and row.abstained:
        faults.append("abstained")
    elif row.is_answerable and not row.right:
        faults.append("a fact is missing")
    elif not row.right:
        faults.append(f"answered; called {', '.join(row.tools)}" if row.tools else "answered")
    if row.is_answerable and not hit(row.ranking, row.documents, 3):
        faults.append("no right document among the first three")
    found = ", ".join(row.ranking[:3])
    listed = "".join(f'<p class="bad">{_text(fault)}</p>' for fault in faults)
    return f"<p>{_text(row.text)}</p>{listed}<small>found {_text(found)}</small>"
