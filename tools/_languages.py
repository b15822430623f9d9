"""Languages: codes and names, the Debian packages that translate them, and a guess by frequent words."""

from __future__ import annotations

import re

CODES = {
    # ISO 639-1, where there is one: (ISO 639-3, names)
    "af": ("afr", "afrikaans"),
    "am": ("amh", "amharic"),
    "an": ("arg", "aragonese aragonés"),
    "ar": ("ara", "arabic العربية"),
    "ast": ("ast", "asturian asturianu"),
    "az": ("aze", "azerbaijani"),
    "be": ("bel", "belarusian"),
    "bg": ("bul", "bulgarian"),
    "bn": ("ben", "bengali bangla"),
    "br": ("bre", "breton brezhoneg"),
    "bs": ("bos", "bosnian"),
    "ca": ("cat", "catalan català catalán"),
    "cs": ("ces", "czech čeština"),
    "cy": ("cym", "welsh cymraeg"),
    "da": ("dan", "danish dansk"),
    "de": ("deu", "german deutsch alemán"),
    "el": ("ell", "greek ελληνικά"),
    "en": ("eng", "english inglés anglais englisch"),
    "eo": ("epo", "esperanto"),
    "es": ("spa", "spanish español espanol castilian castellano spanisch espagnol"),
    "et": ("est", "estonian eesti"),
    "eu": ("eus", "basque euskara"),
    "fa": ("fas", "persian farsi"),
    "fi": ("fin", "finnish suomi"),
    "fil": ("fil", "filipino tagalog"),
    "fr": ("fra", "french français francais francés französisch"),
    "ga": ("gle", "irish gaeilge"),
    "gl": ("glg", "galician galego gallego"),
    "gu": ("guj", "gujarati"),
    "ha": ("hau", "hausa"),
    "he": ("heb", "hebrew עברית"),
    "hi": ("hin", "hindi"),
    "hr": ("hrv", "croatian hrvatski"),
    "hu": ("hun", "hungarian magyar"),
    "hy": ("hye", "armenian"),
    "id": ("ind", "indonesian"),
    "ig": ("ibo", "igbo"),
    "is": ("isl", "icelandic"),
    "it": ("ita", "italian italiano italienisch"),
    "ja": ("jpn", "japanese"),
    "ka": ("kat", "georgian"),
    "kk": ("kaz", "kazakh"),
    "km": ("khm", "khmer"),
    "kn": ("kan", "kannada"),
    "ko": ("kor", "korean 한국어"),
    "lo": ("lao", "lao"),
    "lt": ("lit", "lithuanian lietuvių"),
    "lv": ("lav", "latvian latviešu"),
    "mk": ("mkd", "macedonian"),
    "ml": ("mal", "malayalam"),
    "mn": ("mon", "mongolian"),
    "mr": ("mar", "marathi"),
    "ms": ("zlm", "malay"),
    "my": ("mya", "burmese"),
    "nb": ("nob", "norwegian norsk bokmål"),
    "ne": ("nep", "nepali"),
    "nl": ("nld", "dutch nederlands"),
    "nn": ("nno", "nynorsk"),
    "oc": ("oci", "occitan"),
    "pa": ("pan", "punjabi"),
    "pl": ("pol", "polish polski"),
    "ps": ("pus", "pashto"),
    "pt": ("por", "portuguese português portugues portugués"),
    "ro": ("ron", "romanian română"),
    "ru": ("rus", "russian русский"),
    "sc": ("srd", "sardinian"),
    "sh": ("hbs", "serbo-croatian"),
    "si": ("sin", "sinhala"),
    "sk": ("slk", "slovak slovenčina"),
    "sl": ("slv", "slovenian"),
    "so": ("som", "somali"),
    "sq": ("sqi", "albanian shqip"),
    "sr": ("srp", "serbian srpski"),
    "sv": ("swe", "swedish svenska"),
    "sw": ("swa", "swahili kiswahili"),
    "ta": ("tam", "tamil"),
    "te": ("tel", "telugu"),
    "th": ("tha", "thai"),
    "tr": ("tur", "turkish türkçe"),
    "uk": ("ukr", "ukrainian"),
    "ur": ("urd", "urdu"),
    "uz": ("uzb", "uzbek"),
    "vi": ("vie", "vietnamese"),
    "yo": ("yor", "yoruba"),
    "zh": ("zho", "chinese"),
    "zu": ("zul", "zulu"),
}

_ALSO = {"no": "nb", "iw": "he", "tl": "fil"}
"""Further codes; no names, as a turn's "no" is no language."""

PACKAGES = """
    afr-nld arg-cat bel-rus br-fr cat-ita cat-srd dan-nor en-gl eng-cat eng-spa eo-ca eo-en eo-es eo-fr
    es-gl es-pt es-ro eu-en eu-es fr-es fra-cat hbs-eng hbs-mkd hbs-slv ind-zlm isl-eng isl-swe mkd-bul
    mkd-eng nno-nob oc-ca oc-es oci-fra por-cat pt-gl rus-ukr spa-arg spa-ast spa-cat spa-ita srd-ita
    swe-dan swe-nor urd-hin
"""
"""Debian's ``apertium-*`` packages for pairs (Debian 13)."""

_WORDS = {
    "en": "the and is are was you your for with this that have not my of to in it what where when how please"
    " thank thanks hello would can order i we good morning very at from want like",
    "es": "el la los las un una de que y en es por para con no mi su se lo está como dónde cuándo cómo hola"
    " gracias buenos días quiero pedido muy pero más yo este esta ha del al usted favor llegó tengo hasta",
    "ca": "el la els les un una de que i en és per amb no meu meva seu se ho està com on quan hola gràcies"
    " bon dia vull molt però més jo aquest aquesta ha del al comanda tinc fins són",
    "fr": "le la les un une des de que et en est pour avec ne pas mon ma votre vous nous je il où quand"
    " comment bonjour merci veux très mais plus ce cette du au commande suis sont voudrais dans",
    "de": "der die das ein eine und ist sind nicht ich sie wir mit für mein meine ihr wo wann wie hallo danke"
    " bitte möchte sehr aber auf von zu den dem im bestellung habe wurde guten tag auch",
    "pt": "o a os as um uma de que e em é por para com não meu minha seu se está como onde quando olá"
    " obrigado obrigada bom dia quero muito mas mais eu este esta do da no na ao pedido você tenho são até",
    "it": "il lo la i gli le un una di che e in è per con non mio mia suo si sta come dove quando ciao grazie"
    " buon giorno buongiorno voglio molto ma più io questo questa del della ordine sono vorrei ho nel",
    "nl": "de het een en van is zijn niet ik u wij met voor mijn uw waar wanneer hoe hallo dank bedankt wil"
    " graag zeer maar op naar bestelling heb deze dit ook goedemorgen",
}
_WORD_SETS = {code: frozenset(words.split()) for code, words in _WORDS.items()}
_LETTERS = {
    "es": "ñ¿¡",
    "ca": "·ŀ",
    "de": "ßäöü",
    "pt": "ãõ",
    "fr": "œêûç",
    "it": "òì",
}
"""Letters that tell a language, unless one is beside them that no language here has."""
_STRANGE = re.compile(r"[åøæşğıłőűčšžřěůąęśźżćńđħ]|[aäeiouyö]{4}|([aäiou])\1|yy")
"""Turkish, Hungarian, Scandinavian and Slavic ones, and the long vowels of Finnish and Estonian."""
_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("ko", re.compile(r"[\u1100-\u11ff\uac00-\ud7af]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
)
_NOT_ARABIC = re.compile(r"[پچژگکیٹڈڑںہے]")
"""Of the languages that write with the letters and some more: Persian, Urdu and others."""
_UKRAINIAN, _RUSSIAN = (re.compile(f"[{letters}]", re.IGNORECASE) for letters in ("іїєґ", "ыэъё"))


def normalise(language: str) -> str | None:
    """``es`` for ``ES``, ``spa``, ``es-MX``, ``Spanish`` or ``español``; ``None`` for what is unknown."""
    name = language.strip().lower()
    for candidate in (name, re.split(r"[-_\s]", name)[0]):
        candidate = _ALSO.get(candidate, candidate)
        for code, (long, names) in CODES.items():
            if candidate in (code, long) or candidate in names.split():
                return code
    return None


def detect(text: str) -> str | None:
    """The most likely language by script, frequent words and telling letters; ``None`` where it is open."""
    for code, pattern in _SCRIPTS:
        if len(pattern.findall(text)) * 3 >= sum(character.isalpha() for character in text) > 0:
            if code == "ar" and _NOT_ARABIC.search(text):
                return None
            ukrainian = code == "ru" and _UKRAINIAN.search(text) and not _RUSSIAN.search(text)
            return "uk" if ukrainian else code
    words = re.findall(r"[^\W\d_]+", text.lower())
    scores = {code: float(sum(word in known for word in words)) for code, known in _WORD_SETS.items()}
    for code, letters in _LETTERS.items():
        if scores[code] or not _STRANGE.search(text.lower()):
            scores[code] += 0.75 * sum(text.lower().count(letter) for letter in letters)
    best, second = sorted(scores, key=lambda code: scores[code], reverse=True)[:2]
    return best if scores[best] > scores[second] else None


def is_plain(text: str) -> bool:
    """Whether there are only Latin letters in a text, and none that English has not even in foreign words."""
    return all(letter < "\u0250" for letter in text if letter.isalpha()) and not _STRANGE.search(text.lower())


def package_for(source: str, target: str) -> str | None:
    """The Debian package that translates between two languages (ISO 639-1), in either direction."""
    wanted = {frozenset((a, b)) for a in spellings(source) for b in spellings(target)}
    return next(
        (f"apertium-{pair}" for pair in PACKAGES.split() if frozenset(pair.split("-")) in wanted), None
    )


def spellings(code: str) -> tuple[str, ...]:
    """How apertium may spell a language: ISO 639-3 in newer pairs, ISO 639-1 in older ones."""
    return (CODES[code][0], code)


def synonyms() -> dict[str, list[str]]:
    """The names by which people call each language, by ISO 639-1 code."""
    return {code: names.split() for code, (_, names) in CODES.items()}
