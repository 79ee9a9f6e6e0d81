"""The job of ../python_matrix.yaml for doit: `doit -f python_matrix_dodo.py -n 2 root=… pythons='3.11 3.12' out=…`."""
# mypy: ignore-errors

import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

from doit import get_var

sys.path.insert(0, "..")
import python_matrix

ROOT = Path(get_var("root", "../python_matrix_sample"))
PYTHONS = get_var("pythons", "3.11 3.12 3.13 3.14").split()
EXTRAS = get_var("extras", "none translit").split()
OUT = get_var("out", "../../../out/python_matrix.md")
WORK = tempfile.TemporaryDirectory()
FOUND = python_matrix.find(PYTHONS)  # while the file is loaded: also for `doit list`
DOIT_CONFIG = {"continue": True}


def task_venvs():
    """Its teardown comes when all is over, whatever the outcome; it is not told the outcome."""
    return {"actions": [], "teardown": [(report,)]}


def task_test():
    """The tests with each Python that is here and each extra."""
    for python, extra in product(PYTHONS, EXTRAS):
        if python in FOUND:
            yield {
                "name": f"{python},{extra}",
                "actions": [(test, (FOUND[python]["path"], extra, Path(WORK.name, f"{python}-{extra}")))],
                "setup": ["venvs"],
            }


def test(python, extra, venv):
    env = os.environ | {"PYTHONPATH": f".:extras/{extra}", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([python, "-m", "venv", "--clear", "--without-pip", venv], check=True)
    tests = [venv / "bin" / "python", "-W", "error", "-m", "unittest", "discover"]
    subprocess.run(tests, cwd=ROOT, env=env, timeout=600, check=True)
    (venv / "passed").touch()


def report():
    python_matrix.report(FOUND, PYTHONS, EXTRAS, WORK.name, OUT)
