"""Loads a job file with a YAML loader, and does nothing with it. Prints how many tasks it has.

python read_yaml.py FILE LOADER
"""

from __future__ import annotations

import gc
import sys
from typing import IO, Any


def by_pyyaml(name: str, text: IO[str]) -> Any:
    import yaml

    return yaml.load(text, getattr(yaml, name))


def by_ruamel(typ: str, text: IO[str]) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ=typ, pure=True).load(text)


def main(path: str, way: str) -> int:
    """How many tasks the file has."""
    if way.endswith("collector off"):
        gc.disable()
    with open(path, encoding="utf-8") as text:
        match way:
            case "ruamel safe, pure":
                found = by_ruamel("safe", text)
            case "ruamel round trip":
                found = by_ruamel("rt", text)
            case _:
                found = by_pyyaml(way.partition(",")[0], text)
    return len(found["tasks"])


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2]))
