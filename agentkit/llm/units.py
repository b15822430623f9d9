"""Units of measurement, as far as arguments need them: whether two are of one kind, and the factor between them."""

from __future__ import annotations

import re
from functools import lru_cache

_BASES = {"metre": "m meter", "gram": "g", "second": "s sec", "litre": "l L liter", "volt": "V", "ampere": "A amp",
          "watt": "W", "hertz": "Hz", "joule": "J", "newton": "N", "pascal": "Pa", "farad": "F", "henry": "H",
          "ohm": "Ω", "tesla": "T", "coulomb": "C", "byte": "B", "mole": "mol"}  # fmt: skip
_PREFIXES = {"pico": ("p", 1e-12), "nano": ("n", 1e-9), "micro": ("µ", 1e-6), "milli": ("m", 1e-3),
             "centi": ("c", 1e-2), "kilo": ("k", 1e3), "mega": ("M", 1e6), "giga": ("G", 1e9)}  # fmt: skip
_OTHERS = {"inch": ("metre", 0.0254), "inches": ("metre", 0.0254), "foot": ("metre", 0.3048),
           "feet": ("metre", 0.3048), "ft": ("metre", 0.3048), "yard": ("metre", 0.9144), "mile": ("metre", 1609.344),
           "mi": ("metre", 1609.344), "kilo": ("gram", 1e3), "pound": ("gram", 453.59237), "lb": ("gram", 453.59237),
           "lbs": ("gram", 453.59237), "ounce": ("gram", 28.349523125), "oz": ("gram", 28.349523125),
           "minute": ("second", 60.0), "min": ("second", 60.0), "hour": ("second", 3600.0),
           "hr": ("second", 3600.0), "h": ("second", 3600.0), "day": ("second", 86400.0),
           "week": ("second", 604800.0), "%": ("percent", 1.0), "percent": ("percent", 1.0),
           "percentage": ("percent", 1.0), "month": ("month", 1.0), "year": ("month", 12.0),
           "decade": ("month", 120.0), "century": ("month", 1200.0), "fortnight": ("second", 1209600.0)}  # fmt: skip

_CURRENCIES = {"dollar": "USD", "buck": "USD", "euro": "EUR", "yen": "JPY", "yuan": "CNY", "renminbi": "CNY",
               "rupee": "INR", "franc": "CHF", "won": "KRW", "real": "BRL", "reais": "BRL", "rand": "ZAR",
               "ruble": "RUB", "rouble": "RUB", "zloty": "PLN", "lira": "TRY", "baht": "THB", "forint": "HUF",
               "krona": "SEK", "kronor": "SEK", "peso": "MXN", "pound": "GBP", "sterling": "GBP"}  # fmt: skip
_OF_COUNTRIES = {"canadian": "CAD", "australian": "AUD", "new zealand": "NZD", "hong kong": "HKD", "singapore": "SGD",
                 "norwegian": "NOK", "danish": "DKK"}  # fmt: skip
_OWN = {
    "us", "u.s.", "american", "japanese", "chinese", "indian", "swiss", "korean", "south korean", "brazilian",
    "south african", "russian", "polish", "turkish", "thai", "hungarian", "swedish", "mexican", "british",
}  # fmt: skip
"""Of whom the plain name is the currency too; before it other words are not a part of its name."""
CODES = frozenset({*_CURRENCIES.values(), *_OF_COUNTRIES.values()})


def currency(text: str) -> str | None:
    """The ISO 4217 code of a currency's name or code, such as "Canadian dollars"; none for other words."""
    if text.upper() in CODES and text.isalpha():
        return text.upper()
    *of, word = text.lower().split() or [""]
    plain = next((form for form in (word, word.removesuffix("s")) if form in _CURRENCIES), None)
    if plain is None:
        return None
    owner = " ".join(of)
    return _OF_COUNTRIES.get(owner, _CURRENCIES[plain] if not of or owner in _OWN else None)


Unit = tuple[str, float]
"""What is measured, and the factor to its base."""


def _table() -> dict[str, Unit]:
    table: dict[str, Unit] = dict(_OTHERS)
    for base, names in _BASES.items():
        symbol, *words = names.split()
        for name in (base, symbol, *words):
            table[name] = (base, 1.0)
        for prefix, (short, factor) in _PREFIXES.items():
            table[short + symbol] = (base, factor)
            table.update({prefix + word: (base, factor) for word in (base, *words) if len(word) > 2})
    table.update({"tb": ("byte", 1e12), "TB": ("byte", 1e12), "terabyte": ("byte", 1e12)})
    table.update({prefix + "b": ("byte", factor) for prefix, factor in (("k", 1e3), ("m", 1e6), ("g", 1e9))})
    table.update(
        {"mph": ("metre/second", 0.44704), "kph": ("metre/second", 1 / 3.6), "kmh": ("metre/second", 1 / 3.6)}
    )
    table.update({"uF": ("farad", 1e-6), "μF": ("farad", 1e-6), "L": ("litre", 1.0)})
    return table


_TABLE = _table()


_POWER = re.compile(r"([^\W\d_²³]+)(?:\^?([2-9²³]))")
_RAISED = str.maketrans("²³", "23")


@lru_cache(4096)
def unit(word: str) -> Unit | None:
    """What ``word`` measures: ``km`` is (metre, 1000); ``m/s`` is (metre/second, 1); none for other words."""
    parts = re.split(r"/| per ", word)
    found = [_simple(part) for part in parts]
    if len(found) > 2 or any(part is None for part in found):
        return None
    named = [part for part in found if part is not None]
    if len(named) == 1:
        return named[0]
    return f"{named[0][0]}/{named[1][0]}", named[0][1] / named[1][1]


def _simple(word: str) -> Unit | None:
    if power := _POWER.fullmatch(word):
        base, exponent = _simple(power[1]), int(power[2].translate(_RAISED))
        return (f"{base[0]}^{exponent}", base[1] ** exponent) if base else None
    for form in (word, word.lower(), word.lower().removesuffix("s"), word.lower().removesuffix("es")):
        if form in _TABLE:
            return _TABLE[form]
    return None


_WORD = r"[^\W\d_]+(?:\^\d)?"
_TEXT_UNIT = re.compile(rf"{_WORD}(?:(?:/| per ){_WORD})?|%")


def units_in(text: str) -> list[Unit]:
    """The units that a description names; single letters do not count."""
    found = (unit(match[0]) for match in _TEXT_UNIT.finditer(text) if len(match[0]) > 1 or match[0] == "%")
    return [each for each in found if each is not None]
