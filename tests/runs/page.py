"""The page of a report taken apart, and what has to hold of every one."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

from lexloom.runs.report import write_report

VOID = {"meta", "link", "br", "hr", "img", "input", "source", "base", "embed"}
LOADS = {"src", "href", "srcset", "data", "action", "formaction", "poster", "background", "xlink:href", "ping", "manifest"}


class Page(HTMLParser):
    """A page taken apart: every tag closed in order, all attributes and texts noted."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.where: list[tuple[tuple[str, ...], str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        self.where.append((tuple(self.open), data))

    def named(self, tag: str) -> list[str]:
        """The texts inside of each such tag, joined."""
        return ["".join(data for path, data in self.where if tag in path)] if tag in {"h1", "title", "style"} else []

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(data for path, data in self.where if "style" not in path))


def check(page: str) -> Page:
    """What has to hold for every report, whatever the run held."""
    found = Page(page)
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "img", "iframe", "object", "link", "base", "form", "embed", "image", "use", "foreignobject"}
    for tag, attributes in found.tags:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}, (tag, attributes)
        for name in LOADS & set(attributes):
            assert re.fullmatch(r"#[a-z0-9-]+", str(attributes[name])), (tag, attributes)
    (style,) = found.named("style")
    policy = next(a["content"] for _, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not re.search(r"url\(|@import|https?:", style)
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for tag, a in found.tags if tag == "a"}
    assert targets <= set(ids)
    assert sum(tag == "h1" for tag, _ in found.tags) == 1
    assert sum(tag == "table" for tag, _ in found.tags) == sum(tag == "caption" for tag, _ in found.tags)
    assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for tag, a in found.tags if tag == "svg")
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    return found


def report(run: Path) -> Page:
    return check(write_report(run).read_text(encoding="utf-8"))
