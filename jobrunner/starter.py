"""The first job file: what `init` writes, with the schema that editors complete it by; and scalars as YAML holds them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from jobrunner import spec
from jobrunner.errors import JobFileError, UsageError
from jobrunner.jobfile import parse, reader

SCHEMA: Final = "job.schema.json"
"""Name of the JSON Schema beside a job file, or in a folder schemas/ above it."""

_STARTER: Final = """\
# Check it: jobrunner validate {file}     Run it: jobrunner {file}     See first what it would do: jobrunner plan {file}
description: What this job is for, in one line
workers: 4                        # so many tasks at once; or auto, or 50% of the CPUs
# schedule: "30 2 * * *"          # when it should run; cron or systemd start it
params:
  greeting: hello                 # jobrunner {file} --set greeting=ciao
defaults:
  timeout: 10m                    # of each attempt
tasks:
  prepare:
    run: echo ${{{{ params.greeting }}}}    # values are quoted for the shell
  work:
    needs: [prepare]              # starts when prepare has succeeded
    foreach: [one, two, three]    # one instance for each, side by side
    run: echo working on ${{{{ item }}}}
    retry: 2                      # run again after a failure, at most twice
  report:
    needs: [work]
    run: echo run ${{{{ run.id }}}} is done
finally:
  tell:
    if: failure()                 # only where something failed
    run: echo run ${{{{ run.id }}}} failed
"""


def starter_text(file: str, schema: str) -> str:
    """A small job that is valid and runs anywhere. `file` is how its comments call it."""
    said = file if re.fullmatch(r"[\w./-]+", file) else "FILE"
    return "\n".join([*modelines(schema), _STARTER.format(file=said)])


def modelines(schema: str) -> list[str]:
    """Comments by which editors find the schema: those with yaml-language-server (VS Code, Neovim, Helix …), and JetBrains'."""
    return [f"# yaml-language-server: $schema={schema}", f"# $schema: {schema}"]


# --- the schema --------------------------------------------------------------------------------------------------------------


def schema_beside(folder: Path) -> str:
    """The path of a schema, as a job file in `folder` names it: one that is there, or one that is written beside it now."""
    for above in (folder, *folder.parents):
        for found in (above / "schemas" / SCHEMA, above / SCHEMA):
            if _is_ours(found):
                return Path(os.path.relpath(found, folder)).as_posix()
    write_new(folder / SCHEMA, json.dumps(spec.json_schema(), indent=2) + "\n")
    return SCHEMA


def _is_ours(path: Path) -> bool:
    with suppress(OSError, ValueError):
        schema = json.loads(path.read_bytes())
        return isinstance(schema, dict) and schema.get("title") == spec.json_schema()["title"]
    return False


# --- writing -----------------------------------------------------------------------------------------------------------------


def write_job(path: Path, text: str) -> None:
    """Write a job file that is not there yet, where it is valid. Raises JobFileError and UsageError; then nothing is written."""
    refuse_existing(path)
    parse(text.encode(), str(path))
    write_new(path, text)


def refuse_existing(path: Path) -> None:
    """Raise UsageError where there is such a file, or a link of that name."""
    if os.path.lexists(path):
        raise UsageError(f"{path}: there is such a file already; nothing was written. Name another one, or remove it first.")


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet, whole or not at all. Raises UsageError where it is there or cannot be written."""
    try:
        with open(path, "x", encoding="utf-8", newline="\n") as stream:
            try:
                stream.write(text)
                stream.flush()
            except BaseException:
                with suppress(OSError):
                    path.unlink()
                raise
    except FileExistsError:
        refuse_existing(path)
    except OSError as error:
        raise UsageError(f"{path}: the file cannot be written: {error.strerror or error}") from None


# --- scalars -----------------------------------------------------------------------------------------------------------------


def scalar(text: str, *, indent: int = 4) -> str:
    """A text as a value of a block mapping: plain, quoted or as lines, the first of them that reads back as it is.

    `indent` is that of the lines of a text with several. The text holds no half of a surrogate pair: no file can.
    """
    return next(each for each in _ways(text, indent) if _reads_back(each, text, indent))


def _ways(text: str, indent: int) -> Iterator[str]:
    if "\n" in text:
        yield "|\n" + "\n".join(" " * indent + line if line else "" for line in text.removesuffix("\n").split("\n"))
    else:
        if re.match(r"[A-Za-z/.]", text) and len(text) < 1000:
            yield text
        if text.isprintable():
            yield "'" + text.replace("'", "''") + "'" if '"' in text or "\\" in text else f'"{text}"'
    yield '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    """A character as double quotes hold it."""
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else f"\\U{ord(char):08x}"


def _reads_back(written: str, text: str, indent: int) -> bool:
    with suppress(JobFileError):
        document = reader.read(f"{' ' * (indent - 2)}key: {written}\n".encode(), "")
        return document.value == {"key": text} and not document.problems
    return False
