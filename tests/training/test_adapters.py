from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from agentkit.build.models import encoder_source
from agentkit.errors import NotFoundError, TrainingError, UsageError
from agentkit.llm.guide import FULL, Strength
from agentkit.training import adapters
from agentkit.training.adapters import (
    CARD,
    IN_USE,
    Adapter,
    add,
    check_name,
    get_adapter,
    in_use,
    label,
    list_adapters,
    resolve_adapter,
    same_base,
    shipped,
    trained_model,
    traits_of,
    unuse,
    use,
)


def put(folder: Path, name: str, base: str = "smollm2-135m", job: str = "") -> Adapter:
    adapter = Adapter(
        name=name,
        path=folder / name,
        base=base,
        data="chats.jsonl",
        data_sha256="ab",
        examples=24,
        duplicates=0,
        cut=0,
        epochs=3,
        steps=18,
        train_loss=1.2,
        loss_before=4.5,
        loss_after=2.5,
        seconds=30.0,
        created="2025-01-01T00:00:00+00:00",
        version="0.1.0",
        job=job,
    )

    def write(stage: Path) -> None:
        (stage / "adapter_config.json").write_text("{}", encoding="utf-8")
        header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        weights = len(header).to_bytes(8, "little") + header + bytes(4)
        (stage / "adapter_model.safetensors").write_bytes(weights)

    return add(folder, adapter, write, stage=folder / ".stage")


def test_an_adapter_comes_back_as_it_was_put(tmp_path: Path) -> None:
    folder = tmp_path / "adapters"
    assert list_adapters(folder) == []
    shop, other = put(folder, "shop"), put(folder, "other")
    assert list_adapters(folder) == [other, shop]
    assert get_adapter(folder, "shop") == shop
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    assert json.loads(json.dumps(shop.to_json()))["path"] == str(folder / "shop")


def test_an_adapter_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    adapter = put(tmp_path, "shop")

    def fail(stage: Path) -> None:
        (stage / "adapter_config.json").write_text("{", encoding="utf-8")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        add(tmp_path, adapter, fail, stage=tmp_path / ".stage")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]
    assert get_adapter(tmp_path, "shop") == adapter


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    long = "a" * 64
    first = put(tmp_path, "shop")
    with pytest.raises(UsageError, match="there is an adapter 'shop' already; choose another name"):
        check_name(tmp_path, "shop")
    made = [put(tmp_path, name) for name in ("shop", "shop", long, long)]
    assert [adapter.name for adapter in made] == ["shop-2", "shop-3", long, f"{'a' * 62}-2"]
    assert list_adapters(tmp_path) == [made[3], made[2], first, *made[:2]]
    assert json.loads((made[0].path / CARD).read_text())["name"] == "shop-2"


def test_an_unknown_name_brings_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="finetune start"):
        get_adapter(tmp_path, "shop")
    put(tmp_path, "shop-2")
    for name in ("shop", "../shop-2", "SHOP-2"):
        with pytest.raises(NotFoundError, match="shop-2"):
            get_adapter(tmp_path, name)


@pytest.mark.parametrize("name", ["", "Shop", "../shop", ".shop", "a b", "a" * 65, "shop\n"])
def test_wrong_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no name for an adapter"):
        check_name(tmp_path, name)


def test_a_damaged_card(tmp_path: Path) -> None:
    put(tmp_path, "good")
    put(tmp_path, "bad")
    (tmp_path / "bad" / CARD).write_text("{}", encoding="utf-8")
    assert [adapter.name for adapter in list_adapters(tmp_path)] == ["good"]
    with pytest.raises(TrainingError, match="train again"):
        get_adapter(tmp_path, "bad")


def test_use_is_kept_for_each_base_model(tmp_path: Path) -> None:
    assert in_use(tmp_path, "smollm2-135m") is None
    assert unuse(tmp_path, "smollm2-135m") is None
    put(tmp_path, "shop")
    put(tmp_path, "big", base="org/big")
    assert use(tmp_path, "shop").name == "shop"
    use(tmp_path, "big")
    assert (in_use(tmp_path, "smollm2-135m"), in_use(tmp_path, "org/big")) == ("shop", "big")
    assert unuse(tmp_path, "smollm2-135m") == "shop"
    assert (in_use(tmp_path, "smollm2-135m"), in_use(tmp_path, "org/big")) == (None, "big")
    with pytest.raises(NotFoundError):
        use(tmp_path, "nobody")
    (tmp_path / IN_USE).write_text("[", encoding="utf-8")
    with pytest.raises(TrainingError, match=r"in_use\.json cannot be read"):
        in_use(tmp_path, "org/big")


def test_what_an_adapter_setting_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "SHIPPED", tmp_path / "none")
    folder, base = tmp_path / "adapters", "smollm2-135m"
    assert resolve_adapter(folder, "none", base) is None
    assert resolve_adapter(folder, "auto", base) is None
    put(folder, "shop")
    put(folder, "big", base="org/big")
    use(folder, "shop")
    shop = folder / "shop"
    assert resolve_adapter(folder, "auto", base) == shop
    assert resolve_adapter(folder, "none", base) is None
    assert resolve_adapter(folder, "auto", "org/other") is None
    assert resolve_adapter(folder, "shop", base) == shop
    assert resolve_adapter(folder, str(shop), base) == shop
    for spec in ("big", str(folder / "big")):
        with pytest.raises(UsageError, match="'big' was trained for org/big, not for smollm2-135m"):
            resolve_adapter(folder, spec, base)
    for spec in ("shops", str(folder / "shops"), str(tmp_path)):
        with pytest.raises(NotFoundError):
            resolve_adapter(folder, spec, base)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert resolve_adapter(folder, str(foreign), base) == foreign


def test_the_shipped_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, base = tmp_path / "adapters", "smollm2-135m"
    monkeypatch.setattr(adapters, "SHIPPED", tmp_path / "_adapters")
    assert shipped(base) is None
    with pytest.raises(NotFoundError, match="no adapter for smollm2-135m comes with agentkit"):
        resolve_adapter(folder, "shipped", base)
    put(tmp_path / "_adapters", base)
    own = tmp_path / "_adapters" / base
    assert (shipped(base), shipped("org/big"), shipped("..")) == (own, None, None)
    assert resolve_adapter(folder, "auto", base) == resolve_adapter(folder, "shipped", base) == own
    assert resolve_adapter(folder, "none", base) is None
    assert resolve_adapter(folder, "auto", "org/big") is None
    assert (label(own), label(put(folder, "shop").path)) == ("shipped", "shop")
    use(folder, "shop")
    assert resolve_adapter(folder, "auto", base) == folder / "shop"
    assert resolve_adapter(folder, "shipped", base) == own
    unuse(folder, base)
    assert resolve_adapter(folder, "auto", base) == own


def test_auto_never_means_an_adapter_of_another_model(tmp_path: Path) -> None:
    put(tmp_path, "big", base="org/big")
    (tmp_path / IN_USE).write_text('{"smollm2-135m": "big"}', encoding="utf-8")
    with pytest.raises(UsageError, match="was trained for org/big"):
        resolve_adapter(tmp_path, "auto", "smollm2-135m")


@pytest.mark.parametrize("name", ["auto", "none", "shipped"])
def test_names_that_mean_something_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="means something else where an adapter is chosen"):
        check_name(tmp_path, name)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("adapter_config.json", b"{"),
        ("adapter_model.safetensors", None),
        ("adapter_model.safetensors", b"1"),
        ("adapter_model.safetensors", (9).to_bytes(8, "little") + b"{}"),
        ("adapter_model.safetensors", (2**60).to_bytes(8, "little") + b"{}"),
        ("adapter_model.safetensors", (7).to_bytes(8, "little") + b'{"a":1}'),
    ],
)
def test_a_damaged_adapter_does_not_come_into_use(tmp_path: Path, file: str, content: bytes | None) -> None:
    put(tmp_path, "good")
    path = put(tmp_path, "bad").path / file
    use(tmp_path, "good")
    if content is None:
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match="adapter 'bad' is damaged"):
        use(tmp_path, "bad")
    assert in_use(tmp_path, "smollm2-135m") == "good"


def test_the_home_folder_of_nobody(tmp_path: Path) -> None:
    for found in (
        lambda: resolve_adapter(tmp_path, "~nosuchuser/x", "smollm2-135m"),
        lambda: trained_model(tmp_path, "~nosuchuser/x", "classification"),
        lambda: encoder_source("~nosuchuser/x"),
    ):
        with pytest.raises(NotFoundError, match="no known home folder"):
            found()


def test_only_a_card_that_says_so_makes_a_reader(tmp_path: Path) -> None:
    put(tmp_path, "shop")
    card = tmp_path / "shop" / CARD
    assert not traits_of(card.parent).reads
    body = json.loads(card.read_text(encoding="utf-8"))
    for value, reads in ((True, True), ("yes", False), (None, False)):
        card.write_text(json.dumps({**body, "reads": value}), encoding="utf-8")
        assert traits_of(card.parent).reads is reads
    assert get_adapter(tmp_path, "shop").name == "shop"
    assert not traits_of(tmp_path).reads
    card.write_text("[]", encoding="utf-8")
    with pytest.raises(TrainingError, match="cannot be read"):
        traits_of(card.parent)


def test_a_card_tells_how_far_evidence_counts(tmp_path: Path) -> None:
    put(tmp_path, "shop")
    card = tmp_path / "shop" / CARD
    assert traits_of(card.parent).strength == FULL
    body = json.loads(card.read_text(encoding="utf-8"))
    card.write_text(json.dumps({**body, "evidence": {"values": 0.5, "calls": 0}}), encoding="utf-8")
    assert traits_of(card.parent).strength == Strength(0.5, 0.0)
    for wrong in ({"value": 1}, {"values": "much"}, 3):
        card.write_text(json.dumps({**body, "evidence": wrong}), encoding="utf-8")
        with pytest.raises(TrainingError, match="cannot be read"):
            traits_of(card.parent)


def test_an_adapter_does_not_inherit_the_use_of_one_that_was_deleted(tmp_path: Path) -> None:
    put(tmp_path, "november", job="1")
    use(tmp_path, "november")
    assert in_use(tmp_path, "smollm2-135m") == "november"
    shutil.rmtree(tmp_path / "november")
    put(tmp_path, "november", job="2")
    assert in_use(tmp_path, "smollm2-135m") is None
    assert resolve_adapter(tmp_path, "auto", "smollm2-135m") == shipped("smollm2-135m")
    use(tmp_path, "november")
    (tmp_path / "november" / CARD).write_text("{", encoding="utf-8")
    with pytest.raises(TrainingError):
        resolve_adapter(tmp_path, "auto", "smollm2-135m")


def test_a_base_is_known_however_its_path_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "my").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    adapters, base = tmp_path / "adapters", str(tmp_path / "models" / "my")
    put(adapters, "shop", base="models/my")
    use(adapters, "shop")
    assert in_use(adapters, base) == "shop"
    assert resolve_adapter(adapters, "shop", base) == adapters / "shop"
    assert unuse(adapters, base) == "shop"
    assert in_use(adapters, "models/my") is None
    assert not same_base("smollm2-135m", "org/smollm2-135m")
