"""`agentkit demo`: a scripted customer conversation; only the customer's lines are scripted.

Everything the demonstration writes lies under the user data folder in ``demo/``, apart from the user's own sessions.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentkit.cli.common import hush
from agentkit.cli.output import clean, has_colours, json_line, status
from agentkit.errors import AgentkitError
from agentkit.events import Event, Notice, ToolFinished, ToolStarted, TurnDone, TurnFailed
from agentkit.messages import Reply
from agentkit.ui.clean import call_text, one_line, source_text

if TYPE_CHECKING:
    from agentkit.build import Agent, Workspace
    from agentkit.training.jobs import Job

PHOTO, CHATS, ADAPTER = "customer_photo.jpg", "our_chats.jsonl", "warm-wishes"
TRAINING_LIMIT_S = 600.0
TRANSLATOR_INSTALL = "apt-get install apertium-eng-spa"

Check = Callable[[Reply], str | None]
"""What is wrong with a reply; ``None`` when the step did its job."""


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of the script."""

    shows: str
    """What the step is there to show."""
    says: str
    """The customer's line."""
    check: Check


def cites(document: str, *words: str) -> Check:
    """The answer cites ``document`` and holds one of ``words``."""

    def check(reply: Reply) -> str | None:
        cited = [citation.document for citation in reply.citations]
        if document not in cited:
            return f"expected a citation of {document}, got {', '.join(cited) or 'none'}"
        return (
            None
            if any(word in reply.text for word in words)
            else f"expected {' or '.join(words)} in the answer"
        )

    return check


def calls(tool: str, *words: str) -> Check:
    """``tool`` ran without error and its result holds all of ``words``."""

    def check(reply: Reply) -> str | None:
        result = next((result for result in reply.tool_results if result.name == tool), None)
        if result is None or not result.ok:
            return f"expected a result of {tool}, got {result.error if result else 'no call'}"
        missing = [word for word in words if word.lower() not in str(result.value).lower()]
        return f"expected {', '.join(missing)} in the result of {tool}" if missing else None

    return check


def declines(reply: Reply) -> str | None:
    """The reply says that it does not know, and rests on nothing."""
    declined = any("a person was offered" in notice for notice in reply.notices)
    return None if declined and not reply.citations else "expected the question to be declined"


def chats(reply: Reply) -> str | None:
    """The reply has words, and neither calls nor citations."""
    return (
        None if reply.text and not reply.tool_calls and not reply.citations else "expected plain small talk"
    )


SCRIPT = (
    Step("small talk", "Hello! Who are you?", chats),
    Step(
        "an answer from the help centre, with its source",
        "How many days do I have to send something back?",
        cites("orders/returns.md", "30 days"),
    ),
    Step("another source", "Do you accept PayPal?", cites("payment/payment-methods.md", "PayPal")),
    Step(
        "a message in Spanish: the translator",
        "A customer wrote this, please translate it into English: 'Mi lámpara está rota. Quiero una lámpara nueva.'",
        calls("translator", "lamp", "broken"),
    ),
    Step(
        "sorting a ticket: the classifier",
        "Which team should get it: billing, repairs or newsletter? 'The lamp is broken, can it be mended?'",
        calls("classifier", "repairs"),
    ),
    Step(
        "names, places and dates: the recogniser",
        "Which names, places and dates are in this note: 'Maria Lopez from Dublin ordered the lamp on 3 March 2026.'",
        calls("ner", "Maria Lopez", "Dublin", "March"),
    ),
    Step(
        "a picture: the captioner",
        f"The customer sent a photo, {PHOTO}. What is on it?",
        calls("captioner", "daisy"),
    ),
    Step("a question it must not answer", "Will it rain in Dublin tomorrow?", declines),
    Step(
        "learning from chats: fine-tuning, with approval",
        f"Please fine-tune yourself on {CHATS} for one epoch and call it {ADAPTER}",
        calls("finetune", ADAPTER),
    ),
)
FAREWELL = (
    Step(
        "the conversation goes on after a restart, with the new adapter",
        "And how much is standard delivery within Ireland?",
        cites("orders/shipping.html", "€"),
    ),
    Step("goodbye", "Thank you very much, goodbye!", chats),
)


def run(as_json: bool, options: Mapping[str, Any]) -> int:
    """Play the conversation.

    Args:
        as_json: Print events, one a line, instead of a transcript.
        options: Dotted settings from the command line.

    Returns:
        0 if every step did its job, else 1.
    """
    from agentkit.settings import data_dir, user_dir

    options = _rooted(options)
    os.environ.pop(
        "AGENTKIT_PROJECT", None
    )  # the script fits the starter project only, in tools' processes too
    os.environ["AGENTKIT_DATA_DIR"] = str(user_dir(data_dir().absolute() / "demo"))
    shutil.rmtree(data_dir() / "adapters", ignore_errors=True)
    shutil.rmtree(data_dir() / "files", ignore_errors=True)
    player = Player(as_json)
    before = Path.cwd()
    try:
        os.chdir(_files(user_dir(data_dir() / "files")))
        _play(player, options)
    finally:
        os.chdir(before)
    return player.finish()


def _rooted(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with paths that hold in any folder; those in the environment are changed there."""
    from agentkit.assets import ASSETS
    from agentkit.settings import cache_dir, expanded

    names = {*ASSETS, "auto", "none", "shipped"}  # a folder of such a name is not meant

    def rooted(value: str) -> str:
        return str(expanded(value).absolute()) if value not in names and expanded(value).exists() else value

    if os.environ.get("AGENTKIT_CACHE_DIR"):
        os.environ["AGENTKIT_CACHE_DIR"] = str(cache_dir().absolute())
    for variable in ("AGENTKIT_MODEL", "AGENTKIT_ADAPTER"):
        if value := os.environ.get(variable):
            os.environ[variable] = rooted(value)
    return {key: rooted(value) if key in ("model", "adapter") else value for key, value in options.items()}


def _play(player: Player, options: Mapping[str, Any]) -> None:
    with _open(options) as workspace:
        agent = player.open(workspace, None)
        player.earlier = frozenset(job.id for job in workspace.jobs())
        player.play(agent, SCRIPT)
        player.train(workspace)
        session = agent.session.id
    tuned = {**options, "adapter": ADAPTER} if player.trained else options
    with _open(tuned) as workspace:
        agent = player.open(workspace, session)
        player.play(agent, FAREWELL)


def _open(options: Mapping[str, Any]) -> Workspace:
    from agentkit.build import Workspace
    from agentkit.errors import UsageError
    from agentkit.llm.openai.address import is_remote
    from agentkit.project import Project, starter_root

    project = Project(starter_root(), is_starter=True)
    # An index on a server that the environment names is the user's own.
    options = {**options, "knowledge.index": "", "knowledge.path": "knowledge", "agent.approve": "ask"}
    settings = project.settings(options)
    if is_remote(settings.model):  # it trains the model, and measures its own engine
        raise UsageError(
            "the demonstration needs a model in this process", "leave --model and AGENTKIT_MODEL out"
        )
    hush(settings.model)
    return Workspace(project, settings, options)


def _files(folder: Path) -> Path:
    """The files that the customer talks about: a photograph and the shop's earlier chats."""
    import importlib.util

    from agentkit.project import starter_root

    shutil.copy(starter_root() / "examples" / "chats.jsonl", folder / CHATS)
    spec = None
    with suppress(ModuleNotFoundError):  # raised where the parent, sklearn, is missing
        spec = importlib.util.find_spec("sklearn.datasets")  # has test photographs
    if spec is None or spec.origin is None:
        raise AgentkitError("the demonstration's photograph is missing", "pip install scikit-learn")
    shutil.copy(Path(spec.origin).parent / "images" / "flower.jpg", folder / PHOTO)
    return folder


class Player:
    """Plays steps, prints what happens and keeps count."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._started = time.perf_counter()
        self._done = self._failed = self._skipped = 0
        self.trained = False
        self.earlier: frozenset[str] = frozenset()
        """Ids of the jobs of earlier plays."""

    def open(self, workspace: Workspace, session: str | None) -> Agent:
        """Load model and knowledge, and say what was opened."""
        started = time.perf_counter()
        status("reading the knowledge base")
        workspace.ready_knowledge(lambda name: status(f"indexing {name}"))
        status(f"loading {workspace.settings.model}")
        agent = workspace.agent(session)
        status("")
        info = workspace.model.info()
        adapter = f" + adapter {info['adapter']}" if info["adapter"] != "none" else ""
        resumed = f"resumed with {len(agent.session.messages())} messages" if session else "new"
        self._note(
            f"{info['name']}{adapter}, {info['parameters'] / 1e6:.0f} M parameters, {info['quantization']} on "
            f"{info['device']}; {len(workspace.knowledge.list())} documents; session {agent.session.id} ({resumed}); "
            f"ready in {time.perf_counter() - started:.1f} s"
        )
        return agent

    def play(self, agent: Agent, steps: tuple[Step, ...]) -> None:
        """Play steps in order."""
        for step in steps:
            if "translator" in step.shows and shutil.which("apertium") is None:
                self._skip(step, f"no translation backend; install one: {TRANSLATOR_INSTALL}")
                continue
            self._turn(agent, step)

    def _turn(self, agent: Agent, step: Step) -> None:
        self._customer(step)
        started = time.perf_counter()
        problem: str | None = "the turn ended without a reply"
        for event in agent.stream(step.says, approve=self._approve):
            self._show(event, time.perf_counter() - started)
            if isinstance(event, TurnDone):
                problem = step.check(event.reply)
            elif isinstance(event, TurnFailed):
                problem = event.error
        self._result(step.shows, problem, time.perf_counter() - started)

    def train(self, workspace: Workspace) -> None:
        """Follow the job that the conversation has started."""
        from agentkit.training import jobs

        started = time.perf_counter()
        found = [
            job
            for job in jobs.list_jobs(workspace.jobs_dir)
            if job.name == ADAPTER and job.id not in self.earlier
        ]
        if not found:
            self._result("the adapter is trained", "no job was started", 0.0)
            return
        job = jobs.wait(found[0], TRAINING_LIMIT_S, self._progress)
        status("")
        self.trained = job.status == "done"
        problem = (
            None
            if self.trained
            else f"the job {job.status}: {job.error or f'not done in {TRAINING_LIMIT_S} s'}"
        )
        if self.trained:
            self._note(_outcome(job))
        self._result("the adapter is trained", problem, time.perf_counter() - started)

    def finish(self) -> int:
        """Print the summary and return the exit code."""
        seconds = time.perf_counter() - self._started
        if self._as_json:
            counts = {"done": self._done, "failed": self._failed, "skipped": self._skipped}
            json_line({"type": "demo_done", "ok": not self._failed, **counts, "seconds": round(seconds, 2)})
        else:
            skipped = f", {self._skipped} skipped" if self._skipped else ""
            failed = f", {self._failed} failed" if self._failed else ""
            _say(f"{self._done} steps did their job{failed}{skipped}, {seconds:.0f} s in all")
        return 1 if self._failed else 0

    def _approve(self, request: Any) -> bool:
        self._note(f"{one_line(request.reason)}: approved by the script")
        return True

    def _customer(self, step: Step) -> None:
        if not self._as_json:
            _say(f"{self._paint('2', '── ' + step.shows)}\n{self._paint('1', 'Customer')}  {step.says}")

    def _show(self, event: Event, seconds: float) -> None:
        if self._as_json:
            json_line(event.to_json())
        elif isinstance(event, ToolStarted):
            self._note(f"→ {call_text(event.call.name, event.call.arguments, 300)}")
        elif isinstance(event, ToolFinished):
            text = event.result.value if event.result.ok else f"failed: {event.result.error}"
            self._note(f"← {one_line(str(text), 200)}  ({event.result.seconds:.1f} s)")
        elif isinstance(event, Notice):
            self._note(f"! {one_line(event.text)}")
        elif isinstance(event, TurnDone):
            _say(
                f"{self._paint('1;36', 'Lumi')}      {clean(event.reply.text)}  "
                f"{self._paint('2', f'({seconds:.1f} s)')}"
            )
            for citation in event.reply.citations:
                self._note(
                    f"[{citation.number}] {source_text(citation.document, citation.heading, citation.page)}"
                )

    def _progress(self, line: dict[str, Any]) -> None:
        if self._as_json:
            json_line({"type": "finetune_progress", **line})
        else:
            status(f"training: step {line['step']} of {line['steps']}, loss {line['loss']:.2f}")

    def _result(self, shows: str, problem: str | None, seconds: float) -> None:
        self._done, self._failed = self._done + (problem is None), self._failed + (problem is not None)
        if self._as_json:
            body = {"step": shows, "ok": problem is None, "problem": problem, "seconds": round(seconds, 2)}
            json_line({"type": "demo_step", **body})
        else:
            _say(self._paint("31", f"          failed: {one_line(problem)}\n") if problem else "")

    def _skip(self, step: Step, reason: str) -> None:
        self._skipped += 1
        if self._as_json:
            json_line({"type": "demo_step", "step": step.shows, "ok": None, "problem": reason, "seconds": 0})
        else:
            self._customer(step)
            _say(f"          skipped: {reason}\n")

    def _note(self, text: str) -> None:
        if not self._as_json:
            _say(self._paint("2", f"          {clean(text)}"))

    @staticmethod
    def _paint(code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if has_colours(sys.stdout) else text


def _say(text: str) -> None:
    """Print a line with its styling, which `output.data` would take away; foreign text in it is clean already."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _outcome(job: Job) -> str:
    from agentkit.training.adapters import get_adapter

    adapter = get_adapter(job.adapter.parent, job.name).to_json() if job.adapter else {}
    return (
        f"adapter {job.name}: {adapter['examples']} chats, loss on held-out chats {adapter['loss_before']:.2f} → "
        f"{adapter['loss_after']:.2f} in {adapter['seconds']:.0f} s"
    )
