"""The job of ../backup.yaml for doit: `doit -f backup_dodo.py root=/srv to=/mnt/backup notify='mail -s backup root'`."""
# mypy: ignore-errors

import shlex
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from doit import create_after, get_var
from doit.action import CmdAction
from doit.reporter import ConsoleReporter

ROOT = Path(get_var("root", "..")).resolve()
TO = Path(get_var("to", "../../../out/backup")).resolve()
KEEP = {"daily": int(get_var("daily", "7")), "weekly": int(get_var("weekly", "4"))}
NOTIFY = shlex.split(get_var("notify", "echo"))
LOCK = get_var("lock", "/tmp/backup.lock")
FILE = f"{datetime.now(UTC):%F}.tar.gz"


class Notify(ConsoleReporter):
    """What doit has for "when all is over, and how it went": a reporter; teardown is not told."""

    def complete_run(self):
        super().complete_run()
        if self.failures:
            subprocess.run([*NOTIFY, f"backup of {ROOT} failed"], check=True)


DOIT_CONFIG = {"continue": True, "reporter": Notify}


def task_archive():
    """An archive of today, read back."""
    return {"actions": [(archive,)]}


def archive():
    TO.mkdir(parents=True, exist_ok=True)
    (TO / ".nobackup").touch()
    subprocess.run("rm -rf new && mkdir -p new daily weekly", shell=True, cwd=TO, check=True)
    tar = ["tar", "--create", "--gzip", f"--file={TO / 'new' / FILE}", "--exclude-tag-all=.nobackup", f"--directory={ROOT}", "."]
    for left in (2, 1, 0):
        code = subprocess.run(["flock", LOCK, *tar], timeout=7200, check=False).returncode
        if code != 1 or not left:
            break
        time.sleep(30)
    if code:
        raise RuntimeError(f"tar exited with {code}")
    command = f"gzip --test {FILE} && sha256sum {FILE} > {FILE}.sha256"
    subprocess.run(command, shell=True, cwd=TO / "new", timeout=7200, check=True)


def task_keep():
    """Among the daily ones, and once a week among the weekly ones."""
    return {"actions": [(keep,)], "task_dep": ["archive"]}


def keep():
    for new in (TO / "new").iterdir():
        new.replace(TO / "daily" / new.name)
    week = time.time() - timedelta(hours=156).total_seconds()
    if not any(old.stat().st_mtime > week for old in (TO / "weekly").glob("*.gz")):
        subprocess.run(["ln", "-f", f"daily/{FILE}.sha256", f"daily/{FILE}", "weekly"], cwd=TO, check=True)


@create_after(executed="keep")
def task_check():
    """Every copy is read again."""
    for copy in sorted(TO.glob("*ly/*.sha256")):
        command = ["timeout", "2h", "flock", LOCK, "sha256sum", "--check", "--quiet", copy.name]
        yield {"name": str(copy.relative_to(TO)), "actions": [CmdAction(command, shell=False, cwd=copy.parent)]}


@create_after(executed="check")
def task_rotate():
    """Old copies go when all were read."""
    for folder, count in KEEP.items():
        yield {"name": folder, "actions": [(rotate, (folder, count))], "task_dep": ["check"]}


def rotate(folder, count):
    for old in sorted((TO / folder).glob("*.gz"), reverse=True)[count:]:
        old.unlink()
        Path(f"{old}.sha256").unlink()
