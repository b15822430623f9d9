"""Tools from folders and entry points."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import NotFoundError, ProjectError
from agentkit.messages import ToolCall
from agentkit.tooling import loading
from agentkit.tooling.registry import ToolRegistry, load_tools

HEAD = "from __future__ import annotations\nfrom agentkit.tooling.tool import tool\n"


def call(name: str, /, **arguments: Any) -> ToolCall:
    """A call as the model makes it."""
    return ToolCall("call_1", name, arguments)


GREET = '@tool\ndef greet(name: str) -> str:\n    """Greet."""\n    return f"hello {name}"\n'


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_files_load_in_order_and_import_their_neighbours(tmp_path: Path) -> None:
    write(tmp_path, "_helper.py", "WORD = 'hi'\n")
    write(tmp_path, "json.py", HEAD + GREET)
    code = HEAD + GREET.replace("greet", "wave").replace(
        "    return", "    from ._helper import WORD\n    return WORD +"
    )
    write(tmp_path, "a-b.py", code)
    before = sys.modules["json"]
    tools = load_tools(tmp_path)
    assert [found.name for found in tools] == ["wave", "greet"]
    assert tools[0].source == (tmp_path / "a-b.py").resolve()
    assert sys.modules["json"] is before
    with ToolRegistry(tools) as registry:
        assert registry.run(call("wave", name="Ann")).value == "hihello Ann"


def test_a_changed_file_loads_anew(tmp_path: Path) -> None:
    write(tmp_path, "one.py", HEAD + GREET)
    assert load_tools(tmp_path)[0]("Ann") == "hello Ann"
    write(tmp_path, "one.py", HEAD + GREET.replace("hello", "good evening"))
    assert load_tools(tmp_path)[0]("Ann") == "good evening Ann"


def test_no_folder_no_tools(tmp_path: Path) -> None:
    assert load_tools(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ("import nothing_like_this\n", "line 1", "ModuleNotFoundError"),
        ("x = 1\nx = (\n", "line 2", "SyntaxError"),
        ("\n\nraise ValueError('a\\nb')\n", "line 3", "ValueError: a b"),
        ("import sys\nsys.exit(1)\n", "line 2", "SystemExit"),
        (HEAD + "@tool\ndef f(x):\n    '''Doc.'''\n", "line 3", "parameter 'x' has no type annotation"),
        ("x = 1\n", "", "defines no tool"),
        ("x = '\0'\n", "", "null bytes"),
    ],
)
def test_a_file_that_does_not_load_is_named_in_one_line(
    tmp_path: Path, text: str, where: str, problem: str
) -> None:
    write(tmp_path, "broken.py", text)
    with pytest.raises(ProjectError) as caught:
        load_tools(tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "broken.py") in message
    assert where in message
    assert problem in message
    assert "\n" not in message


def test_two_tools_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, "one.py", HEAD + GREET)
    write(tmp_path, "two.py", HEAD + GREET)
    with pytest.raises(ProjectError, match=r"two tools are called 'greet': in .*one\.py and .*two\.py"):
        load_tools(tmp_path)


def test_get_names_the_nearest(tmp_path: Path) -> None:
    registry = ToolRegistry(load_tools(write(tmp_path, "one.py", HEAD + GREET)))
    assert registry.get("greet").side_effect is False
    with pytest.raises(NotFoundError, match="did you mean greet"):
        registry.get("great")


@pytest.fixture
def installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    site = write(tmp_path / "site", "their_tools.py", HEAD + GREET)
    info = site / "their_tools-1.0.dist-info"
    write(info, "METADATA", "Metadata-Version: 2.1\nName: their-tools\nVersion: 1.0\n")
    write(info, "entry_points.txt", "[agentkit.tools]\ntheirs = their_tools\n")
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("their_tools", None)


def test_entry_points_run_in_the_worker_too(installed_package: Path) -> None:
    assert metadata.entry_points(group="agentkit.tools", name="theirs")
    with ToolRegistry(loading.load_entry_points()) as registry:
        assert registry.get("greet").entry_point == "theirs"
        assert registry.run(call("greet", name="Ann")).value == "hello Ann"


def test_an_entry_point_that_is_no_tool(installed_package: Path) -> None:
    write(
        installed_package / "their_tools-1.0.dist-info",
        "entry_points.txt",
        "[agentkit.tools]\ntheirs = their_tools:plain\n",
    )
    write(installed_package, "their_tools.py", "def plain():\n    pass\n")
    with pytest.raises(ProjectError, match=r"entry point 'theirs' .* holds no tool, but function"):
        loading.load_entry_points()


def test_an_entry_point_that_does_not_load(installed_package: Path) -> None:
    (installed_package / "their_tools.py").write_text("raise OSError('gone')")
    with pytest.raises(ProjectError, match=r"entry point 'theirs' .* OSError: gone"):
        loading.load_entry_points()
    with pytest.raises(NotFoundError):
        loading.load_entry_point("unknown")


def test_a_tool_may_be_made_by_a_helper_and_is_its_own_files_alone(tmp_path: Path) -> None:
    made = """
def make(name):
    def call(text: str) -> str:
        \"\"\"Call it.\"\"\"
        return f"{name} {text}"
    return tool(name=name)(call)
"""
    write(tmp_path, "_rest.py", HEAD + made)
    write(tmp_path, "weather.py", "from ._rest import make\nweather = make('weather')\n")
    write(tmp_path, "zoo.py", HEAD + "from .weather import weather\n" + GREET)
    write(tmp_path, "._zoo.py", "\0")  # what macOS leaves on other file systems
    tools = load_tools(tmp_path)
    assert [found.name for found in tools] == ["weather", "greet"]
    with ToolRegistry(tools) as registry:
        assert registry.run(call("weather", text="now")).value == "weather now"


def test_what_a_file_prints_while_it_loads_is_no_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "a.py", HEAD + "print('hello from a library')\n" + GREET)
    assert [found.name for found in load_tools(tmp_path)] == ["greet"]
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "hello from a library\n")
