"""Adapters of a model that runs: chosen by conversation, swapped between turns, gone without a trace."""

from __future__ import annotations

import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from adapter_files import write_adapter

from agentkit.build import adapter_folder
from agentkit.errors import AgentkitError, ModelError, NotFoundError, UsageError
from agentkit.events import Notice
from agentkit.llm.adapters import AdapterFolder, Adapters, Traits
from agentkit.llm.local import LocalModel
from agentkit.messages import Completion, Message, ToolSpec
from agentkit.training import adapters

BASE = "smollm2-135m"
ASK = [{"role": "user", "content": "Tell me a story."}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = ToolSpec("find_city", "Find a city.", SCHEMA)
SIZE = 0.1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where adapters lie; none comes with agentkit here."""
    monkeypatch.setenv("AGENTKIT_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(adapters, "SHIPPED", tmp_path / "_adapters")
    return tmp_path / "adapters"


@pytest.fixture
def shop(folder: Path, smollm: LocalModel) -> Path:
    return write_adapter(folder / "shop", smollm.hf_model, base=BASE, size=SIZE)


@pytest.fixture
def model(smollm: LocalModel, folder: Path) -> LocalModel:
    """The embedded model as `load_model` makes it, with ``adapter="auto"``."""
    own = Adapters(smollm._loaded, lambda spec: adapter_folder(spec, BASE), "auto")
    return LocalModel(smollm._loaded, adapters=own)


def said(model: LocalModel, messages: list[Any] | None = None, **options: Any) -> tuple[str, list[Notice]]:
    events = list(model.stream(messages or ASK, max_new_tokens=24, **options))
    assert isinstance(events[-1], Completion)
    text = events[-1].text + "".join(str(call.arguments) for call in events[-1].tool_calls)
    return text, [event for event in events if isinstance(event, Notice) and event.code != "truncated"]


def test_use_and_unuse_reach_a_model_that_runs(
    model: LocalModel, smollm: LocalModel, folder: Path, shop: Path
) -> None:
    base = said(smollm)
    assert said(model) == base == (base[0], [])
    adapters.use(folder, "shop")
    changed, notices = said(model)
    assert changed != base[0]
    assert [(n.code, n.text) for n in notices] == [("adapter", f"{BASE} now runs with the shop adapter")]
    assert model.info()["adapter"] == "shop"
    assert model.info()["quantization"] == "int4"
    assert said(model) == (changed, [])
    adapters.unuse(folder, BASE)
    again, notices = said(model)
    assert again == base[0]
    assert [n.text for n in notices] == [f"{BASE} now runs without an adapter"]
    assert model.info()["adapter"] == "none"
    adapters.use(folder, "shop")
    assert said(model)[0] == changed  # loaded once: the conversation finds its cache again
    assert model.chat(ASK, max_new_tokens=2).usage.cached_tokens > 10


def test_nothing_that_one_adapter_computed_is_used_under_another(model: LocalModel, shop: Path) -> None:
    alone = {spec: said(model, adapter=spec)[0] for spec in ("none", "shop")}
    for spec in ("none", "shop", "none"):
        fresh = [
            *ASK,
            {"role": "assistant", "content": "It is Paris."},
            {"role": "user", "content": f"And {spec}?"},
        ]
        first = model.chat(fresh, adapter=spec, max_new_tokens=4).usage
        assert 10 < first.cached_tokens < first.prompt_tokens
    model._pool.free()
    assert model.chat(ASK, adapter="none", max_new_tokens=2).usage.cached_tokens == 0
    assert model.chat(ASK, adapter="shop", max_new_tokens=2).usage.cached_tokens == 0
    assert {spec: said(model, adapter=spec)[0] for spec in alone} == alone


def test_the_shipped_adapter_is_what_auto_means_until_another_is_used(
    model: LocalModel, smollm: LocalModel, folder: Path, shop: Path
) -> None:
    write_adapter(adapters.SHIPPED / BASE, smollm.hf_model, base=BASE, seed=5, size=SIZE)
    shipped, notices = said(model)
    assert [n.text for n in notices] == [f"{BASE} now runs with the shipped adapter"]
    adapters.use(folder, "shop")
    own = said(model)[0]
    adapters.unuse(folder, BASE)
    assert said(model)[0] == shipped
    assert said(model, adapter="shipped")[0] == shipped
    bare = said(model, adapter="none")[0]
    assert len({shipped, own, bare}) == 3
    assert bare == said(smollm)[0]


def test_an_adapter_that_cannot_be_used_leaves_the_old_one(
    model: LocalModel, smollm: LocalModel, folder: Path, shop: Path
) -> None:
    adapters.use(folder, "shop")
    good, _ = said(model)
    damaged = write_adapter(folder / "damaged", smollm.hf_model, base=BASE, seed=1, size=SIZE)
    weights = damaged / "adapter_model.safetensors"
    whole = weights.read_bytes()
    adapters.use(folder, "damaged")
    weights.write_bytes(whole[:-1000])
    text, notices = said(model)
    assert text == good
    assert [n.code for n in notices] == ["adapter_refused"]
    assert "is damaged" in notices[0].text
    assert notices[0].text.endswith(f"{BASE} still runs with the shop adapter")
    assert said(model) == (good, [])  # told once
    weights.write_bytes(whole)  # it was only half written
    text, notices = said(model)
    assert text != good
    assert [n.text for n in notices] == [f"{BASE} now runs with the damaged adapter"]
    better = text
    foreign = write_adapter(folder / "foreign", smollm.hf_model, base="org/other", size=SIZE)
    (folder / adapters.IN_USE).write_text(f'{{"{BASE}": "{foreign.name}"}}', encoding="utf-8")
    text, notices = said(model)
    assert (text, [n.code for n in notices]) == (better, ["adapter_refused"])
    assert "was trained for org/other" in notices[0].text
    (folder / adapters.IN_USE).write_text("[", encoding="utf-8")
    text, notices = said(model)
    assert (text, [n.code for n in notices]) == (better, ["adapter_refused"])
    for spec in ("foreign", "nobody", str(folder / "nowhere")):
        with pytest.raises(AgentkitError):
            model.use_adapter(spec)
        with pytest.raises(AgentkitError):
            model.chat(ASK, adapter=spec)
    assert said(model)[0] == better


def test_files_that_change_under_a_name_are_read_again(
    model: LocalModel, smollm: LocalModel, shop: Path
) -> None:
    model.use_adapter("shop")
    before = said(model)[0]
    shutil.rmtree(shop)
    text, notices = said(model)
    assert (text, [n.code for n in notices]) == (before, ["adapter_refused"])
    write_adapter(shop, smollm.hf_model, base=BASE, seed=9, size=SIZE)
    text, notices = said(model)
    assert text != before
    assert [n.code for n in notices] == ["adapter"]
    shutil.rmtree(shop)
    with pytest.raises(NotFoundError):
        model.use_adapter("shop")
    model.use_adapter("none")
    assert said(model)[0] == said(smollm)[0]


def test_conversations_with_several_adapters_at_once_get_what_they_get_alone(
    model: LocalModel, smollm: LocalModel, folder: Path, shop: Path
) -> None:
    write_adapter(folder / "other", smollm.hf_model, base=BASE, seed=3, rank=20, size=SIZE)
    options: list[dict[str, Any]] = [
        {"adapter": spec, **more}
        for spec in ("none", "shop", "other")
        for more in ({}, {"response_format": SCHEMA}, {"tools": [TOOL], "tool_choice": "required"})
    ]
    alone = [said(LocalModel(smollm._loaded, adapters=model._adapters), **each)[0] for each in options]
    undrafted = LocalModel(smollm._loaded, adapters=model._adapters, drafts=False)
    assert [said(undrafted, **each)[0] for each in options] == alone
    with ThreadPoolExecutor(len(options)) as threads:
        assert list(threads.map(lambda each: said(model, **each)[0], options)) == alone
    counters = model._scheduler.counters
    assert counters.steps > counters.passes


def test_without_folders_only_paths_and_none_mean_something(smollm: LocalModel, shop: Path) -> None:
    model = LocalModel(smollm._loaded)
    assert said(model, adapter=str(shop))[0] != said(model)[0] == said(model, adapter="none")[0]
    with pytest.raises(NotFoundError, match="no adapter in shop"):
        model.use_adapter("shop")
    model.use_adapter(str(shop))
    assert model.info()["adapter"] == "shop"


def test_a_merged_adapter_stays(model: LocalModel, shop: Path, folder: Path) -> None:
    import dataclasses

    merged = dataclasses.replace(model._loaded, fixed=True)
    fixed = LocalModel(merged, adapters=Adapters(merged, lambda spec: adapter_folder(spec, BASE), "auto"))
    fixed._adapters._states["auto"].name = "dora"
    adapters.use(folder, "shop")
    text, notices = said(fixed)
    assert text
    assert [n.code for n in notices] == ["adapter_refused"]
    assert "no other adapter can be put beside it; start again with --adapter" in notices[0].text
    with pytest.raises(UsageError, match="cannot run without"):
        fixed.use_adapter("none")


def test_adapters_that_nobody_uses_are_dropped(model: LocalModel, smollm: LocalModel, folder: Path) -> None:
    for n in range(Adapters.KEPT + 2):
        write_adapter(folder / f"a{n}", smollm.hf_model, base=BASE, rank=1, names=["q_proj"])
        model.choose_adapter(f"a{n}")
    assert len(model._adapters._held) == Adapters.KEPT


def test_a_damaged_adapter_asked_for_by_name_is_an_error(model: LocalModel, shop: Path) -> None:
    (shop / "adapter_model.safetensors").write_bytes(b"12345678")
    with pytest.raises(ModelError, match=r"is damaged: .*; copy or train it again"):
        model.chat(ASK, adapter="shop")


class Weightless:
    """Loads adapters of no weight, and says which of them are still held."""

    name, adapter, fixed = "weightless", None, False

    def __init__(self) -> None:
        self.made: list[weakref.ref[Any]] = []

    def load_adapter(self, folder: Path, name: str) -> Any:
        adapter = type("Weights", (), {})()
        self.made.append(weakref.ref(adapter))
        return adapter

    @property
    def alive(self) -> list[bool]:
        return [made() is not None for made in self.made]


def of_folders(folder: Path) -> tuple[Weightless, Adapters]:
    """Adapters in folders of a folder: any name is one."""
    loaded = Weightless()
    own = Adapters(loaded, lambda spec: AdapterFolder(spec, folder / spec, Traits(reads=spec == "a0")))  # type: ignore[arg-type]
    return loaded, own


def test_dropped_adapters_are_really_gone(tmp_path: Path) -> None:
    loaded, own = of_folders(tmp_path)
    own.use("a0")
    for n in range(1, Adapters.KEPT + 3):
        own.choose(f"a{n}")
        own.choose("a1")  # in use all the time
    assert loaded.alive == [True, True, False, False, *[True] * (Adapters.KEPT - 1)]
    again, told = own.choose("a2")  # as if for the first time
    assert (again.adapter, told) == (loaded.made[-1](), ())
    assert own.choose()[0].adapter is loaded.made[0]()


def test_an_adapter_may_be_called_loaded(tmp_path: Path) -> None:
    loaded, own = of_folders(tmp_path)
    assert own.choose()[0].adapter is None
    assert own.choose("loaded")[0].adapter is loaded.made[0]() is not None


def test_what_a_quiet_look_finds_is_told_by_the_next(tmp_path: Path) -> None:
    _, own = of_folders(tmp_path)
    own.use("a0")
    assert own.choose() == own.choose("a0")
    (tmp_path / "a0").mkdir()
    (tmp_path / "a0" / "adapter_config.json").write_text("{}", encoding="utf-8")
    chosen, told = own.choose(quiet=True)
    assert (chosen.reads, told) == (True, ())
    assert own.choose(quiet=True) == (chosen, ())
    assert own.choose("a1")[1] == ()
    assert own.choose() == (chosen, (Notice("adapter", "weightless now runs with the a0 adapter"),))
    assert own.choose() == (chosen, ())


def test_a_question_aside_leaves_the_notice_to_the_turn(model: LocalModel, folder: Path, shop: Path) -> None:
    adapters.use(folder, "shop")
    model.first_logits([Message("user", "Well?")], ["Yes", "No"])
    model.log_probs(ASK, "Once.")
    assert [notice.code for notice in said(model)[1]] == ["adapter"]


def test_an_adapter_in_the_home_of_nobody_is_not_found(smollm: LocalModel) -> None:
    with pytest.raises(NotFoundError, match="no known home folder"):
        smollm.choose_adapter("~nosuchuser/x")
