"""HTML as values: text is escaped unless it was made here, and a document that asks for nothing outside itself.

The document holds no script, and its Content-Security-Policy forbids everything but its own styles and data: images.
Knows nothing of metrics or runs.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from abaw.stages.report.style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
VOID = frozenset({"img", "source", "meta", "link", "br"})
# What no HTML text may hold, and the marks that turn the direction of the text after them.
UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
MISSING = "\N{EN DASH}"  # in a table, where there is no value


class Html(str):
    """Markup that was made here; any other text is escaped."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as escaped text; `Html` stays as it is."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(UNFIT.sub("\ufffd", str(value)), quote=True))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after another."""
    return Html(str(text(between)).join(text(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: str | int | bool | None) -> Html:
    """An element; of attributes None and False are left out, and "class_" is "class"."""
    given = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        plain = key.rstrip("_").replace("_", "-")
        given.append(f" {plain}" if value is True else f' {plain}="{text(value)}"')
    opened = f"<{name}{''.join(given)}>"
    return Html(opened) if name in VOID else Html(f"{opened}{join(children)}</{name}>")


def code(value: object) -> Html:
    """A name or a hash, which may be broken anywhere."""
    return tag("code", value)


def paragraph(*parts: object, class_: str | None = None) -> Html:
    """A paragraph."""
    return tag("p", *parts, class_=class_)


def bullets(items: Iterable[object]) -> Html:
    """A list."""
    return tag("ul", *(tag("li", item) for item in items))


def table(
    caption: str, head: Sequence[object], rows: Iterable[Sequence[object]], *, numbers: bool = True, named: bool = True
) -> Html:
    """A table that scrolls by itself where it is wider than the page.

    ``named``: the first column names its row. ``numbers``: the others are numbers, set to the right.
    """
    body = [_row(cells, named=named) for cells in rows]
    columns = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in head)))
    whole = tag("table", tag("caption", caption), columns, tag("tbody", *body), class_="numbers" if numbers else None)
    return tag("div", whole, class_="scroll", tabindex=0, role="group", aria_label=caption)


def facts(caption: str, rows: Iterable[tuple[object, object]]) -> Html:
    """A table of names and values."""
    body = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in rows]
    return tag("table", tag("caption", caption), tag("tbody", *body), class_="facts")


def _row(cells: Sequence[object], *, named: bool) -> Html:
    first = [tag("th", cells[0], scope="row")] if named else [tag("td", cells[0])]
    return tag("tr", *first, *(tag("td", cell) for cell in cells[1:]))


def folded(title: object, *content: object, is_open: bool = False) -> Html:
    """Content that opens on a click, without any script."""
    return tag("details", tag("summary", title), *content, open=is_open)


def section(anchor: str, title: object, *content: object) -> Html:
    """A section with its heading, to which "#anchor" leads."""
    heading = f"{anchor}-title"
    return tag("section", tag("h2", title, id=heading), *content, id=anchor, aria_labelledby=heading)


def figure(wide: str, narrow: str, *, alt: str, caption: object, data: object = "") -> Html:
    """Two renderings of one picture (data: addresses), of which a narrow window takes the second, and its numbers."""
    sources = tag("source", media="(max-width: 719px)", srcset=narrow) if narrow != wide else ""
    picture = tag("picture", sources, tag("img", src=wide, alt=alt))
    return tag("figure", picture, tag("figcaption", caption), data)


def document(title: str, *content: object, sections: Sequence[tuple[str, str]]) -> Html:
    """The whole page; ``sections``: (anchor, title) of those to lead to."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="robots", content="noindex"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(STYLE)),
    )
    links = tag("nav", tag("ul", *(tag("li", tag("a", name, href=f"#{anchor}")) for anchor, name in sections)))
    skip = tag("a", "Skip to the content", href="#content", class_="skip")
    first, *rest = content
    main = tag("main", *rest, id="content")
    return Html(f"<!doctype html>\n{tag('html', head, tag('body', skip, first, links, main), lang='en')}\n")
