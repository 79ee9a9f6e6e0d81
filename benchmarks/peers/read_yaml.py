"""Loads a job file with the C YAML loader, and does nothing with it. Prints how many tasks it has."""

from __future__ import annotations

import sys

import yaml

if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as text:
        print(len(yaml.load(text, yaml.CSafeLoader)["tasks"]))
