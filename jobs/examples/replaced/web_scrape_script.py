"""Read all pages of a site that a page links to, and write what they say as JSON: the script that web_scrape.yaml replaces."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import logging
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar
from urllib.error import HTTPError
from urllib.parse import urldefrag, urljoin, urlsplit
from urllib.request import Request, urlopen

AGENT = {"User-Agent": "web_scrape (an example of jobrunner)"}
LATER = {408, 425, 429, 500, 502, 503, 504}
Value = TypeVar("Value")
log = logging.getLogger("web_scrape")


class Page(HTMLParser):
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


def fetch(url: str, site: threading.Semaphore) -> tuple[int, Page]:
    page = Page(url)
    try:
        with site, urlopen(Request(url, headers=AGENT), timeout=20) as answer:
            page.feed(answer.read().decode(answer.headers.get_content_charset("utf-8"), "replace"))
            return answer.status, page
    except HTTPError as error:
        if error.code in LATER:
            raise
        return error.code, page


def retried(call: Callable[[], Value], what: str, tries: int, delay: float) -> Value:
    for attempt in range(1, tries + 1):
        try:
            return call()
        except (OSError, HTTPException) as error:
            if attempt == tries:
                raise
            pause = delay * 2 ** (attempt - 1) * random.uniform(0.9, 1.1)
            log.warning("%s: %s; again in %.1f s (%d of %d)", what, error, pause, attempt, tries)
            time.sleep(pause)
    raise AssertionError("not reached")


def links(start: str, site: threading.Semaphore) -> list[str]:
    status, page = fetch(start, site)
    if status != 200:
        raise ValueError(f"{start} answers {status}")
    return sorted(page.links - {start})


def read(url: str, site: threading.Semaphore, cache: Path, options: argparse.Namespace) -> dict[str, object]:
    kept = cache / hashlib.sha256(url.encode()).hexdigest()
    try:
        if time.time() - kept.stat().st_mtime < options.ttl:
            found: dict[str, object] = json.loads(kept.read_text())
            return found
    except (OSError, ValueError):
        pass
    status, page = retried(lambda: fetch(url, site), url, options.tries, options.delay)
    found = {"url": url, "status": status, "title": page.title, "words": page.words, "links": sorted(page.links)}
    write(kept, json.dumps(found))
    log.info("%s: %d", url, status)
    return found


def write(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)


def scrape(options: argparse.Namespace, cache: Path) -> int:
    site = threading.Semaphore(2)
    urls = retried(lambda: links(options.start, site), options.start, options.tries, options.delay)
    found, failed = [], 0
    with ThreadPoolExecutor(8) as pool:
        futures = {url: pool.submit(read, url, site, cache, options) for url in urls}
        for url, future in futures.items():
            try:
                found.append(future.result())
            except Exception:
                failed += 1
                log.exception("%s failed", url)
    if found:
        write(options.out, json.dumps(found, indent=2))
    print(f"{len(found)} of {len(urls)} pages, {sum(page['status'] != 200 for page in found)} dead links")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("start")
    parser.add_argument("out", type=Path)
    parser.add_argument("--ttl", type=float, default=3600)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--delay", type=float, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    cache = Path(f"{options.out}.cache")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.error("already running")
            return 75
        return scrape(options, cache)


if __name__ == "__main__":
    sys.exit(main())
