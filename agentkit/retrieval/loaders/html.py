"""HTML to `Document`: headings give the structure, table rows and list items become lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

from agentkit.retrieval.documents import CELL, EMPTY_CELL, Document, DocumentBuilder, clean_line

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

DROPPED = (
    "nav", "header", "footer", "script", "style", "noscript", "template", "form", "button", "select", "textarea",
    "svg", "iframe", "head",
)  # fmt: skip
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
LINES = ("li", "tr", "dt", "dd")
BLOCKS = (
    "p", "div", "section", "article", "main", "aside", "blockquote", "pre", "ul", "ol", "dl",
    "table", "thead", "tbody", "tfoot", "figure", "figcaption", "caption", "details", "summary", "address",
    "hr", "body",
)  # fmt: skip
TECHNICAL = ("viewport", "robots", "generator", "referrer", "theme-color", "color-scheme", "googlebot")
CLOSED = {
    "li": (("li",), ("ul", "ol", "menu")),
    **dict.fromkeys(("dt", "dd"), (("dt", "dd"), ("dl",))),
    **dict.fromkeys(("td", "th"), (("td", "th"), ("tr", "table"))),
    "tr": (("tr", "td", "th"), ("table",)),
    **dict.fromkeys(("thead", "tbody", "tfoot"), (("thead", "tbody", "tfoot", "tr", "td", "th"), ("table",))),
}
"""What the start of a tag ends that has no end tag of its own, and within what: those may be left out in HTML."""
NESTED = 50
"""Open elements that are looked at for it."""
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)


def load_html(text: str, name: str) -> Document:
    """HTML without navigation, header, footer, scripts and hidden elements; ``<meta>`` gives keywords."""
    soup = _soup()(text, "html.parser")
    # The first h1 names the page even where it stands in a <header> that is dropped below.
    title = soup.find("h1") or soup.find("title")
    fallback = title.get_text(" ") if title is not None else ""
    fields = _meta(soup)
    keywords = fields.pop("keywords", "")
    language = _language(soup)
    for tag in soup.find_all(_is_dropped):
        tag.extract()
    reader = _Reader()
    articles = soup.find_all("article", limit=2)  # of several none is the page
    root = soup.find("main") or (articles[0] if len(articles) == 1 else soup.find("body")) or soup
    for event, name_of_tag, string in _walk(root):
        reader.read(event, name_of_tag, string)
    reader.close()
    return reader.builder.build(name, fallback, keywords, language, fields.items())


@cache
def _soup() -> type[BeautifulSoup]:
    from bs4 import BeautifulSoup

    class Soup(BeautifulSoup):
        """Ends elements whose end tags are left out (`CLOSED`); the parser would nest them."""

        def handle_starttag(self, name: str, *args: Any, **kwargs: Any) -> Tag | None:
            ended, within = CLOSED.get(name, ((), ()))
            inner = islice(reversed(self.tagStack), NESTED) if ended else ()
            for tag in [*takewhile(lambda tag: tag.name not in within, inner)]:
                if tag.name in ended:
                    self.handle_endtag(tag.name)
            return super().handle_starttag(name, *args, **kwargs)

    return Soup


def _meta(soup: BeautifulSoup) -> dict[str, str]:
    """``<meta name content>`` by name in lower case, without what only browsers and robots use."""
    fields: dict[str, str] = {}
    for tag in soup.find_all("meta", attrs={"name": True, "content": True}):
        key = str(tag["name"]).strip().lower()
        if key not in TECHNICAL:
            fields.setdefault(key, str(tag["content"]))
    return fields


def _language(soup: BeautifulSoup) -> str:
    root = soup.find("html")
    return str(root.get("lang", "")) if root is not None else ""


def _is_dropped(tag: Tag) -> bool:
    hidden = (
        tag.has_attr("hidden")
        or tag.get("aria-hidden") == "true"
        or _HIDDEN.search(str(tag.get("style", "")))
    )
    # The head of a section is no page header, and what opens a folded answer is a question, be it a button.
    # Some servers wrap the whole page into a form.
    kept = (
        (tag.name == "header" and tag.find_parent(("article", "section", "main")))
        or (tag.name == "button" and tag.find_parent((*HEADINGS, "summary", "dt")))
        or (tag.name == "form" and tag.find(("main", "article", *HEADINGS)))
    )
    return bool(hidden) or (tag.name in DROPPED and not kept)


def _walk(root: Tag) -> Iterator[tuple[str, str, str]]:
    """(start, end or text; tag name; text) in reading order. A stack, as pages nest without limit."""
    from bs4 import Tag
    from bs4.element import NavigableString, PreformattedString

    stack: list[tuple[Tag, Iterator[object]]] = [(root, iter(root.children))]
    while stack:
        parent, children = stack[-1]
        child = next(children, None)
        if child is None:
            stack.pop()
            yield "end", parent.name, ""
        elif isinstance(child, Tag):
            yield "start", child.name, ""
            stack.append((child, iter(child.children)))
        elif isinstance(child, NavigableString) and not isinstance(child, PreformattedString):
            yield "text", "", str(child)


class _Reader:
    """Turns walk events into headings, paragraphs and lines; ``_text`` is what has no end yet."""

    def __init__(self) -> None:
        self.builder = DocumentBuilder()
        self._text: list[str] = []
        self._as_line = 0
        """How many list items or table rows are open."""
        self._preformatted = False
        self._cell: int | None = None
        """Where the open cell begins in ``_text``; none where it holds lines of its own, which have been written."""
        self._cells: set[str] = set()
        """Kinds of cells in the open row."""

    def read(self, event: str, tag: str, string: str) -> None:
        if event == "text":
            self._text.append(string if self._preformatted else re.sub(r"\s+", " ", string))
        elif tag == "br":
            self._text.append("\n" if event == "start" and not self._as_line else " ")
        elif tag in ("td", "th"):
            self._cell_tag(event)
            self._cells.add(tag)
        elif tag in HEADINGS:
            if event == "end":
                text, self._text = "".join(self._text), []
                self.builder.heading(int(tag[1]), text)
            else:
                self.close()
        elif tag in LINES:
            self._line_tag(event, tag)
        elif self._as_line and tag in ("p", "div"):
            self._text.append(" ")
        elif tag in BLOCKS:
            self.close()
            self._preformatted = tag == "pre" and event == "start"
            if tag in ("ul", "ol", "dl", "table") and not self._as_line:
                self.builder.flush()

    def _cell_tag(self, event: str) -> None:
        if event == "start":
            self._cell = len(self._text)
            return
        if self._as_line and self._cell is not None and not clean_line("".join(self._text[self._cell :])):
            self._text.append(EMPTY_CELL)
        self._text.append(CELL)

    def _line_tag(self, event: str, tag: str) -> None:
        self.close()
        if event == "end" and self._cells == {"th"}:
            self.builder.head()
        elif event == "end" and self._cells == {"th", "td"}:
            self.builder.label()
        self._cells = set()
        self._as_line += 1 if event == "start" else -1
        if event == "start" and tag == "li":
            self._text.append("- ")

    def close(self) -> None:
        """End the open paragraph or line."""
        text, self._text, self._cell = "".join(self._text), [], None
        if self._as_line:
            cells = [" ".join(cell.split()) for cell in text.split(CELL)]
            cells = [cell for cell in cells if cell]
            if any(cell not in ("-", EMPTY_CELL) for cell in cells):
                depth = self._as_line - 1 if cells[0].startswith("- ") else 0
                self.builder.line(CELL.join(cells), depth)
        elif text.strip():
            lines = (
                text.splitlines() if self._preformatted else [" ".join(x.split()) for x in text.splitlines()]
            )
            self.builder.paragraph("\n".join(lines))
