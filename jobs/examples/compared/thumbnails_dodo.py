"""The job of ../thumbnails.yaml for doit: `doit -f thumbnails_dodo.py -n 2 root=… out=… size=…`."""
# mypy: ignore-errors

import sys
from pathlib import Path

from doit import get_var
from doit.tools import config_changed

sys.path.insert(0, "..")
from thumbnails import shrink

DOIT_CONFIG = {"continue": True}
ROOT = Path(get_var("root", ".."))
OUT = Path(get_var("out", "../../../out/thumbnails"))
SIZE = int(get_var("size", "256"))


def task_shrink():
    """A thumbnail of each image."""
    for image in sorted(ROOT.glob("**/*.[jp]*g")):
        thumbnail = f"{OUT / image.relative_to(ROOT)}.webp"
        yield {
            "name": str(image),
            "actions": [(make, (str(image), thumbnail, SIZE))],
            "file_dep": [image, "../thumbnails.py"],
            "targets": [thumbnail],
            "uptodate": [config_changed({"size": SIZE})],
        }


def make(image, thumbnail, size):
    shrink(image, thumbnail, size)  # an action may return a dict, text, a bool or nothing, and shrink gives a list
