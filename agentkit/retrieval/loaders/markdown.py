"""Markdown to `Document`: structure from headings, text without marks."""

from __future__ import annotations

import html
import re
import textwrap

from agentkit.retrieval.documents import CELL, Document, DocumentBuilder, clean_line

_ATX = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_SETEXT = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ITEM_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")
_QUOTE = re.compile(r"\A(?: {0,3}>[ ]?)++")
_RULE = re.compile(r" {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$")
_ITEM = re.compile(r"([ \t]*)(?:([-*+])|(\d{1,9}[.)]))[ \t]+(.*)")
_INDENTED = re.compile(r"(?: {2}| ?\t)[ \t]*\S")
_ROW = re.compile(r"[ \t]*\|.*\|[ \t]*$")
_ROW_RULE = re.compile(r"[\s|:-]+$")
_DEFINITION = re.compile(
    r" {0,3}\[(?!\^)[^\]]{1,200}\]:[ \t]+(?:<[^<>]{0,2000}>|\S+)(?:[ \t]+[\"'(][^\"')]{0,500}[\"')])?[ \t]*$"
)
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?:.*\n)*?(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_FIRST_KEY = re.compile(r"[\"']?\w[\w.-]{0,39}[\"']?[ \t]*:(?!//)")
_FIELD = re.compile(r"^([A-Za-z][\w-]{0,39}):(.*)$", re.MULTILINE)
_GOES_ON = (" ", "\t", "- ", "#", "]", "}")
"""Begins of front matter's lines that have no key of their own."""
_NO_SCALAR = ("[", "{", "|", ">", "&", "*", "!", "-")
"""Begins of YAML values that are no plain text."""

# The repeat counts are bounded, and runs of spaces are stripped in code, so that no line, however odd, costs
# quadratic time.
_CODE = re.compile(r"(?<!`)(`{1,2})(?!`)([^`]{1,500})\1(?!`)")
_LITERAL = re.compile(rf"\\([!-/:-@\[-`{{-~])|{_CODE.pattern.replace(chr(92) + '1', chr(92) + '2')}")
"""A mark that is none, as it is escaped, or a code span."""
_KEPT = re.compile("\ue000(\\d{1,9})\ue001")
"""What stands for a `_LITERAL` while marks are taken out: there are none in it."""
_APART = "br|hr|p|div|section|article|blockquote|pre|ul|ol|li|dl|dt|dd|table|tr|td|th|h[1-6]|details|summary"
"""Tags that stand between words: what is before them goes not on behind them."""
_INLINE = (
    (re.compile(r"\[\^[^\]\s]{1,40}\]:?"), ""),
    (re.compile(r"!?\[([^\[\]]{0,500})\]\([^()\s]{0,2000}(?:\s+[\"'(][^\"')]{0,500}[\"')])?\)"), r"\1"),
    (re.compile(r"!?\[([^\[\]]{1,500})\]\[[^\[\]]{0,200}\]"), r"\1"),
    (re.compile(r"<((?:https?://|mailto:)[^\s<>]{1,500}|[\w.+-]{1,64}@[\w.-]{1,255})>"), r"\1"),
    (re.compile(rf"</?(?:{_APART})(?![\w-])[^<>]{{0,500}}>", re.IGNORECASE), " "),
    (re.compile(r"</?[A-Za-z][^<>]{0,500}>"), ""),
    (re.compile(r"(\*{1,3})(?=[^\s*])([^*]{1,500}?)(?<=[^\s*])\1"), r"\2"),
    (re.compile(r"(?<!\w)(_{1,3})(?=[^\s_])([^\n]{1,500}?)(?<=[^\s_])\1(?!\w)"), r"\2"),
    (re.compile(r"~~([^~]{1,500})~~"), r"\1"),
)


def load_markdown(text: str, name: str) -> Document:
    """Markdown: ATX and setext headings; emphasis and link targets are dropped.

    Of front matter, ``keywords: …, …`` and ``language: …`` are read, ``title`` where there is no heading of level
    1, and further lines of plain text or numbers as metadata.
    """
    front = _front_matter(text)
    fields: dict[str, str] = {}
    for key, value in _FIELD.findall(front):
        fields.setdefault(key.lower(), value.strip(" \t"))
    keywords = fields.pop("keywords", "")
    plain_fields = {
        key: _unquoted(value) for key, value in fields.items() if not value.startswith(_NO_SCALAR)
    }
    language = plain_fields.pop("language", "") or plain_fields.pop("lang", "")
    reader = _Reader().read(_without_comments(text[len(front) :]))
    title = plain_fields.get("title", "")
    return reader.build(name, title, keywords, language, plain_fields.items())


def _front_matter(text: str) -> str:
    """What stands between two rules at the start, with them; empty where that is text: lines without a key."""
    found = _FRONT_MATTER.match(text)
    lines = found.group().splitlines()[1:-1] if found else []
    own = [line for line in lines if line.strip() and not line.startswith(_GOES_ON)]
    return found.group() if found and own and all(map(_FIRST_KEY.match, own)) else ""


def _without_comments(text: str) -> str:
    """Without comments; what looks like one in code is none, and neither is what has no end."""
    kept, mark, place, last = list[str](), "", 0, text.rfind("-->")
    inside = False
    for line in text.splitlines(keepends=True):
        place += len(line)
        if inside:
            _, closed, line = line.partition("-->")
            inside = not closed
        elif mark or _FENCE.match(line):
            fence = _FENCE.match(line)
            mark = ("" if line.strip().startswith(mark) else mark) if mark else fence[1] if fence else ""
            kept.append(line)
            continue
        code, at = [span.span() for span in _CODE.finditer(line)], 0
        while not inside and (start := line.find("<!--", at)) >= 0:
            if around := next((end for begin, end in code if begin < start < end), 0):
                at = around
                continue
            end = line.find("-->", start + 4)
            if end >= 0:
                line, code = line[:start] + line[end + 3 :], []
                at = start
            elif place - len(line) + start + 4 <= last:
                line, inside = line[:start], True
            else:
                break
        kept.append(line)
    return "".join(kept)


def _heading_text(line: str) -> str:
    """Of what follows the marks of a heading: the marks that may close it are no part of it."""
    line = line.strip(" \t")
    before = line.rstrip("#")
    return before.rstrip(" \t") if before[-1:] in (" ", "\t", "") else line


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value


def _is_row_rule(line: str) -> bool:
    """Whether a line stands between the names of a table's columns and its rows."""
    return "-" in line and _ROW_RULE.match(line) is not None


def plain(text: str) -> str:
    """Inline Markdown without its marks."""
    kept: list[str] = []

    def keep(literal: re.Match[str]) -> str:
        kept.append(literal[1] or literal[3])
        return f"\ue000{len(kept) - 1}\ue001"

    text = _LITERAL.sub(keep, text)
    for pattern, replacement in _INLINE:
        text = pattern.sub(replacement, text)
    text = html.unescape(text)
    return clean_line(_KEPT.sub(lambda n: kept[int(n[1])] if int(n[1]) < len(kept) else n[0], text))


class _Reader:
    """Line by line; ``_open`` holds the lines of the paragraph or list item being read."""

    def __init__(self) -> None:
        self.builder = DocumentBuilder()
        self._open: list[str] = []
        self._in_list = self._in_table = False
        """A table whose rows need not begin with a bar is open."""
        self._gap = False
        """There was an empty line since the last row or line of an item."""
        self._indents: list[int] = []
        """Where the items of the open list and of those around it begin."""

    def read(self, text: str) -> DocumentBuilder:
        mark, code, is_quoted = "", list[str](), False
        for whole in text.splitlines():
            bare = _QUOTE.sub("", whole)
            if mark and is_quoted and bare == whole:  # the quote ends, and with it its code
                self._code(code)
                mark, code = "", []
            line = bare if is_quoted or not mark else whole
            if mark and not line.strip().startswith(mark):
                code.append(line)
            elif mark:
                self._code(code)
                mark, code, is_quoted = "", [], False
            elif fence := (_ITEM_FENCE if self._in_list else _FENCE).match(bare):
                self._close()
                mark, is_quoted = fence.group(1), bare != whole
            else:
                self._line(bare)
        self._close()
        self._code(code)
        return self.builder

    def _code(self, lines: list[str]) -> None:
        self.builder.paragraph(textwrap.dedent("\n".join(lines)))

    def _line(self, line: str) -> None:
        if not line.strip():
            if not self._in_list:
                self._close()
            self._gap = True
            return
        if self._in_list and self._gap and not _ITEM.match(line):
            if _INDENTED.match(line) and not _ROW.match(line):  # a further paragraph of the item
                self._gap = False
                self._open.append(line.strip())
                return
            self._close()
            self._indents = []
        if heading := _ATX.match(line):
            self._close()
            self.builder.heading(len(heading.group(1)), plain(_heading_text(line[heading.end() :])))
        elif (
            self._open and not self._in_list and "|" in line and _is_row_rule(line) and "|" in self._open[-1]
        ):
            names = self._open.pop()
            self._close()
            self._row(names)
            self.builder.head()
            self._in_table = True
        elif self._in_table and "|" in line:
            self._row(line)
        elif self._open and not self._in_list and (under := _SETEXT.match(line)):
            title, self._open = " ".join(self._open), []
            self.builder.heading(1 if under.group(1)[0] == "=" else 2, plain(title))
        elif _RULE.match(line) or _DEFINITION.match(line):
            self._close()
        elif _ROW.match(line):
            self._close()
            if _is_row_rule(line):
                self.builder.head()
            else:
                self._row(line)
        elif item := _ITEM.match(line):
            self._close()
            self._in_list, self._gap = True, False
            indent = len(item[1].expandtabs(4))
            self._indents = [*(outer for outer in self._indents if outer < indent), indent]
            self._open = [f"{item[3] or '-'} {item[4]}"]
        else:
            self._in_table = False
            self._open.append(line.strip())

    def _row(self, line: str) -> None:
        if self._gap and self.builder.has_rows():
            self.builder.flush()  # another table
        self._gap = False
        cells = re.split(r"(?<!\\)\|", line.strip().removeprefix("|"))
        own = cells[:-1] if len(cells) > 1 and not cells[-1].strip() else cells
        # A bar that was escaped would make two cells of one.
        self.builder.row([plain(cell).replace(CELL, " / ") for cell in own])

    def _close(self) -> None:
        """End the open paragraph, list item or table."""
        self._in_table = False
        text = plain(" ".join(self._open))
        if self._in_list:
            self.builder.line(text, len(self._indents) - 1)
        elif text:
            self.builder.paragraph(text)
        self._open, self._in_list = [], False
