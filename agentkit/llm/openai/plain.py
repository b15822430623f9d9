"""Text of others, as messages to people show it."""

from __future__ import annotations


def plain(text: str) -> str:
    """A text on one line that can steer no terminal and be stored anywhere.

    Control characters, halves of a character and runs of white space become a space.
    """
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(text.split())
