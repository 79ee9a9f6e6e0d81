"""Functions of pdf_text.yaml: the text of PDFs, and what came of each."""

from __future__ import annotations

import csv
from pathlib import Path

try:
    from pypdf import PdfReader
except ImportError as error:
    raise ImportError("reading PDFs needs pypdf: pip install pypdf") from error


def find(root: str) -> list[str]:
    """The PDFs of a folder and its subfolders, as paths below it, in order."""
    paths = (path for path in Path(root).rglob("*") if path.suffix.lower() == ".pdf" and path.is_file())
    return sorted(str(path.relative_to(root)) for path in paths)


def extract(pdf: str, text: str) -> dict[str, int]:
    """Write the text, pages divided by form feeds, whole or not at all; whatever pypdf raises is a failure of this PDF alone."""
    path, fresh = Path(text), Path(f"{text}.new")
    path.parent.mkdir(parents=True, exist_ok=True)
    pages = [page.extract_text() for page in PdfReader(pdf).pages]
    fresh.write_text("\f".join(pages), encoding="utf-8", errors="replace")
    fresh.replace(path)
    return {"pages": len(pages), "characters": sum(map(len, pages))}


def report(report: str, names: list[str], counts: list[dict[str, int] | None]) -> list[str]:
    """Write a line for each PDF; the names of those that could not be read."""
    Path(report).parent.mkdir(parents=True, exist_ok=True)
    with open(report, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("pdf", "pages", "characters"))
        rows.writerows((name, *(count.values() if count else ("broken", ""))) for name, count in zip(names, counts, strict=True))
    broken = [name for name, count in zip(names, counts, strict=True) if count is None]
    print(f"{len(names) - len(broken)} read, {len(broken)} broken", *broken, sep="\n  ")
    return broken
