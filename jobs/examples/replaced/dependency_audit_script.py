"""Compare requirements files with what is installed and with advisories: the script that dependency_audit.yaml replaces."""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

try:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name
except ImportError:
    sys.exit("dependency_audit needs packaging: pip install packaging")

log = logging.getLogger("dependency_audit")


class Finding(TypedDict):
    file: str
    name: str
    wanted: str
    version: str | None
    state: str
    advisories: list[str]


def audit(path: str, known: dict[str, list[dict[str, str]]]) -> list[Finding]:
    wanted = [requirement for requirement in read(path) if requirement.marker is None or requirement.marker.evaluate()]
    return [judge(path, requirement, known.get(canonicalize_name(requirement.name), [])) for requirement in wanted]


def advisories(path: Path) -> dict[str, list[dict[str, str]]]:
    known: dict[str, list[dict[str, str]]] = {}
    for entry in json.loads(path.read_text()):
        known.setdefault(canonicalize_name(entry["package"]), []).append(entry)
    return known


def read(path: str) -> list[Requirement]:
    lines = re.sub(r"\\\r?\n", " ", Path(path).read_text(encoding="utf-8-sig")).splitlines()
    texts = [re.split(r"(?:^|\s)#|\s--", line)[0].strip() for line in lines]
    return [Requirement(text) for text in texts if text and not text.startswith("-")]


def judge(path: str, requirement: Requirement, known: list[dict[str, str]]) -> Finding:
    try:
        found: str | None = version(requirement.name)
    except PackageNotFoundError:
        found = None
    pin = next((spec.version for spec in requirement.specifier if spec.operator == "=="), None)
    judged = found or pin
    hits = [f"{entry['id']}: {entry['summary']}" for entry in known if judged and judged in SpecifierSet(entry["affected"])]
    fits = found is not None and requirement.specifier.contains(found, prereleases=True)
    state = "vulnerable" if hits else "missing" if found is None else "ok" if fits else "outdated"
    return {"file": path, "name": requirement.name, "wanted": str(requirement.specifier), "version": judged,
            "state": state, "advisories": hits}  # fmt: skip


def report(audited: list[list[Finding] | None], outcome: str, out: Path) -> None:
    rows = [row for found in audited for row in found or []]
    counts = Counter(row["state"] for row in rows)
    lines = [f"# Dependencies: {len(rows)} in {len(audited)} files", "", f"The audit {outcome}. {dict(counts)}", "",
             "| file | package | wanted | found | state |", "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in rows:
        if row["state"] != "ok":
            state = "; ".join([row["state"], *row["advisories"]])
            lines.append(f"| {row['file']} | {row['name']} | {row['wanted']} | {row['version'] or '–'} | {state} |")
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(dict(counts))


def audit_all(options: argparse.Namespace) -> int:
    files = sorted(str(path) for path in options.root.glob(options.files))
    audited: list[list[Finding] | None] = [None] * len(files)
    outcome = "failed"
    try:
        known = advisories(options.advisories)
        pool = ThreadPoolExecutor(8)
        futures = [pool.submit(audit, path, known) for path in files]
        for place, future in enumerate(futures):
            try:
                audited[place] = future.result(timeout=60)
            except Exception:
                log.exception("%s failed", files[place])
        pool.shutdown(wait=False, cancel_futures=True)
        outcome = "failed" if None in audited else "succeeded"
    finally:
        report(audited, outcome, options.out)
    bad = sorted({f"{row['name']} {row['version']}" for rows in audited for row in rows or [] if row["state"] == "vulnerable"})
    if bad:
        log.error("vulnerable: %s", ", ".join(bad))
    return 1 if bad or outcome == "failed" else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("advisories", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--files", default="**/*requirements*.txt")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.with_name(f"{options.out.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.error("already running")
            return 75
        return audit_all(options)


if __name__ == "__main__":
    sys.exit(main())
