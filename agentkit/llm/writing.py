"""How what stands in a turn is written as an argument: in the parameter's unit, its form of a date, its code."""

from __future__ import annotations

import json
import re

from agentkit.llm.english import words
from agentkit.llm.fits import converted
from agentkit.llm.slots import Slot, parts_of, stem_of, takes_currency
from agentkit.llm.spans import Span
from agentkit.llm.units import currency, unit

_SORTS = words("type kind sort category class style")


def as_json(slot: Slot, span: Span, turn: str) -> str:
    """A span of a turn as the value of a parameter, in JSON."""
    if slot.type == "integer":
        counted = (
            unit(span.unit) is None and span.text[0] not in "$€£"
        )  # a measure has values between whole numbers
        return json.dumps(int(converted(slot, span)) + (_beyond(slot, turn[: span.start]) if counted else 0))
    if slot.type == "number":
        return json.dumps(converted(slot, span))
    if span.kind == "date" and slot.schema.get("format") == "date-time":
        return f'"{span.value.isoformat()}T'  # the model goes on with the time
    if span.kind == "date":
        return json.dumps(_date_text(slot, span))
    text = span.value if isinstance(span.value, str) else span.text
    if takes_currency(slot) and (code := currency(text)):
        return json.dumps(code)
    first, _, rest = text.partition(" ")
    most, _, last = text.rpartition(" ")
    if span.kind == "phrase" and rest and stem_of(first.lower()) in slot.words:
        text = rest  # "the color magenta"
    elif most and _SORTS & set(parts_of(slot)) and stem_of(last.lower()) in slot.words:
        text = most  # "a deluxe room" for a type of room
    return json.dumps(text, ensure_ascii=False)


_MORE = re.compile(r"\b(?<!no )(?<!not )(?:more|greater) than $", re.I)
_LESS = re.compile(r"\b(?<!no )(?<!not )(?:less|fewer) than $", re.I)


def _beyond(slot: Slot, before: str) -> int:
    """Of "more than 5" the least whole number is 6, of "fewer than 5" the most is 4."""
    about = {*parts_of(slot), *slot.about}
    if _MORE.search(before) and about & {"min", "minimum", "least"}:
        return 1
    return -1 if _LESS.search(before) and about & {"max", "maximum", "most", "limit"} else 0


_FORMS = (("YYYY-MM-DD", "%Y-%m-%d"), ("MM/DD/YYYY", "%m/%d/%Y"), ("DD/MM/YYYY", "%d/%m/%Y"),
          ("YYYY/MM/DD", "%Y/%m/%d"), ("DD-MM-YYYY", "%d-%m-%Y"), ("MM-DD-YYYY", "%m-%d-%Y"),
          ("DD.MM.YYYY", "%d.%m.%Y"))  # fmt: skip


def _date_text(slot: Slot, span: Span) -> str:
    asked = slot.description.upper()
    for name, form in _FORMS:
        if name in asked:
            if re.fullmatch(re.sub("[YMD]", r"\\d", name), span.text):
                return span.text  # which is the day and which the month only the form tells
            return str(span.value.strftime(form))
    iso = slot.schema.get("format") == "date" or re.search(r"\d{4}-\d{2}-\d{2}", asked)
    return str(span.value.isoformat()) if iso else span.text
