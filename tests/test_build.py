"""The public API, wired: agents from functions and from projects, sessions, forks, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agentkit
from agentkit import Agent, KnowledgeBase, load_model, open_project, tool
from agentkit.assets import asset_path
from agentkit.build import Workspace
from agentkit.errors import (
    AgentkitError,
    KnowledgeError,
    NotFoundError,
    SchemaError,
    SettingsError,
    UsageError,
)
from agentkit.events import ToolFinished
from agentkit.llm.scripted import ScriptedModel
from agentkit.messages import ToolCall
from agentkit.project import find_project, starter_root
from agentkit.retrieval.knowledge import KnowledgeBase as BaseKnowledge

TOOL_FILE = '''
from agentkit import tool

@tool(
    examples=[("Where is order 1042?", {"order_id": "1042"})],
    reply="Order {{ arguments.order_id }} is {{ result }}.",
)
def order_status(order_id: str) -> str:
    """Look up where an order is.

    Args:
        order_id: The number of the order.
    """
    return "on its way"
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own with a tool, a document and prompts."""
    root = tmp_path / "shop"
    for folder in ("tools", "prompts", "knowledge"):
        (root / folder).mkdir(parents=True)
    (root / "agentkit.toml").write_text("[agent]\nname = 'Robin'\n")
    (root / "tools" / "orders.py").write_text(TOOL_FILE)
    (root / "knowledge" / "returns.md").write_text("# Returns\n\nYou can return parcels within 30 days.\n")
    for prompt in (Path(__file__).parents[1] / "prompts").iterdir():
        (root / "prompts" / prompt.name).write_text(prompt.read_text(encoding="utf-8"), encoding="utf-8")
    return root


def double(n: int) -> int:
    """Double a number.

    Args:
        n: The number.
    """
    return 2 * n


def scripted(project: Path, *steps: Any, session: str | None = None, **options: Any) -> Agent:
    """An agent over a project whose model is a script that decides by itself."""
    workspace = open_project(project, {"agent.routing": "model"})
    return Agent(ScriptedModel(steps), workspace=workspace, session=session, **options)


def test_an_agent_of_plain_functions(project: Path) -> None:
    agent = scripted(project, ToolCall("1", "double", {"n": 21}), "It is 42.", tools=[double])
    events = list(agent.stream("Double 21"))
    finished = next(event for event in events if isinstance(event, ToolFinished))
    assert (finished.result.ok, finished.result.value) == (True, 42)
    assert events[-1].to_json()["text"] == "It is 42."
    agent.close()
    agent.workspace.close()


def test_an_agent_needs_no_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with Agent(ScriptedModel(["Hello!"]), tools=[double]) as agent:
        assert agent.workspace.project.is_starter
        assert agent.session.messages() == []


def test_a_tool_that_cannot_be_one_is_refused(project: Path) -> None:
    def undocumented(x: int) -> int:
        return x

    with pytest.raises(SchemaError, match="no docstring"):
        scripted(project, tools=[undocumented])


def test_an_unknown_session_is_not_found(project: Path) -> None:
    with pytest.raises(NotFoundError, match="no session"):
        scripted(project, session="2020-01-01-nothing")
    with pytest.raises(NotFoundError, match="no session"):
        Agent.from_project(project, session="2020-01-01-nothing", model="org/never-loaded")


def test_a_session_is_resumed_and_forked(project: Path) -> None:
    first = scripted(project, "Hello!")
    first.ask("Hi")
    resumed = scripted(project, "Again!", session=first.session.id)
    assert resumed.ask("Me again").text == "Again!"
    assert [m.content for m in resumed.session.messages()[1:]] == ["Hi", "Hello!", "Me again", "Again!"]
    fork = resumed.fork()
    fork.model = ScriptedModel(["Elsewhere."])
    fork.ask("Another way")
    assert fork.session.id != resumed.session.id
    assert len(fork.session.messages()) == len(resumed.session.messages()) + 2
    fork.close()
    assert resumed.session.messages()  # closing a fork leaves the workspace open
    for agent in (first, resumed):
        agent.workspace.close()


def test_from_project_uses_the_projects_parts(project: Path) -> None:
    with Agent.from_project(
        project, sampling__max_new_tokens=40, adapter="none", agent__max_steps=3
    ) as agent:
        assert agent.workspace.settings.sampling.max_new_tokens == 40
        assert agent.workspace.settings.agent.max_steps == 3
        assert [spec.name for spec in agent.tools.specs()] == ["order_status"]
        assert "Robin" in agent.workspace.prompts.system
        reply = agent.ask("Where is order 1042?")
        assert [(c.name, c.arguments) for c in reply.tool_calls] == [("order_status", {"order_id": "1042"})]
        assert reply.text == "Order 1042 is on its way."
        reply = agent.ask("Within how many days can I return parcels?")
        assert "30 days" in reply.text
        assert [c.document for c in reply.citations] == ["returns.md"]


def test_unknown_settings_are_refused(project: Path) -> None:
    with pytest.raises(SettingsError, match="temprature"):
        Agent.from_project(project, sampling__temprature=1)
    with pytest.raises(UsageError, match="temprature"):
        load_model(temprature=1)


def test_unknown_models_and_adapters(project: Path) -> None:
    for name in ("nonsense", "org/nonsense", "/no/folder", "minilm"):
        with pytest.raises(UsageError) as caught:
            load_model(name, adapter="none", router=None)
        assert caught.value.exit_code == 2
        assert caught.value.remedy
    with pytest.raises(AgentkitError, match="adapter"):
        load_model(adapter="no-such-adapter")
    with pytest.raises(UsageError, match="unknown tool_format 'xml'"):
        load_model(adapter="none", router=None, tool_format="xml")


def test_the_knowledge_base_of_a_folder(project: Path, tmp_path: Path) -> None:
    base = KnowledgeBase(project / "knowledge", tmp_path / "index.sqlite")
    assert base.search("return parcels")[0].document == "returns.md"
    base.close()
    with pytest.raises(AgentkitError, match="nowhere"):
        KnowledgeBase(tmp_path / "nowhere")


def test_one_synchronisation_for_each_agent(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[None] = []
    sync = BaseKnowledge.sync

    def counted(base: BaseKnowledge, progress: Any = None) -> Any:
        rounds.append(None)
        return sync(base, progress)

    monkeypatch.setattr(BaseKnowledge, "sync", counted)
    monkeypatch.setattr(Workspace, "model", ScriptedModel(["Hello."]))
    (project / "knowledge" / "bad.md").write_bytes(b"\x00")
    with open_project(project) as workspace:
        knowledge = workspace.ready_knowledge()
        assert [notice.split(":")[0] for notice in knowledge.notices] == ["bad.md skipped"]
        workspace.agent().close()
        assert len(rounds) == 1
        workspace.agent().close()
        assert len(rounds) == 2
        assert len(knowledge.notices) == 1


def test_a_knowledge_folder_that_is_missing_is_told(project: Path) -> None:
    wrong = {"knowledge.path": "knowlege"}
    with (
        open_project(project, wrong) as workspace,
        pytest.raises(KnowledgeError, match="knowlege does not exist"),
    ):
        workspace.ready_knowledge()
    with open_project(project) as workspace:
        workspace.ready_knowledge()
    (project / "knowledge").rename(project / "moved")
    with open_project(project) as workspace:
        with pytest.raises(KnowledgeError, match="knowledge does not exist"):
            workspace.ready_knowledge()
        assert len(workspace.knowledge.list()) == 1


def test_a_project_may_have_no_knowledge_folder(project: Path) -> None:
    (project / "knowledge" / "returns.md").unlink()
    (project / "knowledge").rmdir()
    with open_project(project) as workspace:
        assert workspace.ready_knowledge().list() == []


def test_embedders_have_indexes_of_their_own(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        name, dimension = "other", 4

        def embed(self, texts: Any) -> Any:
            return np.eye(1, 4, dtype=np.float32).repeat(len(texts), 0)

    folder = project / "knowledge"
    for _ in range(2):
        for embedder in (None, Other()):
            base = KnowledgeBase(folder, embedder=embedder)
            assert base.notices == []
            base.close()
    monkeypatch.setenv("HOME", str(tmp_path))
    base = KnowledgeBase(folder, "~/index.sqlite", Other())
    assert (tmp_path / "index.sqlite").is_file()
    base.close()


def test_the_settings_name_an_embedder(project: Path) -> None:
    wrong = pytest.raises(UsageError, match=r"'ner-en' is no embedder; embedded embedders: minilm, mpnet")
    with open_project(project, {"knowledge.embedder": "ner-en"}) as workspace, wrong:
        workspace.knowledge  # noqa: B018
    encoder = str(asset_path("minilm"))  # a folder, as of any other encoder
    with open_project(project, {"knowledge.embedder": encoder}) as workspace:
        found = workspace.ready_knowledge().search("How long do returns take?")
        assert found[0].document == "returns.md"
    with KnowledgeBase(project / "knowledge", embedder=encoder) as base:
        assert base.search("How long do returns take?")[0].document == "returns.md"


def test_settings_reach_the_worker_process(project: Path) -> None:
    tools = {"classifier": {"model": "topics"}}
    with open_project(project, {"sampling.seed": 3, "device": "cpu", "tools.options": tools}) as workspace:
        variables = workspace._environment()
    assert variables["AGENTKIT_TOOLS__OPTIONS__CLASSIFIER__MODEL"] == "topics"
    assert variables["AGENTKIT_SAMPLING__SEED"] == "3"
    assert variables["AGENTKIT_DEVICE"] == "cpu"
    assert variables["AGENTKIT_PROJECT"] == str(project)


def test_a_worker_of_the_starter_does_not_find_another_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    with open_project(starter_root()) as workspace:
        variables = workspace._environment()
    assert find_project(None, project, variables).is_starter
    assert find_project(None, project, {}).root == project


def test_every_public_name_resolves() -> None:
    for name in agentkit.__all__:
        assert getattr(agentkit, name) is not None
    assert set(dir(agentkit)) == set(agentkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        agentkit.nothing  # noqa: B018
    assert tool(double).name == "double"


def test_a_model_whose_name_no_file_can_have() -> None:
    with pytest.raises(NotFoundError, match=r"there is no model x{60}… \(File name too long\)"):
        load_model("x" * 300, adapter="none", router=None)


def test_what_a_project_says_of_its_own_model_is_not_said_of_others(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("agentkit.build.workspace.load_model", lambda name, **options: seen.update(options))
    (project / "agentkit.toml").write_text('adapter = "warm-wishes"\nquantize = "int8"\n', encoding="utf-8")

    def loaded(name: str | None, **options: Any) -> tuple[str, str]:
        with open_project(project, options) as workspace:
            workspace.load(name)
        return seen["adapter"], seen["quantize"]

    assert loaded(None) == ("warm-wishes", "int8")
    assert loaded("smollm2-135m") == ("warm-wishes", "int8")
    assert loaded("gemma3-270m") == ("auto", "int8")
    assert loaded("openai+http://127.0.0.1:1/v1#x") == ("auto", "auto")
    assert loaded("gemma3-270m", adapter="own") == ("own", "int8")
    (project / "agentkit.toml").write_text('adapter = "none"\n', encoding="utf-8")
    assert loaded("gemma3-270m") == ("none", "auto")


def test_agents_of_one_project_share_its_model(project: Path) -> None:
    with open_project(project, {"agent.routing": "model"}) as workspace:
        first, second = Agent(workspace=workspace), Agent(workspace=workspace)
        assert first.model is second.model is workspace.model
