"""What `agentkit finetune` makes of a table is used by the starter tool it is for: from the file to the answer."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentkit.cli.main import run
from agentkit.settings import data_dir
from agentkit.training import jobs, worker
from agentkit.training.process import Process

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Own user data; a job's worker runs in this process, which has torch already."""
    monkeypatch.setenv("AGENTKIT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "launch", lambda folder, log: Process.of(os.getpid()))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def train(capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
    assert run(["finetune", "start", *arguments, "--json"]) == 0
    job = json.loads(capsys.readouterr().out)
    assert job["model"] == "minilm"
    assert worker.main(Path(job["folder"])) == 0, capsys.readouterr()
    capsys.readouterr()


def call(capsys: pytest.CaptureFixture[str], tool: str, **arguments: object) -> dict[str, object]:
    run(["tools", "call", tool, json.dumps(arguments), "--json"])
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


@pytest.mark.slow
def test_a_classifier_from_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(capsys, str(EXAMPLES / "topics.csv"), "--epochs", "4", "--lr", "3e-4")
    assert run(["finetune", "list"]) == 0
    name, base, about, scores = capsys.readouterr().out.strip().split("  ")
    assert (name, base, about) == ("topics", "minilm", "48 texts, classification")
    assert re.fullmatch(r"accuracy \d\.\d{3}, macro F1 \d\.\d{3} \(\d+ test\)", scores)
    assert run(["finetune", "use", "topics"]) == 2
    assert 'set `model = "topics"` under [tools.options.classifier]' in capsys.readouterr().err

    monkeypatch.setenv("AGENTKIT_TOOLS__OPTIONS__CLASSIFIER__MODEL", "topics")
    for text, label in (
        ("The postman has lost my parcel", "delivery"),
        ("The invoice shows a wrong amount and my card was charged", "payment"),
        ("I want to send this back, where is the return label?", "returns"),
    ):
        value = call(capsys, "classifier", text=text)["value"]
        assert isinstance(value, dict)
        assert value["label"] == label
        assert set(value["scores"]) == {"delivery", "payment", "product", "returns"}
    wrong = call(capsys, "classifier", text="a parcel", labels=["sports", "delivery"])
    assert "knows only the labels delivery, payment, product, returns" in str(wrong["error"])
    monkeypatch.setenv("AGENTKIT_TOOLS__OPTIONS__NER__MODEL", "topics")
    wrong = call(capsys, "ner", text="Ann Lee")
    assert "'topics' was trained for classification and is no model for tagging" in str(wrong["error"])


def test_a_tagger_from_sentences(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("Moonlight", "Aurora", "Firefly", "Old Harbour", "North Star", "Glowworm")
    lines = []
    for name in names:
        for before, behind in (("My", "is broken"), ("Please send a", "to me"), ("Is the", "in stock ?")):
            words = [*before.split(), *name.split(), *behind.split()]
            begin, end = len(before.split()), len(before.split()) + len(name.split())
            tags = [
                "B-LAMP" if n == begin else "I-LAMP" if begin < n < end else "O" for n in range(len(words))
            ]
            lines.append(json.dumps({"tokens": words, "tags": tags}) + "\n")
    Path("lamps.jsonl").write_text("".join(lines), encoding="utf-8")
    train(capsys, "lamps.jsonl", "--epochs", "8", "--lr", "5e-4")
    (card,) = (data_dir() / "adapters").glob("*/agentkit.json")
    assert json.loads(card.read_text())["task"] == "tagging"
    monkeypatch.setenv("AGENTKIT_TOOLS__OPTIONS__NER__MODEL", "lamps")
    text = "Please send a North Star to me"
    assert call(capsys, "ner", text=text)["value"] == [
        {"text": "North Star", "label": "LAMP", "start": 14, "end": 24}
    ]


def test_pairs_need_a_base_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pairs.csv").write_text("source,target\nhello,hola\nbye,adiós\n", encoding="utf-8")
    assert run(["finetune", "start", "pairs.csv"]) == 2
    told = "no sequence-to-sequence model comes with agentkit; name one with --model, a folder or a hub id"
    assert told in capsys.readouterr().err
    assert run(["finetune", "start", "pairs.csv", "--model", "smollm2-135m"]) == 2
    assert "smollm2-135m is a chat model; pairs need a sequence-to-sequence model" in capsys.readouterr().err
    Path("texts.csv").write_text("text,label\nhello,a\nbye,b\n", encoding="utf-8")
    assert run(["finetune", "start", "texts.csv", "--model", "smollm2-135m"]) == 2
    assert "smollm2-135m is a chat model; labelled texts need an encoder" in capsys.readouterr().err
    assert run(["finetune", "start", "texts.csv", "--model", "openai+http://localhost:1/v1"]) == 2
    assert "a model on a server cannot be fine-tuned" in capsys.readouterr().err
