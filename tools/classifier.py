"""Puts a text into one of some classes: sentiment, or any labels the caller names."""

from __future__ import annotations

import functools
import math
import textwrap
from typing import Any

from agentkit import UsageError, load_embedder, tool, tool_options, trained_model

from ._models import device_of, load_model
from ._sentiment import LABELS as SENTIMENTS
from ._sentiment import Sentiment

MAX_CHARACTERS = 100_000
MAX_LABELS = 100
PART = 1_000
"""Characters judged at once, as the embedder reads 256 tokens; a longer text has the mean scores of its parts."""
TEMPLATES = ("{}", "This text is about {}.", "A message about {}.", "The topic is {}.")
HYPOTHESIS = "This text is about {}."
SHARPNESS = 20.0
"""Multiplies cosine similarities before the softmax; they differ by hundredths."""
EXAMPLES = (
    (
        "Is this review positive or negative? 'The kettle leaks and the lid is loose.'",
        {"text": "The kettle leaks and the lid is loose.", "labels": ["positive", "negative"]},
    ),
    (
        "What is the sentiment of: I adore my new bicycle, it rides like a dream",
        {"text": "I adore my new bicycle, it rides like a dream"},
    ),
    (
        "Classify 'The striker scored twice in the final' as sports, politics or cooking",
        {"text": "The striker scored twice in the final", "labels": ["sports", "politics", "cooking"]},
    ),
    (
        "Which department should get this: billing, shipping or technical support? My card was declined.",
        {"text": "My card was declined.", "labels": ["billing", "shipping", "technical support"]},
    ),
    (
        "How does this customer feel? I have been put on hold three times.",
        {"text": "I have been put on hold three times."},
    ),
    (
        "Label this sentence as question, complaint or praise: Why is my basket empty?",
        {"text": "Why is my basket empty?", "labels": ["question", "complaint", "praise"]},
    ),
    (
        "Put this into one of fruit, vegetable or meat: 'We bought two kilos of carrots'",
        {"text": "We bought two kilos of carrots", "labels": ["fruit", "vegetable", "meat"]},
    ),
    ("Is the mood of this message good or bad: What a lovely surprise!", {"text": "What a lovely surprise!"}),
)
REPLY = "I would call that: {{ result.label }}."


@tool(examples=EXAMPLES, reply=REPLY)
def classifier(text: str, labels: list[str] | None = None) -> dict[str, Any]:
    """Classify a text: its sentiment (positive, negative or neutral), or which of the given labels fits best.

    Args:
        text: The text to classify, word for word.
        labels: The classes to choose from; without them the sentiment is told.
    """
    wanted = _check(text, labels)
    parts = [_scores(part, wanted, any_of_its_own=not labels) for part in _parts(text)]
    scores = {label: sum(part[label] for part in parts) for label in parts[0]}
    total = sum(scores.values())
    rounded = {label: round(score / total, 4) for label, score in scores.items()}
    return {"label": max(scores, key=scores.__getitem__), "scores": rounded}


def _parts(text: str) -> list[str]:
    """What is judged at once; what was trained here reads the beginning that fits, as it did when it was scored."""
    model = tool_options("classifier").get("model")
    return [text] if model and trained_model(str(model), "classification") else textwrap.wrap(text, PART)


def _scores(text: str, labels: list[str], *, any_of_its_own: bool) -> dict[str, float]:
    """How well each label fits a part of the text."""
    model = tool_options("classifier").get("model")
    if model:
        return _with_model(text, labels, str(model), any_of_its_own=any_of_its_own)
    if {label.lower() for label in labels} <= set(SENTIMENTS):
        everything = _sentiment().scores(text)
        return {label: everything[label.lower()] for label in labels}
    return _by_similarity(text, tuple(labels))


def _check(text: str, labels: list[str] | None) -> list[str]:
    """The labels, without repetitions; those of sentiment where none are given."""
    if not text.strip():
        raise UsageError("the text is empty", "give the text to classify")
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"the text has {len(text)} characters", f"give at most {MAX_CHARACTERS}")
    if not labels:
        return list(SENTIMENTS)
    wanted = list(
        {label.strip().lower(): label.strip() for label in reversed(labels) if label.strip()}.values()
    )[::-1]
    if not 2 <= len(wanted) <= MAX_LABELS:
        raise UsageError(f"{len(wanted)} labels are no choice", f"give 2 to {MAX_LABELS} different labels")
    return wanted


@functools.cache
def _embedder() -> Any:
    return load_embedder("minilm")


@functools.cache
def _sentiment() -> Sentiment:
    return Sentiment(_embedder())


@functools.lru_cache(maxsize=16)
def _phrases(labels: tuple[str, ...]) -> Any:
    """Vectors of every phrasing of every label, shape (labels x phrasings, dimensions)."""
    return _embedder().embed([template.format(label) for label in labels for template in TEMPLATES])


def _by_similarity(text: str, labels: tuple[str, ...]) -> dict[str, float]:
    """Softmax over the cosine similarity of the text and each label, averaged over phrasings of the label."""
    similarities = _phrases(labels) @ _embedder().embed([text])[0]
    means = similarities.reshape(len(labels), len(TEMPLATES)).mean(1)
    return _softmax(list(labels), [SHARPNESS * float(mean) for mean in means])


def _with_model(text: str, labels: list[str], name: str, *, any_of_its_own: bool) -> dict[str, float]:
    """A sequence classifier: one for entailment judges any labels, any other knows its own only."""
    model, tokenizer = load_model("AutoModelForSequenceClassification", name, device_of("classifier"))
    known = {str(label).lower(): int(index) for index, label in model.config.id2label.items()}
    entailment = next((index for label, index in known.items() if label.startswith("entail")), None)
    if entailment is not None:
        pairs = [HYPOTHESIS.format(label) for label in labels]
        logits = _logits(model, tokenizer, [text] * len(labels), pairs)
        return _softmax(labels, [float(row[entailment]) for row in logits])
    own = [str(label) for label in model.config.id2label.values()]
    chosen = own if any_of_its_own else [label for label in labels if label.lower() in known]
    if len(chosen) < len(labels) and not any_of_its_own:
        names = ", ".join(own)
        raise UsageError(
            f"the model {name!r} knows only the labels {names}", "use them, or an entailment model"
        )
    row = _logits(model, tokenizer, [text], None)[0]
    return _softmax(chosen, [float(row[known[label.lower()]]) for label in chosen])


def _logits(model: Any, tokenizer: Any, texts: list[str], pairs: list[str] | None) -> Any:
    """Shape (len(texts), classes); a text too long for the model is cut, its hypothesis is not."""
    import torch

    told = tokenizer.model_max_length  # a huge number where it is not known
    known = told if told < 1 << 30 else 512
    limit = min(known, getattr(model.config, "max_position_embeddings", None) or known)
    cut: Any = "only_first" if pairs else True
    batch = tokenizer(texts, pairs, return_tensors="pt", padding=True, truncation=cut, max_length=limit)
    tokens = {key: value.to(model.device) for key, value in batch.items()}
    with torch.inference_mode():
        return model(**tokens).logits.float()


def _softmax(labels: list[str], logits: list[float]) -> dict[str, float]:
    top = max(logits)
    powers = [math.exp(logit - top) for logit in logits]
    return {label: power / sum(powers) for label, power in zip(labels, powers, strict=True)}
