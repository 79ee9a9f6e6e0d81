"""Functions of web_scrape.yaml: pages of a site to JSON."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urldefrag, urljoin, urlsplit
from urllib.request import Request, urlopen

AGENT = {"User-Agent": "web_scrape (an example of jobrunner)"}
LATER = {408, 425, 429, 500, 502, 503, 504}
"""What a server answers that may answer better soon. Any other status is an answer."""


class Page(HTMLParser):
    """What is wanted of a page: its title, its links on the same site, and how many words it has."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url, self.tag, self.title, self.words = url, "", "", 0
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tag = tag
        link = urldefrag(urljoin(self.url, dict(attrs).get("href") or "")).url
        if tag == "a" and urlsplit(link)[:2] == urlsplit(self.url)[:2]:
            self.links.add(link)

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  as the parser calls it
        self.tag = ""

    def handle_data(self, data: str) -> None:
        self.words += len(data.split()) if self.tag not in ("script", "style") else 0
        self.title += data.strip() if self.tag == "title" else ""


def fetch(url: str) -> tuple[int, Page]:
    """Read a page: its status and content; OSError or HTTPException where it is worth another try."""
    page = Page(url)
    try:
        with urlopen(Request(url, headers=AGENT), timeout=20) as answer:
            page.feed(answer.read().decode(answer.headers.get_content_charset("utf-8"), "replace"))
            return answer.status, page
    except HTTPError as error:
        if error.code in LATER:
            raise
        return error.code, page


def links(start: str) -> list[str]:
    status, page = fetch(start)
    if status != 200:
        raise ValueError(f"{start} answers {status}")
    return sorted(page.links - {start})


def page(url: str) -> dict[str, object]:
    status, page = fetch(url)
    return {"url": url, "status": status, "title": page.title, "words": page.words, "links": sorted(page.links)}


def save(pages: list[dict[str, object] | None], out: str) -> None:
    """Write the pages that could be read; the old file stays until the new one is whole."""
    found = [page for page in pages if page]
    fresh = Path(f"{out}.new")
    fresh.parent.mkdir(parents=True, exist_ok=True)
    fresh.write_text(json.dumps(found, indent=2))
    fresh.replace(out)
    print(f"{len(found)} of {len(pages)} pages, {sum(page['status'] != 200 for page in found)} dead links")
