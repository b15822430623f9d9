"""Classifiers, taggers and seq2seq models on tiny bases: what is stored works, and interrupted runs end alike."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agentkit.errors import UsageError
from agentkit.training import heads, jobs, worker
from agentkit.training.adapters import get_adapter, list_adapters, resolve_adapter, trained_model, use
from agentkit.training.classification import macro_f1
from agentkit.training.data import IGNORED
from agentkit.training.heads import HeadJob, HeadLearner
from agentkit.training.jobs import Job, cancel, get_job, list_jobs, resume, start, wait
from agentkit.training.labelled import Labelled, load_labelled
from agentkit.training.precision import Numbers
from agentkit.training.process import Process
from agentkit.training.report import read_report
from agentkit.training.rows import HeadRow, batches, steps
from agentkit.training.run import Stopped
from agentkit.training.seq2seq import chrf
from agentkit.training.settings import JobSettings, epochs_for, make_settings, read_settings_file
from agentkit.training.tagging import encode as encode_tags
from agentkit.training.tagging import spans

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "ann",
    "lee",
    "bob",
    "likes",
    "sees",
    "the",
    "lamp",
    "tea",
    "red",
    "blue",
    "##s",
    "hola",
    "adios",
    "uno",
    "dos",
]
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
TEXTS = [
    {"text": f"{who} {does} the {what}", "label": "drink" if what == "tea" else "light"}
    for who in ("ann", "lee", "bob", "ann lee")
    for does in ("likes", "sees")
    for what in ("tea", "lamp", "red lamp")
]
SENTENCES = [
    {
        "tokens": [*who.split(), does, "the", what],
        "tags": ["B-PER", *["I-PER"] * who.count(" "), "O", "O", "B-THING" if what == "lamps" else "O"],
    }
    for who in ("ann", "bob", "lee", "ann lee")
    for does in ("likes", "sees", "blue")
    for what in ("lamps", "tea")
]
PAIRS = [
    {"source": f"{a} {b}", "target": f"{x} {y}"}
    for a, x in (("ann", "uno"), ("lee", "dos"), ("bob", "hola"))
    for b, y in (("tea", "adios"), ("lamp", "uno"), ("red", "dos"), ("blue", "hola"))
]
DATA = {"classification": TEXTS, "tagging": SENTENCES, "seq2seq": PAIRS}
Begin = Callable[..., Job]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=24, **SIZES)).save_pretrained(folder)
    BertTokenizerFast(vocab={word: n for n, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("tiny-t5")
    torch.manual_seed(0)
    words = ["<pad>", "</s>", "<unk>", *WORDS[5:]]
    config = T5Config(vocab_size=len(words), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2,
                      decoder_start_token_id=0, dropout_rate=0.1)  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def dirs(tmp_path: Path) -> dict[str, Path]:
    return {"jobs_dir": tmp_path / "jobs", "adapters_dir": tmp_path / "adapters"}


@pytest.fixture
def begin(dirs: dict[str, Path], encoder: Path, translator: Path, tmp_path: Path) -> Iterator[Begin]:
    """Starts a job of a task on a tiny base; what still runs at the end of the test is cancelled."""

    def run(task: str, data: Sequence[dict[str, Any]] | None = None, **options: Any) -> Job:
        path = tmp_path / f"{task}.jsonl"
        path.write_text("".join(json.dumps(body) + "\n" for body in data or DATA[task]), encoding="utf-8")
        base = translator if task == "seq2seq" else encoder
        return start(path, **{"model_name": "tiny", "model_source": base, **dirs, **options})

    yield run
    for job in list_jobs(dirs["jobs_dir"]):
        if job.active:
            cancel(job)


@pytest.fixture
def inside(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Starts a job and runs its worker in this very process."""
    monkeypatch.setattr(jobs, "launch", lambda folder, log: Process.of(os.getpid()))
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: Any, **options: Any) -> Job:
        job = begin(*arguments, **options)
        worker.main(job.folder)
        return get_job(job.folder.parent, job.id)

    yield run
    signal.signal(signal.SIGTERM, before)


FAST = {"learning_rate": 0.01, "batch_size": 4}


@pytest.mark.parametrize(
    ("task", "score", "method", "left_over"),
    [
        ("classification", "accuracy", "full", {}),
        ("classification", "accuracy", "lora", {"text": "ann " * 40, "label": "light"}),
        ("tagging", "entity_f1", "full", {"tokens": ["ann"] * 40, "tags": ["B-PER"] * 40}),
        ("tagging", "entity_f1", "dora", {}),
        ("seq2seq", "exact_match", "full", {"source": "ann " * 40, "target": "hola"}),
        ("seq2seq", "exact_match", "lora", {}),
    ],
)
def test_a_job_leaves_a_model_that_transformers_loads(
    inside: Begin, dirs: dict[str, Path], task: str, score: str, method: str, left_over: dict[str, Any]
) -> None:
    import transformers

    from agentkit.training.bases import HEADS

    data = [*DATA[task], left_over] if left_over else DATA[task]
    epochs = 2 if method != "full" else 30 if task == "seq2seq" else 8
    job = inside(task, data, epochs=epochs, options={**FAST, "method": method})
    assert (job.status, job.error) == ("done", None)
    assert (job.task, job.model, job.step) == (task, "tiny", job.steps)
    assert score in job.scores
    lines = [json.loads(line) for line in (job.folder / "progress.jsonl").read_text().splitlines()]
    assert [bool(line.get("scores")) for line in lines] == [line["val_loss"] is not None for line in lines]
    made = get_adapter(dirs["adapters_dir"], task)
    assert (made.task, made.base, made.scored_on, made.path) == (task, "tiny", "test", job.adapter)
    assert made.scored >= 1
    assert made.loss_after is not None
    assert made.loss_before is not None
    report = read_report(made.path / "data.json")
    is_long = bool(left_over)
    assert (report.cut, report.shortened) == ((0, is_long) if task == "classification" else (is_long, 0))
    names = {path.name for path in made.path.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "agentkit.json", "progress.jsonl"} <= names
    assert "adapter_config.json" not in names
    assert str(made.path.parent.parent) not in (made.path / "config.json").read_text()

    model, about = getattr(transformers, HEADS[task]).from_pretrained(made.path, output_loading_info=True)
    assert not about["missing_keys"]
    if task == "classification":
        assert list(model.config.id2label.values()) == ["drink", "light"]
    if task == "tagging":
        assert list(model.config.id2label.values()) == ["O", "B-PER", "I-PER", "B-THING", "I-THING"]
    if method == "full":
        assert made.loss_after < made.loss_before
        assert made.train_loss < lines[0]["loss"] / 2


def job_settings(source: Path, task: str, **changes: Any) -> JobSettings:
    fixed = {
        "name": "x",
        "model_name": "tiny",
        "model_source": str(source),
        "data_name": "c",
        "data_sha256": "",
    }
    return make_settings({**fixed, "adapters_dir": "unused", "task": task, "epochs": 3, **FAST, **changes})


def examples(task: str, tmp_path: Path) -> list[Labelled]:
    path = tmp_path / "examples.jsonl"
    splits = ["train"] * 6 + ["validation", "test"]
    bodies = [{**body, "split": splits[n % 8]} for n, body in enumerate(DATA[task])]
    path.write_text("".join(json.dumps(body) + "\n" for body in bodies), encoding="utf-8")
    return load_labelled(path, task)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["classification", "tagging", "seq2seq"])
@pytest.mark.parametrize("patience", [None, 1])
def test_a_resumed_run_ends_exactly_as_one_that_was_never_interrupted(
    encoder: Path, translator: Path, tmp_path: Path, task: str, patience: int | None
) -> None:
    import torch

    base = translator if task == "seq2seq" else encoder
    settings = job_settings(base, task, patience=patience)
    found = examples(task, tmp_path)
    whole: list[Any] = []
    first = HeadJob(settings, found).train(whole.append)
    told: list[Any] = []
    for stop in (2, 5, len(whole)):
        again = HeadJob(settings, found)
        try:
            second = again.train(
                told.append, checkpoint_dir=tmp_path / "kept", should_stop=lambda stop=stop: len(told) >= stop
            )
        except Stopped:
            torch.rand(7)  # whatever happens between the runs
    assert [(line["step"], line["loss"], line["val_loss"]) for line in told] == [
        (line["step"], line["loss"], line["val_loss"]) for line in whole
    ]
    assert (first.loss_before, first.loss_after, first.scores) == (
        second.loss_before,
        second.loss_after,
        second.scores,
    )
    assert all(
        torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True)
    )


def test_pairs_are_scored_evenly_over_the_split_and_counted(
    translator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "GENERATED", 3)
    written: list[str] = []

    def scores(rows: Sequence[HeadRow], *_: Any) -> dict[str, float]:
        written[:] = [row.wanted for row in rows]
        return {"chrf": 1.0}

    monkeypatch.setattr(heads.seq2seq, "scores", scores)
    found = [Labelled(pair["source"], pair["target"], split="test") for pair in PAIRS[:6]]
    learned = [Labelled(pair["source"], pair["target"], split="train") for pair in PAIRS[6:]]
    trained = HeadJob(job_settings(translator, "seq2seq", epochs=1), learned + found).train(lambda line: None)
    assert written == [PAIRS[n]["target"] for n in (0, 2, 4)]
    assert (trained.scored_on, trained.scored) == ("test", 3)


def test_a_scaled_run_in_float16_is_resumed_to_the_same_end(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    numbers = Numbers("cpu", torch.float16, autocast=True, scaled=True)
    monkeypatch.setattr(heads, "choose", lambda precision, device: numbers)  # as on a GPU without bf16
    settings, found = job_settings(encoder, "classification"), examples("classification", tmp_path)
    whole: list[Any] = []
    first = HeadJob(settings, found).train(whole.append)
    assert sum(line["grad_norm"] is not None for line in whole) >= len(whole) / 2
    assert first.loss_before is not None
    assert first.loss_after is not None
    assert first.loss_after < first.loss_before
    told: list[Any] = []
    with pytest.raises(Stopped):
        HeadJob(settings, found).train(
            told.append, checkpoint_dir=tmp_path / "kept", should_stop=lambda: len(told) >= 4
        )
    second = HeadJob(settings, found).train(told.append, checkpoint_dir=tmp_path / "kept")
    assert [(line["step"], line["loss"]) for line in told] == [(line["step"], line["loss"]) for line in whole]
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(a, b) and a.dtype == torch.float32 for a, b in pairs)


@pytest.mark.slow
def test_a_job_in_a_process_survives_kill_and_shutdown_and_can_be_cancelled(
    begin: Begin, dirs: dict[str, Path]
) -> None:
    options = {**FAST, "checkpoint_every_s": 1e-6}
    job = begin("classification", epochs=40, options=options)
    whole = wait(begin("classification", name="whole", epochs=40, options=options), timeout=0.1)
    for demand in (signal.SIGKILL, signal.SIGTERM):
        before = job.step
        while job.active and job.step <= before + 5:
            job = wait(job, timeout=0.05)
        os.kill(job.pid, demand)
        job = wait(job)
        assert job.status == "failed", job.error
        whole = wait(whole)  # the next in the queue runs meanwhile
        job = resume(job)
    job = wait(job)
    assert (whole.status, job.status) == ("done", "done"), (whole.error, job.error)
    cards = [get_adapter(dirs["adapters_dir"], name) for name in ("whole", "classification")]
    assert (cards[0].train_loss, cards[0].loss_after) == (cards[1].train_loss, cards[1].loss_after)
    weights = [(card.path / "model.safetensors").read_bytes() for card in cards]
    assert weights[0] == weights[1]
    job = begin("tagging", epochs=1000, options=FAST)
    while job.active and not job.step:
        job = wait(job, timeout=0.05)
    assert cancel(job).status == "cancelled"
    assert [made.name for made in list_adapters(dirs["adapters_dir"])] == ["classification", "whole"]
    assert not list(dirs["adapters_dir"].glob(".*"))


@pytest.mark.parametrize(
    ("task", "base", "told"),
    [
        ("classification", "tiny", "tiny is a chat model; labelled texts need an encoder of BERT's kind; leave"),
        ("tagging", "translator", "is a sequence-to-sequence model; tagged tokens need an encoder"),
        ("seq2seq", "tiny", "tiny is a chat model; pairs need a sequence-to-sequence model of T5's or Marian's kind"),
        ("seq2seq", "encoder", "is an encoder; pairs need"),
        ("classification", "nothing", "is no model folder: config.json cannot be read"),
    ],
)  # fmt: skip
def test_a_base_of_another_kind_is_refused_before_anything_starts(
    begin: Begin,
    dirs: dict[str, Path],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    task: str,
    base: str,
    told: str,
) -> None:
    source = tmp_path if base == "nothing" else request.getfixturevalue(base)
    with pytest.raises(UsageError) as caught:
        begin(task, model_source=source)
    assert told in str(caught.value)
    assert list_jobs(dirs["jobs_dir"]) == []


def test_chats_need_a_chat_model(
    dirs: dict[str, Path], encoder: Path, translator: Path, tmp_path: Path
) -> None:
    chats = tmp_path / "chats.jsonl"
    said = [
        [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}."}] for n in range(2)
    ]
    chats.write_text(
        "".join(json.dumps({"messages": messages}) + "\n" for messages in said), encoding="utf-8"
    )
    for base in (encoder, translator):
        with pytest.raises(UsageError, match="chats need a chat model"):
            start(chats, model_name="tiny", model_source=base, **dirs)


def test_a_base_that_is_not_there_fails_with_a_remedy(inside: Begin) -> None:
    job = inside("seq2seq", model_source="nobody/nothing", model_name="nobody/nothing")
    assert job.status == "failed"
    assert "model 'nobody/nothing' is neither here nor on the hub" in str(job.error)


def test_a_trained_model_is_refused_where_it_cannot_be_used(inside: Begin, dirs: dict[str, Path]) -> None:
    folder = dirs["adapters_dir"]
    assert inside("tagging", epochs=1).status == "done"
    remedy = 'set `model = "tagging"` under \\[tools.options.ner\\] in agentkit.toml'
    with pytest.raises(UsageError, match=f"trained for tagging and is no adapter of a chat model; {remedy}"):
        use(folder, "tagging")
    for spec in ("tagging", str(folder / "tagging")):
        with pytest.raises(UsageError, match="is no adapter of a chat model"):
            resolve_adapter(folder, spec, "tiny")
        with pytest.raises(UsageError, match=f"is no model for classification; {remedy}"):
            trained_model(folder, spec, "classification")
        assert trained_model(folder, spec, "tagging") == folder / "tagging"
    assert trained_model(folder, "org/name", "tagging") is None
    card = folder / "tagging" / "agentkit.json"
    card.write_text(card.read_text().replace('"tagging"', '"juggling"'), encoding="utf-8")
    assert list_adapters(folder) == []


@pytest.mark.parametrize(
    ("task", "change", "told"),
    [
        (
            "classification",
            {"method": "qlora"},
            "qlora is for chats; classification takes the method full, lora or dora",
        ),
        ("seq2seq", {"method": "adalora"}, "adalora is for chats"),
        ("chat", {"method": "full"}, "chats are learned by an adapter"),
        ("juggling", {}, "'task'"),
        (
            "classification",
            {"rank": 8},
            "makes no adapter, so that rank would have no effect; leave out rank, or use",
        ),
        (
            "seq2seq",
            {"rank": 8, "alpha": 8, "method": "full"},
            "leave out rank and alpha, or use --method lora",
        ),
    ],
)
def test_methods_that_do_not_suit_the_task_are_refused(task: str, change: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        job_settings(Path("x"), task, **change)


def test_the_settings_of_a_full_run_can_be_given_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    done = job_settings(Path("x"), "tagging", seed=7)
    path.write_text(done.model_dump_json(), encoding="utf-8")
    read = read_settings_file(path)
    assert job_settings(Path("x"), "tagging", **read) == done
    assert job_settings(Path("x"), "tagging", **{**read, "method": "lora", "rank": 4}).rank == 4


def test_what_is_not_given_suits_the_task() -> None:
    given = {
        "name": "x",
        "model_name": "m",
        "model_source": "s",
        "data_name": "d",
        "data_sha256": "",
        "adapters_dir": "a",
    }
    chosen = [make_settings({**given, "task": task}) for task in ("chat", "classification", "seq2seq")]
    assert [(job.method, job.learning_rate) for job in chosen] == [
        ("lora", 1e-3),
        ("full", 1e-4),
        ("full", 3e-4),
    ]
    lora = make_settings({**given, "task": "tagging", "method": "lora"})
    assert lora.learning_rate == 1e-3
    assert [epochs_for(count, "tagging") for count in (10, 500, 2000, 9000)] == [20, 10, 5, 3]


def test_pieces_of_a_token_continue_its_entity(encoder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    labels = ["O", "B-X", "I-X"]
    row = encode_tags(Labelled(("the", "lamps", "teas"), ("O", "B-X", "O")), tokenizer, labels, 24)
    assert row is not None
    assert row.labels == [IGNORED, 0, 1, 2, 0, 0, IGNORED]
    assert row.starts == [1, 2, 4]
    assert encode_tags(Labelled(("the", "lamps"), ("O", "B-X")), tokenizer, labels, 4) is None


@pytest.mark.parametrize("merged", [0, 60])
@pytest.mark.parametrize("trims", [True, False])
def test_tags_are_learned_on_the_pieces_of_a_text(merged: int, trims: bool) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    words, tags = ("Ann", "Lee's", "lamps", "für", "Ann"), ("B-PER", "I-PER", "O", "O", "B-PER")
    text = " ".join(words)
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # as RoBERTa's
    special, alphabet = ["<s>", "</s>"], pre_tokenizers.ByteLevel.alphabet()
    size = len(special) + len(alphabet) + merged
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([text], trainer)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.RobertaProcessing(
        ("</s>", 1), ("<s>", 0), trim_offsets=trims, add_prefix_space=False
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    labels = ["O", "B-PER", "I-PER"]
    row = encode_tags(Labelled(words, tags), tokenizer, labels, 64)
    assert row is not None
    assert row.ids == tokenizer(text)["input_ids"]
    parts = [range(*bounds) for bounds in pairwise([*row.starts, len(row.ids) - 1])]
    assert tuple(tokenizer.decode([row.ids[n] for n in part]).strip() for part in parts) == words
    for part, tag in zip(parts, tags, strict=True):
        first, *others = [labels[row.labels[n]] for n in part if row.labels[n] != IGNORED]
        assert (first, {*others} - {tag.replace("B-", "I-")}) == (tag, set())
    assert row.labels[0] == row.labels[-1] == IGNORED


def test_a_classifier_is_stored_with_the_length_that_it_was_trained_on(encoder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for most, stored in ((16, 16), (2048, 24)):
        settings = job_settings(encoder, "classification", epochs=1, max_length=most)
        work = HeadJob(settings, examples("classification", tmp_path))
        work.save(work.train(lambda line: None), tmp_path / str(most))
        assert AutoTokenizer.from_pretrained(tmp_path / str(most)).model_max_length == stored


@pytest.mark.parametrize("pads", [True, False])
def test_a_decoder_with_a_head_needs_a_token_to_pad_with(encoder: Path, tmp_path: Path, pads: bool) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    LlamaForSequenceClassification(LlamaConfig(vocab_size=len(WORDS), **SIZES)).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    if not pads:
        tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    settings, found = job_settings(tmp_path, "classification", epochs=1), examples("classification", tmp_path)
    if pads:
        assert HeadJob(settings, found).train(lambda line: None).scored_on == "test"
    else:
        with pytest.raises(
            UsageError, match="the tokenizer of tiny has no token to pad with; name another base"
        ):
            HeadJob(settings, found)


def test_no_more_is_written_than_the_decoder_has_positions(translator: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration

    tokenizer = AutoTokenizer.from_pretrained(translator)
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=6, pad_token_id=0,
        bos_token_id=0, eos_token_id=1, decoder_start_token_id=0, forced_eos_token_id=None,
    )  # fmt: skip
    model = BartForConditionalGeneration(config)
    model.final_logits_bias[0, 1] = -100.0  # it never comes to an end by itself
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    work = HeadJob(job_settings(tmp_path, "seq2seq", epochs=1), examples("seq2seq", tmp_path))
    assert work.train(lambda line: None).scores["exact_match"] == 0


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_loss_of_pairs_is_the_models_own_and_computed_once(
    translator: Path, tmp_path: Path, method: str
) -> None:
    settings = job_settings(translator, "seq2seq", method=method, precision="fp32")
    work = HeadJob(settings, examples("seq2seq", tmp_path))
    asked: list[dict[str, Any]] = []
    work.model.register_forward_pre_hook(lambda _, args, given: asked.append(given), with_kwargs=True)
    model = heads._with_lora(work.model, work.job) if method == "lora" else work.model
    learner = HeadLearner(work, model.eval(), [])
    loss, count, _ = learner._read(work.rows[:3])
    assert "labels" not in asked[0]
    labels = heads._padded([row.labels for row in work.rows[:3]], IGNORED)
    own = work.model(**learner._inputs(work.rows[:3]), labels=labels).loss
    assert float(loss.detach()) / count == pytest.approx(float(own.detach()), rel=1e-5)


def test_steps_see_each_row_once_and_hold_their_limits() -> None:
    rows = [HeadRow([1] * (1 + n % 9), [0]) for n in range(100)]
    settings = job_settings(Path("x"), "classification", batch_size=8, batch_tokens=40)
    found = steps(rows, settings, random.Random(1))
    assert sorted(id(row) for batch in found for row in batch) == sorted(map(id, rows))
    assert all(len(batch) <= 8 and len(batch) * max(row.tokens for row in batch) <= 40 for batch in found)
    assert found == steps(rows, settings, random.Random(1))
    assert found != steps(rows, settings, random.Random(2))
    assert batches([HeadRow([1] * 90, [0]), HeadRow([1], [0])], 8, 40) == [
        [HeadRow([1] * 90, [0])],
        [HeadRow([1], [0])],
    ]


def test_scores_are_those_of_the_field() -> None:
    # scikit-learn: f1_score([0, 0, 1, 1, 2], [0, 1, 1, 1, 0], average="macro") == 0.43333
    assert macro_f1([0, 0, 1, 1, 2], [0, 1, 1, 1, 0]) == pytest.approx((0.5 + 0.8 + 0) / 3)
    assert spans(["B-A", "I-A", "O", "B-A", "B-A"]) == {(0, 2, "A"), (3, 4, "A"), (4, 5, "A")}
    assert spans(["O", "I-A", "I-B", "B-B", "I-B"]) == {(1, 2, "A"), (2, 3, "B"), (3, 5, "B")}
    assert spans([]) == set()
    # sacreBLEU 2: CHRF().corpus_score(["the cat sat"], [["the cat sat"]]).score == 100.0
    assert chrf(["the cat sat"], ["the cat sat"]) == pytest.approx(100.0)
    assert chrf(["xyz"], ["abc"]) == 0.0
    assert chrf([""], ["abc"]) == 0.0
    # one of two characters right, no run of two: F of 1/2 and of 0
    assert chrf(["ab"], ["ac"]) == pytest.approx(100 * (0.5 + 0.0) / 2)


def test_a_batch_without_a_label_teaches_nothing() -> None:
    """As a tagger's is, whose only tokens are characters that its tokenizer drops."""
    import torch

    learner = object.__new__(HeadLearner)
    asked: list[float] = []
    learner._read = lambda batch: (torch.zeros(()), 0, torch.zeros(0))  # type: ignore[method-assign]
    learner.backward = lambda loss: asked.append(float(loss))  # type: ignore[method-assign]
    assert learner.learn([]) == (0.0, 0)
    assert asked == [0.0]
