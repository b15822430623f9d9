"""Translation between languages, by apertium or by a sequence-to-sequence model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Annotated, Any

from pydantic import Field

from agentkit import AgentkitError, MissingBackendError, UsageError, tool, tool_options

from ._languages import detect, is_plain, normalise, package_for, spellings, synonyms
from ._models import device_of, load_model

MAX_CHARACTERS = 50_000
EXAMPLES = (
    (
        "Translate 'Good evening, how are you?' into Spanish",
        {"text": "Good evening, how are you?", "target": "es"},
    ),
    (
        "What does 'Hace mucho frío en la montaña' mean in English?",
        {"text": "Hace mucho frío en la montaña", "target": "en"},
    ),
    (
        "How do you say 'the train leaves at noon' in Spanish?",
        {"text": "the train leaves at noon", "target": "es"},
    ),
    (
        "Put this into English: El museo abre a las nueve.",
        {"text": "El museo abre a las nueve.", "target": "en"},
    ),
    ("I need this in French: where is the station?", {"text": "where is the station?", "target": "fr"}),
    (
        "How is 'window' called in Italian?",
        {"text": "window", "target": "it"},
    ),
)
REPLY = "{{ result.translation }}"
Target = Annotated[str, Field(json_schema_extra={"x-synonyms": synonyms()})]


@tool(examples=EXAMPLES, reply=REPLY)
def translator(text: str, target: Target, source: str | None = None) -> dict[str, Any]:
    """Translate a text into another language.

    Args:
        text: The text to translate, word for word.
        target: The language to translate into, as an ISO 639-1 code such as "es" or "en".
        source: The language of the text, as an ISO 639-1 code; detected where it is not given, and English where a few
            words do not tell.
    """
    if not text.strip():
        raise UsageError("the text is empty", "give the text to translate")
    if len(text) > MAX_CHARACTERS:
        raise UsageError(f"the text has {len(text)} characters", f"give at most {MAX_CHARACTERS}")
    into = _code(target)
    origin = _code(source) if source and source.strip() else detect(text) or _guess(text, into)
    if origin is None:
        raise UsageError("the language of the text cannot be told", 'name it as `source`, e.g. "en"')
    if origin == into:
        translation, backend = text, "none"
    elif model := tool_options("translator").get("model"):
        name = str(model).replace("{source}", origin).replace("{target}", into)
        translation, backend = _with_model(text, origin, into, name), name
    else:
        translation, backend = _with_apertium(text, origin, into), "apertium"
    return {"translation": translation, "source": origin, "target": into, "backend": backend}


FEW_WORDS = 5
"""Of English, of which so few may tell no language."""


def _guess(text: str, target: str) -> str | None:
    """What a text is taken for whose language its words do not tell."""
    return "en" if target != "en" and is_plain(text) and len(text.split()) <= FEW_WORDS else None


def _code(language: str) -> str:
    code = normalise(language)
    if code is None:
        raise UsageError(
            f"{language!r} is no language known here", 'use an ISO 639-1 code such as "es" or "en"'
        )
    return code


def _with_apertium(text: str, source: str, target: str) -> str:
    program = shutil.which("apertium")
    package = package_for(source, target)
    if program is None:
        remedy = f"run `apt-get install {package or 'apertium-eng-spa'}`"
        raise MissingBackendError("apertium, the translation program, is not installed", remedy)
    pair = _pair(_run([program, "-l"], "").split(), source, target)
    if pair is None:
        remedy = "name a model in [tools.options.translator]"
        if package:
            remedy = f"run `apt-get install {package}`, or {remedy}"
        raise MissingBackendError(f"apertium has no pair {source} to {target} here", remedy)
    # -u: no marks on unknown words; -n: no full stops where the text has none
    return _run([program, "-u", "-n", pair], text).rstrip("\n")


def _pair(installed: list[str], source: str, target: str) -> str | None:
    wanted = [f"{a}-{b}" for a in spellings(source) for b in spellings(target)]
    exact = next((pair for pair in wanted if pair in installed), None)
    return exact or next((pair for pair in installed if pair.split("_")[0] in wanted), None)


def _run(command: list[str], text: str) -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}  # apertium reads UTF-8 only under such a locale
    done = subprocess.run(command, input=text.encode(), capture_output=True, env=environment, check=False)
    if done.returncode:
        last = next(iter(done.stderr.decode(errors="replace").strip().splitlines()[::-1]), "no message")
        raise AgentkitError(f"`{' '.join(command)}` failed: {last}", "check the installation of apertium")
    return done.stdout.decode(errors="replace")


_M2M = {"nb": "no", "nn": "no", "fil": "tl"}
"""What M2M100 calls languages that have another code here."""


def _lang_id(tokenizer: Any, language: str, name: str) -> int:
    try:
        return int(tokenizer.get_lang_id(_M2M.get(language, language)))
    except KeyError as error:
        raise UsageError(f"{name} does not translate into {language!r}", "name another model") from error


_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])")
MAX_TOKENS = 512


def _fitting(sentence: str, tokenizer: Any) -> list[str]:
    """A sentence in parts that the model can take, cut at the blank that is nearest to its middle."""
    if len(sentence) < 2 or len(tokenizer(sentence)["input_ids"]) <= MAX_TOKENS:
        return [sentence]
    middle = len(sentence) // 2
    blanks = [match.start() for match in re.finditer(r"\s", sentence.strip())]
    cut = min(blanks, key=lambda place: abs(place - middle), default=middle) or middle
    parts = (sentence[:cut].strip(), sentence[cut:].strip())
    return [piece for part in parts if part for piece in _fitting(part, tokenizer)]


def _with_model(text: str, source: str, target: str, name: str) -> str:
    """In sentences and parts of them, so that no length limit of the model cuts anything; line breaks stay."""
    import torch

    model, tokenizer = load_model("AutoModelForSeq2SeqLM", name, device_of("translator"))
    options: dict[str, Any] = {"max_new_tokens": 512, "do_sample": False}
    if hasattr(tokenizer, "get_lang_id"):  # M2M100: one model for many languages
        tokenizer.src_lang = _M2M.get(source, source)
        options["forced_bos_token_id"] = _lang_id(tokenizer, target, name)
    elif hasattr(
        tokenizer, "src_lang"
    ):  # NLLB, mBART: their codes are others, and they would translate into any
        raise UsageError(f"{name} has language codes of its own", "name a model of one pair, or an M2M100")
    lines = []
    for line in text.splitlines():
        sentences = [part for part in _SENTENCE_END.split(line.strip()) if part]
        sentences = [part for sentence in sentences for part in _fitting(sentence, tokenizer)]
        if sentences:
            batch = tokenizer(sentences, return_tensors="pt", padding=True)
            tokens = {key: batch[key].to(model.device) for key in ("input_ids", "attention_mask")}
            with torch.inference_mode():
                ids = model.generate(**tokens, **options)
            sentences = [part.strip() for part in tokenizer.batch_decode(ids, skip_special_tokens=True)]
        lines.append(" ".join(sentences))
    return "\n".join(lines)
