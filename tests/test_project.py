from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from agentkit import project as project_module
from agentkit.errors import NotFoundError, ProjectError
from agentkit.project import Project, find_project, init_project, settings_template, starter_root
from agentkit.settings import Settings, data_dir, load_settings

REPOSITORY = Path(__file__).resolve().parents[1]


def make(folder: Path, toml: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "agentkit.toml").write_text(toml)
    return folder.resolve()


def test_order_is_option_variable_ancestor_starter(tmp_path: Path) -> None:
    named, variable, ancestor = (make(tmp_path / name) for name in ("named", "variable", "ancestor"))
    nested = ancestor / "a" / "b"
    nested.mkdir(parents=True)
    environ = {"AGENTKIT_PROJECT": str(variable)}
    assert find_project(named, nested, environ) == Project(named)
    assert find_project(None, nested, environ) == Project(variable)
    assert find_project(None, nested, {}) == Project(ancestor)
    assert find_project(None, nested, {"AGENTKIT_PROJECT": ""}) == Project(ancestor)
    assert find_project(None, tmp_path, {}) == Project(REPOSITORY, is_starter=True)


def test_folder_with_tools_but_no_marker_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    assert find_project(None, tmp_path, {}).is_starter


@pytest.mark.parametrize("source", ["--project", "AGENTKIT_PROJECT"])
@pytest.mark.parametrize(("name", "what"), [("bare", "has no agentkit.toml"), ("missing", "is not a folder")])
def test_named_folder_that_is_no_project_is_refused(
    tmp_path: Path, source: str, name: str, what: str
) -> None:
    (tmp_path / "bare").mkdir()
    folder = tmp_path / name
    explicit, environ = (folder, {}) if source == "--project" else (None, {"AGENTKIT_PROJECT": str(folder)})
    with pytest.raises(ProjectError) as error:
        find_project(explicit, tmp_path, environ)
    assert (
        str(error.value) == f"{source}: {folder} {what}; make a project there with `agentkit init {folder}`"
    )


def test_the_home_of_nobody_is_no_project() -> None:
    with pytest.raises(NotFoundError, match="~nosuchuser/shop begins with no known home folder"):
        find_project(Path("~nosuchuser/shop"), None, {})


def test_starter_may_be_named() -> None:
    assert find_project(REPOSITORY, None, {}) == Project(REPOSITORY, is_starter=True)


def test_starter_of_a_wheel_comes_before_the_folder_around_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "agentkit"
    (package / "_starter").mkdir(parents=True)
    monkeypatch.setattr(project_module, "__file__", str(package / "project.py"))
    assert starter_root() == package / "_starter"
    (package / "_starter").rmdir()
    with pytest.raises(ProjectError, match="reinstall"):  # and not site-packages/tools
        starter_root()


def test_deleted_current_folder_falls_back_to_the_starter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert find_project(None, None, {}).is_starter


def test_folders_and_data(tmp_path: Path) -> None:
    one, two = Project(tmp_path / "a" / "My shop!"), Project(tmp_path / "b" / "My shop!")
    assert one.tools_dir == one.root / "tools"
    assert one.prompts_dir == one.root / "prompts"
    assert one.knowledge_dir == one.root / "knowledge"
    assert one.data_dir.parent == data_dir() / "projects"
    assert one.data_dir.name.startswith("My-shop-")
    assert one.data_dir != two.data_dir
    assert not one.data_dir.exists()
    assert Project(Path("/")).data_dir.name.startswith("project-")
    assert Project(REPOSITORY, is_starter=True).data_dir == data_dir() / "projects" / "starter"


def test_settings_come_from_the_project(tmp_path: Path) -> None:
    project = Project(make(tmp_path / "shop", '[agent]\nname = "Ada"\ncompany = "Shop"'))
    settings = project.settings({"agent.name": "Bob"})
    assert (settings.agent.name, settings.agent.company) == ("Bob", "Shop")


# agentkit init


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def folders(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "starter"
    for name in ("tools/ner.py", "tools/__pycache__/ner.pyc", "prompts/system.md", "knowledge/a/b.md"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.setattr(project_module, "starter_root", lambda: root)
    return root


@pytest.mark.parametrize("kind", ["new", "empty", "other files"])
def test_init_makes_a_project_that_is_found(tmp_path: Path, starter: Path, kind: str) -> None:
    target = tmp_path / "deep" / "shop"
    if kind != "new":
        target.mkdir(parents=True)
    if kind == "other files":
        (target / "README.md").write_text("mine")
    created = init_project(target)
    assert created == [target / name for name in ("tools", "prompts", "knowledge", "agentkit.toml")]
    expected = snapshot(starter) | {"agentkit.toml": settings_template().encode()}
    del expected["tools/__pycache__/ner.pyc"]
    if kind == "other files":
        expected["README.md"] = b"mine"
    assert snapshot(target) == expected
    assert find_project(None, target / "tools", {}) == Project(target.resolve())
    assert Project(target).settings() == load_settings(None, None, {})


@pytest.mark.parametrize("name", ["tools", "agentkit.toml"])
def test_init_overwrites_nothing(tmp_path: Path, starter: Path, name: str) -> None:
    target = tmp_path / "shop"
    target.mkdir()
    (target / name).write_text("mine")
    with pytest.raises(ProjectError, match=f"already holds {name}"):
        init_project(target)
    assert snapshot(target) == {name: b"mine"}


def test_init_over_a_file_is_refused(tmp_path: Path, starter: Path) -> None:
    target = tmp_path / "shop"
    target.write_text("mine")
    with pytest.raises(ProjectError, match="cannot create a project"):
        init_project(target)
    assert target.read_text() == "mine"


@pytest.mark.parametrize("step", ["copy", "template", "move"])
@pytest.mark.parametrize("exists", [True, False])
def test_init_that_fails_leaves_everything_as_before(
    tmp_path: Path, starter: Path, monkeypatch: pytest.MonkeyPatch, step: str, exists: bool
) -> None:
    target = tmp_path / "shop"
    if exists:
        target.mkdir()
        (target / "README.md").write_text("mine")

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    if step == "copy":
        monkeypatch.setattr(shutil, "copytree", fail)
    elif step == "template":
        monkeypatch.setattr(project_module, "settings_template", fail)
    else:
        rename = Path.rename
        broken = lambda path, to: fail() if to.name == "knowledge" else rename(path, to)  # noqa: E731
        monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(ProjectError, match="No space left"):
        init_project(target)
    assert target.exists() == exists
    assert not exists or folders(target) == {"README.md"}


def test_init_inside_the_starter_does_not_copy_itself(starter: Path) -> None:
    init_project(starter / "knowledge" / "shop")
    assert folders(starter / "knowledge" / "shop" / "knowledge") == {"a", "shop"}


def test_real_starter_can_be_copied(tmp_path: Path) -> None:
    init_project(tmp_path / "shop")
    assert {"system.md", "passages.md", "decline.md"} <= folders(tmp_path / "shop" / "prompts")
    assert not any(path.name == "__pycache__" for path in (tmp_path / "shop").rglob("*"))


def test_template_shows_every_key_with_its_default() -> None:
    text = settings_template()
    switched_on = [
        line[1:] if line.startswith("#") and line[1:2].isalpha() else line for line in text.splitlines()
    ]
    with_values = "\n".join(line for line in switched_on if not line.endswith(" ="))
    values = tomllib.loads(with_values)
    assert Settings.model_validate(values) == Settings()
    shown = {key for key in values} | {
        f"{s}.{k}" for s, body in values.items() if isinstance(body, dict) for k in body
    }
    assert {"model", "sampling.seed", "agent.company", "knowledge.limit", "tools.timeout_s"} <= shown
    assert "#min_score =" in text  # unset by default, so there is no value to show
    assert "One of: auto, cpu, cuda." in text
