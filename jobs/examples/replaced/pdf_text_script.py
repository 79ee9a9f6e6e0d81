"""The script that pdf_text.yaml and pdf_text.py stand in for. Usage: pdf_text_script.py ROOT OUT"""

from __future__ import annotations

import argparse
import csv
import fcntl
import hashlib
import json
import logging
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pypdf import PdfReader

LIMIT = 300
"""Seconds that one PDF may take."""


def extract(pdf: Path, text: Path) -> tuple[int, int]:
    signal.signal(signal.SIGALRM, overdue)
    signal.alarm(LIMIT)
    try:
        fresh = Path(f"{text}.new")
        text.parent.mkdir(parents=True, exist_ok=True)
        pages = [page.extract_text() for page in PdfReader(pdf).pages]
        fresh.write_text("\f".join(pages), encoding="utf-8", errors="replace")
        fresh.replace(text)
        return len(pages), sum(map(len, pages))
    finally:
        signal.alarm(0)


def overdue(*_: object) -> None:
    raise TimeoutError(f"not done after {LIMIT} s")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_fresh(pdf: Path, text: Path, known: dict[str, list[object]]) -> bool:
    return text.exists() and known.get(str(pdf), [])[:2] == [digest(pdf), digest(text)]


def save(known: dict[str, list[object]], file: Path) -> None:
    fresh = Path(f"{file}.new")
    fresh.write_text(json.dumps(known))
    fresh.replace(file)


def report(file: Path, rows: dict[str, list[object]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as text:
        lines = csv.writer(text)
        lines.writerow(("pdf", "pages", "characters"))
        lines.writerows((name, *counts) for name, counts in rows.items())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    return parser.parse_args()


def run(args: argparse.Namespace, memory: Path) -> int:
    known: dict[str, list[object]] = json.loads(memory.read_text()) if memory.exists() else {}
    pdfs = sorted(path for path in args.root.rglob("*") if path.suffix.lower() == ".pdf" and path.is_file())
    texts = {pdf: args.out / f"{pdf.relative_to(args.root)}.txt" for pdf in pdfs}
    todo = [pdf for pdf in pdfs if not is_fresh(pdf, texts[pdf], known)]
    rows: dict[str, list[object]] = {str(pdf.relative_to(args.root)): known.get(str(pdf), ["", ""])[2:] for pdf in pdfs}
    with ProcessPoolExecutor(args.workers) as pool:
        futures = {pool.submit(extract, pdf, texts[pdf]): pdf for pdf in todo}
        for future in as_completed(futures):
            pdf = futures[future]
            try:
                counts = future.result()
            except BrokenProcessPool:
                logging.error("%s: a worker died, and the pool with it", pdf)
                return 1
            except Exception:
                logging.exception("%s: failed", pdf)
                rows[str(pdf.relative_to(args.root))] = ["broken", ""]
            else:
                rows[str(pdf.relative_to(args.root))] = [*counts]
                known[str(pdf)] = [digest(pdf), digest(texts[pdf]), *counts]
                save(known, memory)
                logging.info("%s: %d pages", pdf, counts[0])
    report(args.out / "report.csv", rows)
    return 0


def main() -> int:
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with (args.out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.error("already running")
            return 75
        return run(args, args.out / ".known.json")


if __name__ == "__main__":
    sys.exit(main())
