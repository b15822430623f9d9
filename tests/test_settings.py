from __future__ import annotations

from pathlib import Path

import pytest

from agentkit.errors import NotFoundError, SettingsError
from agentkit.settings import cache_dir, data_dir, expanded, load_settings


def write(folder: Path, text: str) -> Path:
    path = folder / "agentkit.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_precedence_is_option_environment_file_default(tmp_path: Path) -> None:
    toml = write(tmp_path, '[sampling]\nseed = 1\ntop_k = 1\nmax_new_tokens = 1\n[agent]\nname = "File"')
    environ = {"AGENTKIT_SAMPLING__SEED": "2", "AGENTKIT_SAMPLING__TOP_K": "2"}
    settings = load_settings(toml, {"sampling.seed": 3}, environ)
    assert (settings.sampling.seed, settings.sampling.top_k, settings.sampling.max_new_tokens) == (3, 2, 1)
    assert (settings.sampling.temperature, settings.agent.name, settings.model) == (
        0.0,
        "File",
        "smollm2-135m",
    )


def test_options_that_were_not_given_change_nothing() -> None:
    assert load_settings(None, {"model": None, "sampling.seed": None}, {}) == load_settings(None, None, {})


def test_missing_file_means_defaults(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "agentkit.toml", None, {}) == load_settings(None, None, {})


@pytest.mark.parametrize(
    ("toml", "environ", "options", "source", "key", "known"),
    [
        ("modle = 'x'", {}, {}, "agentkit.toml", "modle", "model, adapter"),
        ("[sampling]\nsede = 1", {}, {}, "agentkit.toml", "sampling.sede", "temperature"),
        ("", {"AGENTKIT_MODLE": "x"}, {}, "AGENTKIT_MODLE", "modle", "model, adapter"),
        ("", {"AGENTKIT_AGENT__NAEM": "x"}, {}, "AGENTKIT_AGENT__NAEM", "agent.naem", "company"),
        ("", {}, {"sampling.sede": 1}, "--sede", "sampling.sede", "temperature"),
    ],
)
def test_unknown_key_is_refused_with_source_and_known_keys(
    tmp_path: Path,
    toml: str,
    environ: dict[str, str],
    options: dict[str, int],
    source: str,
    key: str,
    known: str,
) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(write(tmp_path, toml), options, environ)
    assert source in error.value.cause
    assert repr(key) in error.value.cause
    assert known in error.value.remedy
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("toml", "environ", "options", "parts"),
    [
        ("[sampling]\ntemperature = 'hot'", {}, {}, ["agentkit.toml", "sampling.temperature", "'hot'"]),
        ("device = 'tpu'", {}, {}, ["agentkit.toml", "device", "'tpu'"]),
        ("sampling = 3", {}, {}, ["agentkit.toml", "sampling", "3"]),
        ("model = 3", {}, {}, ["agentkit.toml", "model", "3"]),
        ("", {"AGENTKIT_SAMPLING__TOP_P": "1.5"}, {}, ["AGENTKIT_SAMPLING__TOP_P", "less than", "1.5"]),
        ("", {"AGENTKIT_SAMPLING": "5"}, {}, ["AGENTKIT_SAMPLING", "sampling", "5"]),
        ("", {"AGENTKIT_MODEL__SIZE": "5"}, {}, ["AGENTKIT_MODEL__SIZE", "model"]),
        (
            "model = 'm'",
            {"AGENTKIT_MODEL__SIZE": "5"},
            {},
            ["AGENTKIT_MODEL__SIZE", "model is not a section"],
        ),
        ("", {}, {"quantize": "int2"}, ["--quantize", "int2"]),
        ("model = [" + "'x', " * 5000 + "]", {}, {}, ["agentkit.toml", "model"]),
    ],
)
def test_wrong_value_is_one_short_line_with_source_and_key(
    tmp_path: Path, toml: str, environ: dict[str, str], options: dict[str, str], parts: list[str]
) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(write(tmp_path, toml), options, environ)
    text = str(error.value)
    assert all(part in text for part in parts), text
    assert "\n" not in text
    assert len(text) < 400


@pytest.mark.parametrize("content", [b"model = ", b"[sampling", b"\xff\xfe\x00", b"a = 1\na = 2"])
def test_broken_file_is_one_line_with_the_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "agentkit.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as error:
        load_settings(path, None, {})
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_file_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "agentkit.toml"
    path.write_bytes(b"\xef\xbb\xbfmodel = 'm'")
    assert load_settings(path, None, {}).model == "m"


@pytest.mark.parametrize(
    "text", ["7", "1.50", "true", "2026-11-23", "Lantern & Loom", '"quoted"', "[x] y", "a\nb = 1"]
)
def test_environment_text_stays_text_where_text_is_wanted(text: str) -> None:
    assert load_settings(None, None, {"AGENTKIT_AGENT__COMPANY": text}).agent.company == text


def test_environment_values_are_converted_by_the_type_of_their_key() -> None:
    environ = {
        "AGENTKIT_SAMPLING__TEMPERATURE": "0.5",
        "AGENTKIT_SAMPLING__TOP_K": "40",
        "AGENTKIT_SAMPLING__STOP": '["END", "\\n\\n"]',
        "AGENTKIT_KNOWLEDGE__MIN_SCORE": "0.3",
        "AGENTKIT_TOOLS__OPTIONS__NER__LIMIT": "5",
        "AGENTKIT_TOOLS__OPTIONS__NER__MODEL": "dslim/bert-base-NER",
    }
    settings = load_settings(None, None, environ)
    assert (settings.sampling.temperature, settings.sampling.top_k) == (0.5, 40)
    assert settings.sampling.stop == ("END", "\n\n")
    assert settings.knowledge.min_score == 0.3
    assert settings.tools.options == {"ner": {"limit": 5, "model": "dslim/bert-base-NER"}}


def test_empty_and_reserved_variables_and_those_of_others_are_no_settings() -> None:
    environ = {"AGENTKIT_MODEL": "", "AGENTKIT_PROJECT": "/p", "AGENTKIT_DATA_DIR": "/d", "MODEL": "x"}
    assert load_settings(None, None, environ) == load_settings(None, None, {})


def test_settings_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings(None, None, {}).model = "other"  # type: ignore[misc]


def test_folders_follow_their_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTKIT_DATA_DIR", str(tmp_path / "d"))
    monkeypatch.setenv("AGENTKIT_CACHE_DIR", "~/c")
    assert data_dir() == tmp_path / "d"
    assert cache_dir() == Path("~/c").expanduser()


def test_seeds_are_those_that_torch_takes() -> None:
    for seed in (-(2**63), 2**64 - 1):
        assert load_settings(None, {"sampling.seed": seed}, {}).sampling.seed == seed
    for seed in (-(2**63) - 1, 2**64):
        with pytest.raises(SettingsError, match="seed"):
            load_settings(None, {"sampling.seed": seed}, {})


def test_a_home_folder_of_nobody_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTKIT_DATA_DIR", "~nosuchuser/data")
    for path in (data_dir, lambda: expanded("~nosuchuser/data")):
        with pytest.raises(NotFoundError, match=r"^~nosuchuser/data begins with no known home folder; write"):
            path()
    assert expanded("~/data") == Path.home() / "data"


def test_paths_in_a_file_begin_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "sub").mkdir()
    text = """model = "./m"
adapter = "/abs/a"
[knowledge]
embedder = "./encoder"
reranker = "models/mine"
[tools.options.ner]
model = "Qwen/Qwen3-8B"
[tools.options.translator]
model = "models/opus-{source}-{target}"
[tools.options.classifier]
model = "Helsinki/opus-{source}"
"""
    (tmp_path / "agentkit.toml").write_text(text)
    monkeypatch.chdir(tmp_path / "sub")
    found = load_settings(Path("../agentkit.toml"), {}, {})
    assert Path(found.model).resolve() == tmp_path / "m"
    assert found.adapter == "/abs/a"
    assert Path(found.knowledge.embedder).resolve() == tmp_path / "encoder"
    assert Path(found.knowledge.reranker).resolve() == tmp_path / "models" / "mine"
    assert found.tools.options["ner"]["model"] == "Qwen/Qwen3-8B"
    model = found.tools.options["translator"]["model"]
    assert Path(model).resolve() == tmp_path / "models" / "opus-{source}-{target}"
    assert found.tools.options["classifier"]["model"] == "Helsinki/opus-{source}"
    (tmp_path / "small.gguf").touch()
    (tmp_path / "agentkit.toml").write_text('model = "small.gguf"\nadapter = "models"\n')
    beside = load_settings(Path("../agentkit.toml"), {}, {})
    assert (Path(beside.model).resolve(), beside.adapter) == (tmp_path / "small.gguf", "models")
    (tmp_path / "agentkit.toml").write_text(text)
    assert load_settings(tmp_path / "agentkit.toml", {"model": "./other"}, {}).model == "./other"
