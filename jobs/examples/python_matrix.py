"""Functions of python_matrix.yaml: which Pythons are here, and what came of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

WHICH = "import platform, venv; print(platform.python_version())"


def find(pythons: list[str]) -> dict[str, dict[str, str]]:
    """The path and full version of each Python that runs; what is not here is left out."""
    return {python: found for python in pythons if (found := first(python))}


def first(python: str) -> dict[str, str] | None:
    """The first that runs, of the path and of pyenv, whose shims are on the path even where they lead nowhere."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for path in [shutil.which(f"python{python}"), *sorted(pyenv.glob(f"versions/{python}.*/bin/python"), reverse=True)]:
        if path and not (ended := subprocess.run([path, "-c", WHICH], capture_output=True, text=True, check=False)).returncode:
            return {"path": str(path), "version": ended.stdout.strip()}
    return None


def report(found: dict[str, dict[str, str]] | None, pythons: list[str], extras: list[str], passed: str, out: str) -> None:
    """Write a table with a line for each Python and a column for each extra."""
    lines = [f"| Python | {' | '.join(extras)} |", "| --- |" + " --- |" * len(extras)]
    for python in pythons:
        here = (found or {}).get(python)
        ended_well = [Path(f"{passed}{python}-{extra}").exists() for extra in extras]
        cells = ["–" if not here else "passed" if each else "FAILED" for each in ended_well]
        lines.append(f"| {here['version'] if here else python + ' is not here'} | {' | '.join(cells)} |")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
