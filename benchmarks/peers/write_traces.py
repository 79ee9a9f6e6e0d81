"""Writes workflow traces by the recipes of wfcommons: run in an environment that has it. Seeded, so that all make the same."""

from __future__ import annotations

import contextlib
import random
import sys
from pathlib import Path

import numpy  # type: ignore[import-not-found]  # as the next: only in the environment that this runs in
from wfcommons.wfchef import recipes  # type: ignore[import-not-found]

RECIPES = ("Montage", "Epigenomics", "Seismology", "Blast", "Bwa", "Cycles", "Genome", "Soykb", "Srasearch", "Rnaseq")


def main(folder: Path, *sizes: str) -> None:
    """One file for each recipe and size; a recipe that cannot make so few tasks is left out."""
    for name in RECIPES:
        for size in sizes:
            random.seed(int(size))
            numpy.random.seed(int(size))
            with contextlib.suppress(ValueError):
                made = getattr(recipes, f"{name}Recipe").from_num_tasks(int(size)).build_workflow(f"{name.lower()}-{size}")
                made.write_json(folder / name.lower() / f"{size}.json")


if __name__ == "__main__":
    for each in RECIPES:
        Path(sys.argv[1], each.lower()).mkdir(parents=True, exist_ok=True)
    main(Path(sys.argv[1]), *sys.argv[2:])
