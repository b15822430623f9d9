from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import NotFoundError, UsageError
from agentkit.training.labelled import Labelled, Pair, load_labelled, load_pairs


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_table_of_labels(tmp_path: Path) -> None:
    text = '\ufeffid,Label , text\r\n1,good,"Nice, really\nnice"\r\n\r\n2,bad, Broken \r\n'
    path = put(tmp_path, "labels.csv", text)
    assert load_labelled(path) == [
        Labelled("Nice, really\nnice", "good", f"{path}, line 2"),
        Labelled("Broken", "bad", f"{path}, line 5"),
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.csv", "source,target\nHouse,Haus\nTree,Baum\n"),
        ("pairs.tsv", "target\tsource\nHaus\tHouse\nBaum\tTree"),
        ("pairs.jsonl", '{"source": "House", "target": "Haus"}\n{"source": "Tree", "target": "Baum"}\n'),
    ],
)
def test_pairs_in_every_form(tmp_path: Path, name: str, text: str) -> None:
    found = load_pairs(put(tmp_path, name, text))
    assert [(pair.source, pair.target) for pair in found] == [("House", "Haus"), ("Tree", "Baum")]
    assert isinstance(found[0], Pair)


@pytest.mark.parametrize(
    ("load", "name", "content", "told"),
    [
        (
            load_labelled,
            "a.csv",
            "text,label\nx,good\ny,good\n",
            "all 2 examples have the label 'good'; a class",
        ),
        (load_labelled, "a.csv", "text,label\nx,good\n", "holds 1 example; at least two"),
        (load_labelled, "a.csv", "text,label\n", "holds no examples"),
        (load_labelled, "a.csv", "", "holds no examples"),
        (load_labelled, "a.csv", "text,class\nx,good\n", "line 1: there is no column 'label'"),
        (load_labelled, "a.csv", "text,label\nx,good\ny\n", "line 3: 1 columns instead of 2"),
        (load_labelled, "a.csv", "text,label\nx,good\n,bad\n", "line 3: 'text' is empty"),
        (load_labelled, "a.csv", 'text,label\n"x\n\n",good\ny, \n', "line 5: 'label' is empty"),
        (load_labelled, "a.csv", 'text,label\nx,good\n"y,bad\n', "line 3: unexpected end of data"),
        (load_labelled, "a.csv", b"text,label\nx,good\n\xff,bad\n", "line 3 is not UTF-8"),
        (load_labelled, "a.jsonl", '{"text": "x", "label": 1}\n', "line 1: 'label' is no text: 1"),
        (load_labelled, "a.txt", "x", "is no table; name a .csv"),
        (load_pairs, "a.jsonl", '{"source": "x"}\n', "line 1: 'target' is empty"),
        (load_pairs, "a.jsonl", "[]\n", "line 1 is no JSON object"),
        (load_pairs, "a.tsv", "source\ttarget\nx\ty\n", "holds 1 example"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, load: Callable[[Path], Any], name: str, content: str | bytes, told: str
) -> None:
    path = put(tmp_path, name, content)
    with pytest.raises(UsageError) as caught:
        load(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.remedy


def test_a_missing_file(tmp_path: Path) -> None:
    for load in (load_labelled, load_pairs):
        with pytest.raises(NotFoundError, match="no such file"):
            load(tmp_path / "none.csv")
