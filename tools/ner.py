"""Named entities: people, organisations, places, dates, amounts of money."""

from __future__ import annotations

import functools
from typing import Any

from agentkit import MissingBackendError, UsageError, asset_path, tool, tool_options

from ._models import device_of, load_model

MAX_CHARACTERS = 100_000
EXAMPLES = (
    (
        "Which people and companies appear in: 'Tim Cook met Angela Merkel at Siemens in Munich'?",
        {"text": "Tim Cook met Angela Merkel at Siemens in Munich"},
    ),
    (
        "Extract the named entities from this sentence: Marie Curie won the Nobel Prize in 1903.",
        {"text": "Marie Curie won the Nobel Prize in 1903."},
    ),
    (
        "Pull out the dates and amounts: I paid $49.90 on 3 March and was refunded $20 on Friday.",
        {"text": "I paid $49.90 on 3 March and was refunded $20 on Friday."},
    ),
    (
        "Find all place names in 'We shipped from Rotterdam to Oslo via Hamburg.'",
        {"text": "We shipped from Rotterdam to Oslo via Hamburg."},
    ),
    (
        "Who is mentioned here? Please forward the letter to Dr. Amara Okafor at the World Bank.",
        {"text": "Please forward the letter to Dr. Amara Okafor at the World Bank."},
    ),
)


REPLY = """\
{% if not result %}I found no names, places, dates or amounts in that text.{% else %}\
I found {% for e in result %}{{ e.text }} ({{ e.label }}){{ ", " if not loop.last }}{% endfor %}.{% endif %}"""


@tool(examples=EXAMPLES, reply=REPLY)
def ner(text: str) -> list[dict[str, Any]]:
    """Find the named entities in a text: people, organisations, places, dates, amounts of money.

    Args:
        text: The text to search, word for word.

    Returns:
        One ``{"text", "label", "start", "end"}`` per entity, in order; positions are characters of the
        text. Labels are PERSON, ORG, GPE, DATE, MONEY and so on, or those of the model in the options.
    """
    if not text.strip():
        raise UsageError("the text is empty", "give the text to search for names")
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"the text has {len(text)} characters", f"give at most {MAX_CHARACTERS}")
    model = tool_options("ner").get("model")
    return _with_model(text, str(model)) if model else _with_spacy(text)


def _with_spacy(text: str) -> list[dict[str, Any]]:
    entities = []
    for entity in _pipeline()(text).ents:
        start, end = entity.start_char, entity.end_char
        if entity.label_ == "MONEY" and text[max(start - 1, 0) : start] in tuple("$€£¥"):
            start -= 1  # the pipeline leaves the currency sign out
        entities.append({"text": text[start:end], "label": entity.label_, "start": start, "end": end})
    return entities


@functools.cache
def _pipeline() -> Any:
    try:
        import spacy
    except ImportError as error:
        raise MissingBackendError("spaCy is not installed", "run `pip install 'spacy>=3.8,<3.9'`") from error

    # the recogniser has its own token vectors; the rest of the pipeline would only cost time
    unused = ["tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer"]
    return spacy.load(asset_path("ner-en"), exclude=unused)


def _with_model(text: str, name: str) -> list[dict[str, Any]]:
    """Token classification; neighbouring tokens of one entity (``B-``, ``I-`` tags) are joined."""
    import torch

    model, tokenizer = load_model("AutoModelForTokenClassification", name, device_of("ner"))
    windows = tokenizer(
        text,
        return_tensors="pt",
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        return_overflowing_tokens=True,
        truncation=True,
        max_length=min(int(getattr(model.config, "max_position_embeddings", 512)), 512),
        padding=True,
    )
    tokens = {key: windows[key].to(model.device) for key in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        tags = model(**tokens).logits.argmax(-1)
    entities: list[dict[str, Any]] = []
    rows = zip(tags, windows["offset_mapping"], windows["special_tokens_mask"], strict=True)
    for tag_row, offset_row, special_row in rows:
        for tag, (start, end), special in zip(tag_row, offset_row.tolist(), special_row, strict=True):
            if not special and start < end:
                _add_token(entities, text, model.config.id2label[int(tag)], start, end)
    return entities


def _add_token(entities: list[dict[str, Any]], text: str, tag: str, start: int, end: int) -> None:
    prefix, label = (
        (tag[0], tag[2:]) if tag[1:2] == "-" else ("", tag)
    )  # a type may hold hyphens: B-credit-card
    if label in ("O", "LABEL_0") and not prefix:
        return
    last = entities[-1] if entities else None
    if last and last["label"] == label and prefix != "B" and not text[last["end"] : start].strip():
        last["end"] = end
    elif last and last["end"] == start and text[start - 1 : start + 1].isalnum():
        last["end"] = end  # the rest of a word that the tokenizer has split
    else:
        start += len(text[start:end]) - len(text[start:end].lstrip())
        last = {"text": "", "label": label, "start": start, "end": end}
        entities.append(last)
    last["text"] = text[last["start"] : last["end"]]
