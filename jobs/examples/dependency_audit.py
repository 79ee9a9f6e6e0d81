"""Functions of dependency_audit.yaml: requirements files against what is installed and what is known to be vulnerable."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

try:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_name
except ImportError as error:
    raise ImportError("dependency_audit needs packaging: pip install packaging") from error


class Finding(TypedDict):
    """One line of a requirements file, judged."""

    file: str
    name: str
    wanted: str
    version: str | None
    state: str
    advisories: list[str]


def audit(path: str, advisories: str) -> list[Finding]:
    """Judge each requirement of a file that holds for this Python; ValueError where a line cannot be read."""
    known: dict[str, list[dict[str, str]]] = {}
    for entry in json.loads(Path(advisories).read_text()):
        known.setdefault(canonicalize_name(entry["package"]), []).append(entry)
    wanted = [requirement for requirement in read(path) if requirement.marker is None or requirement.marker.evaluate()]
    return [judge(path, requirement, known.get(canonicalize_name(requirement.name), [])) for requirement in wanted]


def read(path: str) -> list[Requirement]:
    """The requirements of a file; options (-r, --hash …) are left out, as the files that they name are found by themselves."""
    lines = re.sub(r"\\\r?\n", " ", Path(path).read_text(encoding="utf-8-sig")).splitlines()
    texts = [re.split(r"(?:^|\s)#|\s--", line)[0].strip() for line in lines]
    return [Requirement(text) for text in texts if text and not text.startswith("-")]


def judge(path: str, requirement: Requirement, known: list[dict[str, str]]) -> Finding:
    """Say how it stands with one requirement: vulnerable, missing, outdated or ok. What is not installed is judged by its pin."""
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


def verdict(audited: list[list[Finding]]) -> None:
    """Fail where something is vulnerable, and name it."""
    if bad := sorted({f"{row['name']} {row['version']}" for rows in audited for row in rows if row["state"] == "vulnerable"}):
        sys.exit(f"vulnerable: {', '.join(bad)}")


def report(audited: list[list[Finding] | None], outcome: str, out: str) -> dict[str, int]:
    """Write a table of all that is not ok; the number of requirements in each state."""
    rows = [row for found in audited for row in found or []]
    counts = Counter(row["state"] for row in rows)
    lines = [f"# Dependencies: {len(rows)} in {len(audited)} files", "", f"The audit {outcome}. {dict(counts)}", "",
             "| file | package | wanted | found | state |", "| --- | --- | --- | --- | --- |"]  # fmt: skip
    for row in rows:
        if row["state"] != "ok":
            state = "; ".join([row["state"], *row["advisories"]])
            lines.append(f"| {row['file']} | {row['name']} | {row['wanted']} | {row['version'] or '–'} | {state} |")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(dict(counts))
    return dict(counts)
