"""Puts an adapter and what runs without it through the same cases, and lets it into use if it does as well.

The cases are the held-out chats of its own run and three regression suites: routing and answers from the knowledge base
of the starter project, and tool calls. They are asked in that project, with a store and an index of their own that are
gone afterwards; nothing of the user's projects is touched. What is compared and when it counts as a fall is
`agentkit.training.gate`.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.errors import AgentkitError, TrainingError, UsageError
from agentkit.evaluation.regression import Cases, read_cases, suites_digest
from agentkit.project import Project, starter_root
from agentkit.settings import AgentSettings, Settings
from agentkit.training import adapters
from agentkit.training.adapters import HELD_OUT, Adapter
from agentkit.training.gate import (
    Basis,
    GateReport,
    Loss,
    Part,
    compare,
    compare_losses,
    file_digest,
    read_gate,
)

if TYPE_CHECKING:
    from agentkit.build import Workspace
    from agentkit.evaluation.rag import Evaluation
    from agentkit.evaluation.suite import Scores
    from agentkit.retrieval.knowledge import KnowledgeBase
    from agentkit.training.data import Row

LIMIT = 60
"""Cases of each suite: some two minutes on two cores with the embedded model, and a fall from 60 to 45 % is proven."""
HELD, ROUTING, ANSWERS, CALLS = "held-out chats", "routing", "answers", "tool calls"
Progress = Callable[[str], None]


@dataclass(slots=True)
class Side:
    """What came of one of the two."""

    scores: dict[str, Scores] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    """By part: why there is no result."""


def evaluate(
    workspace: Workspace, name: str, *, limit: int = LIMIT, progress: Progress = lambda text: None
) -> GateReport:
    """Compare an adapter with what runs without it, and keep the report in its folder.

    Args:
        workspace: Whose settings say how models are loaded and who decides what a turn needs.
        name: Of an adapter of the user's.
        limit: Cases of each suite at most.
        progress: Told what is going on.

    Raises:
        NotFoundError: There is no such adapter, or its model is not here.
        UsageError: It is no adapter of a chat model.
        TrainingError: It is damaged, it changed meanwhile, or the report cannot be written.
        ModelError: The model cannot be loaded.
    """
    from agentkit.__about__ import __version__

    started = time.perf_counter()
    adapter = adapters.get_adapter(workspace.adapters_dir, name)
    adapters.check_task(adapter, "chat")
    adapters.check_whole(adapter.path)
    basis = basis_of(workspace, adapter)
    base, own, run = _measure(_settings(workspace.settings, adapter.base), adapter, limit, progress)
    if basis_of(workspace, adapter) != basis:
        raise TrainingError(f"adapter {name!r} or its data changed meanwhile", "evaluate it again")
    report = GateReport(
        name,
        basis,
        limit,
        tuple(judge(base, own, held_out_problem(adapter))),
        run,
        datetime.now(UTC).isoformat(timespec="seconds"),
        round(time.perf_counter() - started, 1),
        __version__,
    )
    report.write(adapter.path)
    return report


def standing(workspace: Workspace, name: str) -> tuple[GateReport | None, str]:
    """The report of an adapter if it still counts; else none, and why.

    Raises:
        NotFoundError: There is no such adapter.
        UsageError: It is no adapter of a chat model.
        TrainingError: The adapter is damaged.
    """
    adapter = adapters.get_adapter(workspace.adapters_dir, name)
    adapters.check_task(adapter, "chat")
    try:
        report = read_gate(adapter.path)
    except TrainingError as error:
        return None, error.cause
    if report is None:
        return None, f"{name} has not been evaluated yet"
    why = report.outdated(basis_of(workspace, adapter), LIMIT)
    return (None, f"the evaluation of {name} no longer counts: {why}") if why else (report, "")


def use(workspace: Workspace, name: str, *, force: bool = False) -> Adapter:
    """Make ``auto`` mean this adapter, if it has passed the gate.

    Args:
        workspace: Where it lies.
        name: Of the adapter.
        force: Use it all the same; that, and what the gate said, is kept and shown.

    Raises:
        NotFoundError: There is no such adapter.
        TrainingError: It has not passed, or is damaged; what was in use stays.
    """
    report, why = standing(workspace, name)
    passed = report is not None and report.passed
    if report is not None and not passed:
        why = report.failures()
    if not passed and not force:
        forcing = f"force it with `agentkit finetune use {name} --force`"
        if report is None:
            raise TrainingError(why, f"run `agentkit finetune evaluate {name}`, or {forcing}")
        cause = f"{name} falls behind what runs without it: {why}"
        raise TrainingError(cause, f"train it otherwise, or {forcing}")
    return adapters.use(workspace.adapters_dir, name, forced="" if passed else why)


def basis_of(workspace: Workspace, adapter: Adapter) -> Basis:
    """What a comparison of an adapter rests on today.

    Raises:
        TrainingError: A file cannot be read.
    """
    from agentkit.__about__ import __version__

    own = adapters.shipped(adapter.base)
    held_out = adapter.path / HELD_OUT
    applied = _settings(workspace.settings, adapter.base)
    sampling = applied.sampling.model_dump_json(exclude={"seed"})  # which decides nothing, as that is greedy
    try:
        chats = hashlib.sha256(held_out.read_bytes()).hexdigest() if held_out.is_file() else ""
    except OSError as error:
        remedy = "see to its rights, or delete it to judge without"
        raise TrainingError(f"{held_out} cannot be read ({error.strerror})", remedy) from error
    return Basis(
        file_digest(adapter),
        adapter.base,
        file_digest(own) if own else "",
        chats,
        suites_digest(),
        f"agentkit {__version__}, quantize = {applied.quantize}, tool_format = {applied.tool_format}, "
        f"routing = {applied.agent.routing}, answers = {applied.agent.answers}, sampling = {sampling}",
    )


def judge(base: Side, own: Side, no_chats: str) -> list[Part]:
    """The parts of the report.

    Args:
        base: What came of the base.
        own: What came of the adapter.
        no_chats: Why there are no held-out chats; empty if there are.
    """
    parts = []
    for name in (HELD, ROUTING, ANSWERS, CALLS):
        if name == HELD and no_chats:
            parts.append(Part(name, "not run", "nats", remark=no_chats))
        elif name in base.problems:  # the base cannot do it: that says nothing about the adapter
            parts.append(Part(name, "not run", remark=base.problems[name]))
        elif name in own.problems:
            parts.append(Part(name, "worse", remark=f"with the adapter it fails: {own.problems[name]}"))
        elif name == HELD:
            parts.append(compare_losses(name, base.losses, own.losses))
        else:
            before, after = base.scores[name], own.scores[name]
            names = [key for key in before.scores if key in after.scores]
            figures = {key: [before.scores[key], after.scores[key]] for key in names}
            parts.append(compare(name, before.verdicts, after.verdicts, figures))
    return parts


def held_out_problem(adapter: Adapter) -> str:
    """Why an adapter cannot be judged by chats that it has not seen; empty if it can."""
    from agentkit.training.report import FILE, read_report

    if (adapter.path / HELD_OUT).is_file():
        return ""
    try:
        splits = read_report(adapter.path / FILE).splits
    except (OSError, ValueError):
        splits = {"test": -1}
    if splits.get("test", 0):
        return f"none: {HELD_OUT} is not in the adapter's folder"
    why = "which takes ten or more" if sum(splits.values()) < 10 else "as its settings or its data say"
    return f"none: no chat was held out of the training, {why}"


def _settings(user: Settings, base: str) -> Settings:
    """The starter's settings, with those of the user's that say how the model runs. Greedy: the same every time."""
    own = user.agent
    return Settings(
        model=base,
        adapter="shipped" if adapters.shipped(base) else "none",
        device=user.device,
        quantize=user.quantize,
        compile=user.compile,
        tool_format=user.tool_format if user.model == base else "auto",
        sampling=user.sampling.model_copy(update={"temperature": 0.0}),
        agent=AgentSettings(routing=own.routing, answers=own.answers, approve="none"),
    )


def _measure(
    settings: Settings, adapter: Adapter, limit: int, progress: Progress
) -> tuple[Side, Side, dict[str, str]]:
    """What came of the base and of the adapter, and how it was run."""
    with (
        tempfile.TemporaryDirectory(prefix="agentkit-gate-") as folder,
        _trial(settings, Path(folder)) as trial,
    ):
        progress("indexing the starter project")
        knowledge = trial.ready_knowledge()
        names = [spec.name for spec in trial.registry.specs()]
        cases = read_cases(names, limit, lacking=_choice(settings) == "auto")
        base = _side(trial, knowledge, cases, adapter, f"{adapter.base} without it", progress)
        run = {"tool calls": _choice(settings), "decided by": settings.agent.routing} | _described(
            trial.model
        )
        _change_adapter(trial, adapter.name)
        return base, _side(trial, knowledge, cases, adapter, adapter.name, progress), run


def _trial(settings: Settings, folder: Path) -> Workspace:
    from agentkit.build import Workspace

    return Workspace(Project(starter_root(), is_starter=True, own_data=folder), settings, {})


def _change_adapter(trial: Workspace, name: str) -> None:
    """Go on with the adapter: beside the weights, or where it has to be merged, with the model loaded anew."""
    try:
        trial.model.use_adapter(name)  # type: ignore[union-attr]  # no adapter has a base on a server
    except UsageError:
        trial.settings = trial.settings.model_copy(update={"adapter": name})
        del trial.model  # before the next is loaded: there may be no room for both
        trial.model  # noqa: B018


def _side(
    trial: Workspace, knowledge: KnowledgeBase, cases: Cases, adapter: Adapter, who: str, progress: Progress
) -> Side:
    """Ask everything. What fails is noted, and the next part goes on."""
    from agentkit.evaluation import suite

    side = Side()
    model: Any = trial.model

    def tell(part: str) -> Progress:
        return lambda text: progress(f"{who}: {part} {text}")

    def held_out() -> None:
        rows = _rows(trial, adapter)
        for number, row in enumerate(rows, 1):
            tell(HELD)(f"{number} of {len(rows)}")
            side.losses.append(_loss(model, row))

    def ask(name: str, run: Callable[[], Scores]) -> Callable[[], None]:
        return lambda: side.scores.update({name: run()})

    parts: dict[str, Callable[[], None]] = {
        ROUTING: ask(
            ROUTING,
            lambda: suite.route(lambda: trial.once(knowledge), cases.turns, progress=tell(ROUTING)),
        ),
        ANSWERS: ask(
            ANSWERS,
            lambda: suite.rag(_evaluation(trial, knowledge), cases.questions, progress=tell(ANSWERS)),
        ),
        CALLS: ask(
            CALLS,
            lambda: suite.tools(
                model, cases.calls, tool_choice=_choice(trial.settings), progress=tell(CALLS)
            ),
        ),
    }
    if not held_out_problem(adapter):
        parts = {HELD: held_out, **parts}
    for name, run in parts.items():
        try:
            run()
        except AgentkitError as error:
            side.problems[name] = str(error)
    return side


def _evaluation(trial: Workspace, knowledge: KnowledgeBase) -> Evaluation:
    from agentkit.build import load_embedder
    from agentkit.evaluation.rag import Evaluation
    from agentkit.evaluation.sources import Sources

    sources = Sources.of(knowledge)
    system = trial.prompts.system
    return Evaluation(
        knowledge,
        lambda history, watched: trial.once(watched, history),
        trial.model,
        system,
        sources,
        None,
        load_embedder(),
    )


def _rows(trial: Workspace, adapter: Adapter) -> list[Row]:
    """The held-out chats as the run itself would have read them."""
    from agentkit.training.data import encode, load_chats
    from agentkit.training.job import read_settings

    model: Any = trial.model
    system, length = "", model.context_length
    try:
        job = read_settings(adapter.path)
        system, length = job.system, min(length, job.max_length)
    except (OSError, ValueError):
        pass  # an adapter that no job has made
    rows, _ = encode(
        load_chats(adapter.path / HELD_OUT), model.encoder.without_memory(), length, system=system
    )
    return rows


def _loss(model: Any, row: Row) -> Loss:
    from agentkit.training.data import IGNORED

    scores = model.log_probabilities(row.ids)
    own = [-score for score, label in zip(scores, row.labels[1:], strict=True) if label != IGNORED]
    return sum(own), len(own)


def _choice(settings: Settings) -> Any:
    """Where the router decides that there is a call, it is a matter of course."""
    return "auto" if settings.agent.routing == "model" else "required"


def _described(model: Any) -> dict[str, str]:
    body = model.info()
    keys = ("quantization", "device", "forward_pass", "tool_format")
    return {key.replace("_", " "): str(body[key]) for key in keys if key in body}
