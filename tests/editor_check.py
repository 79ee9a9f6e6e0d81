"""A check that needs npm, so no test: what the real yaml-language-server says about job files in an editor.

        python -m tests.editor_check            installs the server into the user's cache, once; then talks to it over stdio
        python -m tests.editor_check -v         names every expectation, not only those that fail

Exits 1 if an expectation fails. Asked are, at every place of the job file that has keys: what the editor says over each key,
which keys and values it offers, and which values it marks: each of a wrong type on its line, none that fits; no example is.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel

from jobrunner import spec

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "schemas" / "job.schema.json"
EXAMPLES = [*sorted((ROOT / "jobs").glob("*.yaml")), *sorted((ROOT / "jobs" / "examples").glob("*.yaml"))]
PAGE = ROOT / "docs" / "job-file.md"
VERSION = "1.25.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / f"yaml-language-server-{VERSION}"
MODELINE = "# yaml-language-server: $schema=../schemas/job.schema.json\n"
MISTAKES = MODELINE + "mode: threads\ntasks:\n  list:\n    run: ls\n    nedes: [a]\n  none: {}\n"
EXPECTED = {1: "mode", 5: "nedes", 6: "none"}
"""Line, counted from 0 as editors do → what stands there."""


class Server:
    """The language server in a process of its own; requests are answered in order, notifications are kept."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._number = 0
        self._diagnostics: dict[str, list[dict[str, Any]]] = {}
        self.request("initialize", processId=os.getpid(), rootUri=ROOT.as_uri(), capabilities={})
        self.notify("initialized")
        self.notify("workspace/didChangeConfiguration", settings={"yaml": {"validate": True, "completion": True}})

    def request(self, method: str, **params: Any) -> Any:
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        while True:
            message = self._receive()
            if message.get("id") == self._number and "method" not in message:
                return message["result"]

    def notify(self, method: str, **params: Any) -> None:
        self._send({"method": method, "params": params})

    def open(self, uri: str, text: str) -> list[dict[str, Any]]:
        """What the server has to say against a file."""
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._diagnostics.pop(uri, None)
        self.notify("textDocument/didOpen", textDocument=document)
        while uri not in self._diagnostics:
            self._receive()
        return self._diagnostics[uri]

    def completions(self, uri: str, line: int, character: int) -> list[str]:
        position = {"line": line, "character": character}
        answer = self.request("textDocument/completion", textDocument={"uri": uri}, position=position)
        return [item["label"] for item in (answer["items"] if isinstance(answer, dict) else answer)]

    def hover(self, uri: str, line: int, character: int) -> str:
        """What stands over a place in plain words: without the marks that keep Markdown from reading it."""
        answer = self.request("textDocument/hover", textDocument={"uri": uri}, position={"line": line, "character": character})
        return re.sub(r"\\(.)", r"\1", answer["contents"]["value"]) if answer else ""

    def offered(self, uri: str, level: Level, row: str) -> set[str]:
        """What may follow on a row, as the last one of what stands at a level."""
        text = f"{MODELINE}{level.head}{row}"
        self.open(uri, f"{text}\n{level.tail}")
        return {label.partition(":")[0].strip() for label in self.completions(uri, text.count("\n"), len(row))}

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        """The next message; questions of the server to its editor are answered on the way."""
        assert self._process.stdout is not None
        length = 0
        while line := self._process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        if not length:
            raise SystemExit("the language server ended")
        message: dict[str, Any] = json.loads(self._process.stdout.read(length))
        if message.get("method") == "textDocument/publishDiagnostics":
            self._diagnostics[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif "method" in message and "id" in message:
            wanted = message["params"].get("items", []) if isinstance(message.get("params"), dict) else []
            settings: list[Any] | None = [{"validate": True} if item.get("section") == "yaml" else None for item in wanted]
            self._send({"id": message["id"], "result": settings or None})
        return message


def installed() -> list[str]:
    """The command of the server; npm brings it into the cache where it is not there yet."""
    binary = CACHE / "node_modules" / ".bin" / "yaml-language-server"
    if not binary.exists():
        command = [
            "npm",
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(CACHE),
            f"yaml-language-server@{VERSION}",
        ]
        subprocess.run(command, check=True)
    return [str(binary), "--stdio"]


# --- places that have keys ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A place of the job file that has keys: `head` stands above them. Each key has a value that fits, and one that does not."""

    model: type[BaseModel]
    head: str
    keys: Mapping[str, tuple[str, str]]
    tail: str = ""

    @property
    def indent(self) -> str:
        """What stands before each key."""
        last = (self.head.splitlines() or [""])[-1]
        return " " * (len(last) - len(last.lstrip()) + 2) if last else ""

    def text(self, keys: Mapping[str, str]) -> str:
        rows = "".join(f"{self.indent}{key}: {value}\n" for key, value in keys.items())
        return f"{MODELINE}{self.head}{rows}{self.tail}"

    def line(self, key: str) -> int:
        """Where a key of `right` stands, counted from 0 as editors do."""
        return 1 + self.head.count("\n") + list(self.keys).index(key)

    @property
    def right(self) -> dict[str, str]:
        return {key: value for key, (value, _) in self.keys.items()}

    def wrong(self, key: str) -> dict[str, str]:
        return {**self.right, key: self.keys[key][1]}


_IN_A_TASK: Final = {
    "mode": ("thread_pool", "threads"),
    "workers": ("50%", "many"),
    "pool": ("cpu", "[cpu]"),
    "env": ("{LANG: C, DEPTH: 3}", "[LANG]"),
    "cwd": ("data", "[data]"),
    "timeout": ("1h30m", "soon"),
    "stop": ("{grace: 5s}", "5s"),
    "retry": ("{max: 2}", "twice"),
    "continue_on_error": ("true", "yes"),
    "max_parallel": ("4", "many"),
    "limits": ("{api: 2}", "api"),
    "resources": ("{memory: 2GB}", "2GB"),
    "at_most_once": ("true", "yes"),
}
_OF_A_TASK: Final = {
    "description": ("what it does", "[what it does]"),
    "needs": ("[]", "list"),
    "secrets": ("[TOKEN]", "TOKEN"),
    "if": ("failure()", "[failure()]"),
    "foreach": ("{range: 3}", "3"),
    "matrix": ("{cpu: [x86, arm]}", "[x86, arm]"),
    "cache": ("{inputs: [src]}", "[src]"),
}
_TASK: Final = "tasks:\n  one:\n"
_AFTER: Final = "tasks: {one: {run: ls}}\n"
LEVELS: Final[dict[str, Level]] = {
    "job": Level(
        model=spec.Job,
        head="",
        keys={
            "name": ("nightly", "[nightly]"),
            "description": ("what it does", "[what it does]"),
            "include": ("[common.yaml]", "common.yaml"),
            "schedule": ("30 2 * * *", "5"),
            "mode": ("thread_pool", "threads"),
            "workers": ("auto", "0"),
            "pools": ("{cpu: {mode: process_pool}}", "[cpu]"),
            "params": ("{folder: /srv, names: [a], size: {type: int}}", "[folder]"),
            "env": ("{LANG: C}", "[LANG]"),
            "env_file": ("test.env", "[test.env]"),
            "secrets": ("{TOKEN: {env: TOKEN}}", "[TOKEN]"),
            "limits": ("{api: 4, db: {slots: 1}}", "{api: four}"),
            "concurrency": ("{on_conflict: skip}", "skip"),
            "defaults": ("{retry: 2}", "[retry]"),
            "tasks": ("{one: {run: ls}}", "[one]"),
            "finally": ("{tidy: {run: ls}}", "[tidy]"),
            "timeout": ("1h", "soon"),
            "fail_fast": ("true", "yes"),
        },
    ),
    "defaults": Level(model=spec.Defaults, head="defaults:\n", tail=_AFTER, keys=_IN_A_TASK),
    "task: run": Level(
        model=spec.Task,
        head=_TASK,
        keys={"run": ("[make, make install]", "{command: make}"), **_IN_A_TASK, **_OF_A_TASK},
    ),
    "task: target": Level(
        model=spec.Task,
        head=_TASK,
        keys={"target": ("etl:load", "etl"), "args": ("[1]", "1"), "kwargs": ("{size: 1}", "[size]"), "foreach": ("[1]", "1")},
    ),
    "task: argv": Level(
        model=spec.Task, head=_TASK, keys={"argv": ("[ls, -l, 3]", "ls -l"), "foreach": ("${{ params.names }}", "true")}
    ),
    "finally": Level(model=spec.Task, head="finally:\n  one:\n", tail=_AFTER, keys={"run": ("ls", "3"), **_OF_A_TASK}),
    "retry": Level(
        model=spec.Retry,
        head=f"{_TASK}    run: ls\n    retry:\n",
        keys={
            "max": ("2", "two"),
            "delay": ("5s", "soon"),
            "backoff": ("1.5", "double"),
            "max_delay": ("5m", "[5m]"),
            "jitter": ("0.5", "2"),
            "exit_codes": ("[75]", "75"),
            "exceptions": ("[ConnectionError]", "ConnectionError"),
        },
    ),
    "stop": Level(
        model=spec.Stop,
        head=f"{_TASK}    run: ls\n    stop:\n",
        keys={"signal": ("INT", "SIGINT"), "grace": ("5s", "soon"), "leftover": ("allow", "leave")},
    ),
    "resources": Level(
        model=spec.Resources,
        head=f"{_TASK}    run: ls\n    resources:\n",
        keys={"memory": ("512MiB", "much"), "nice": ("10", "20"), "cpus": ("2", "all")},
    ),
    "cache": Level(
        model=spec.Cache,
        head=f"{_TASK}    run: ls\n    cache:\n",
        keys={"inputs": ("[src]", "src"), "outputs": ("[app]", "app"), "env": ("[CC]", "{CC: cc}"), "ttl": ("7d", "0")},
    ),
    "range": Level(model=spec.Range, head=f"{_TASK}    run: ls\n    foreach:\n", keys={"range": ("[1, 9, 2]", "1..9")}),
    "glob": Level(
        model=spec.Glob,
        head=f"{_TASK}    run: ls\n    foreach:\n",
        keys={"glob": ("[data/*.csv, data/*.tsv]", "3"), "at_least": ("1", "one")},
    ),
    "lines": Level(model=spec.Lines, head=f"{_TASK}    run: ls\n    foreach:\n", keys={"lines": ("names.txt", "[names.txt]")}),
    "pool": Level(
        model=spec.Pool,
        head="pools:\n  cpu:\n",
        tail=_AFTER,
        keys={
            "mode": ("process_pool", "processes"),
            "workers": ("4", "many"),
            "executor": ("concurrent.futures:ThreadPoolExecutor", "ThreadPoolExecutor"),
            "max_tasks_per_worker": ("100", "0"),
            "start_method": ("spawn", "forkserver"),
            "preload": ("true", "yes"),
        },
    ),
    "param": Level(
        model=spec.Param,
        head="params:\n  size:\n",
        tail=_AFTER,
        keys={
            "type": ("int", "integer"),
            "default": ("3", ""),
            "required": ("true", "yes"),
            "choices": ("[1, 2, 3]", "3"),
            "description": ("how large", "[how large]"),
        },
    ),
    "limit": Level(
        model=spec.Limit, head="limits:\n  api:\n", tail=_AFTER, keys={"slots": ("4", "four"), "scope": ("host", "machine")}
    ),
    "schedule": Level(
        model=spec.Schedule,
        head="schedule:\n",
        tail=_AFTER,
        keys={
            "cron": ("30 2 * * *", "5"),
            "timezone": ("Europe/Berlin", "1"),
            "jitter": ("5m", "soon"),
            "catchup": ("true", "yes"),
        },
    ),
    "concurrency": Level(
        model=spec.Concurrency,
        head="concurrency:\n",
        tail=_AFTER,
        keys={"group": ("database", "data base"), "on_conflict": ("wait", "queue"), "wait": ("5m", "long")},
    ),
    **{
        f"secret: {key}": Level(model=spec.Secret, head="secrets:\n  TOKEN:\n", tail=_AFTER, keys={key: values})
        for key, values in {
            "env": ("API_TOKEN", "API-TOKEN"),
            "file": ("token.txt", "[token.txt]"),
            "command": ("pass token", "[pass, token]"),
            "credential": ("token", "a/b"),
        }.items()
    },
}
"""Every place that has keys; those of a task in several parts, as some of its keys exclude each other."""

ANYTHING: Final = {("param", "default")}
"""Level and key where no value is wrong."""

OFFERED: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    **{(level, "mode"): get_args(spec.Mode) for level in ("job", "defaults", "task: run", "pool")},
    ("job", "fail_fast"): ("true", "false"),
    ("job", "workers"): ("auto",),
    ("task: run", "at_most_once"): ("true", "false"),
    ("task: run", "continue_on_error"): ("true", "false"),
    ("stop", "signal"): get_args(spec.Signal),
    ("stop", "leftover"): ("kill", "allow"),
    ("limit", "scope"): ("run", "host"),
    ("concurrency", "on_conflict"): ("fail", "skip", "wait", "replace"),
    ("pool", "start_method"): get_args(spec.StartMethod),
    ("param", "type"): get_args(spec.ParamType),
    ("schedule", "catchup"): ("true", "false"),
}
"""Level and key → the values that an editor offers for it."""


def described(level: Level, key: str) -> str:
    """What the schema says of a key."""
    field = next(field for name, field in level.model.model_fields.items() if key in (name, field.alias))
    return field.description or ""


def examples_of_the_page() -> dict[str, str]:
    """The jobs that docs/job-file.md shows, but for those that are wrong, by the line they begin on."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.finditer(r"^```yaml(?P<info>[^\n]*)\n(?P<text>.*?)^```$", text, re.MULTILINE | re.DOTALL)
    shown = {text.count("\n", 0, each.start()) + 1: each for each in found if "exit=2" not in each["info"]}
    return {f"docs/job-file.md:{line}": each["text"] for line, each in shown.items() if is_whole(each["text"])}


def is_whole(text: str) -> bool:
    """An included file has no tasks of its own, or none but them."""
    return re.search("^tasks:", text, re.MULTILINE) is not None


# --- the checks --------------------------------------------------------------------------------------------------------------

Check = tuple[str, bool, object]
"""An expectation, whether it holds, and what was found."""


def checks(server: Server) -> Iterator[Check]:
    yield from of_examples(server)
    yield from of_mistakes(server)
    for name, level in LEVELS.items():
        yield from of_level(server, name, level)
    for (name, key), values in OFFERED.items():
        yield from of_values(server, name, key, values)


def of_examples(server: Server) -> Iterator[Check]:
    for path in EXAMPLES:
        found = server.open(path.as_uri(), path.read_text(encoding="utf-8"))
        yield f"{path.relative_to(ROOT)} has no problem", not found, [problem["message"] for problem in found]
    for place, text in examples_of_the_page().items():
        found = server.open(draft(place), text if text.startswith("# yaml-language-server") else MODELINE + text)
        yield f"{place} has no problem", not found, [problem["message"] for problem in found]


def of_mistakes(server: Server) -> Iterator[Check]:
    problems = {problem["range"]["start"]["line"]: problem["message"] for problem in server.open(draft("mistakes"), MISTAKES)}
    yield f"mistakes are found on lines {sorted(EXPECTED)}", problems.keys() == EXPECTED.keys(), problems


def of_level(server: Server, name: str, level: Level) -> Iterator[Check]:
    uri = draft(name)
    found = server.open(uri, level.text(level.right))
    yield f"{name}: values that fit have no problem", not found, [problem["message"] for problem in found]
    for key in level.keys:
        said = server.hover(uri, level.line(key), len(level.indent) + 1)
        yield f"{name}: {key} is explained", described(level, key) in said, said
    for key in level.keys:
        if (name, key) not in ANYTHING:
            problems = server.open(draft(f"{name} {key}"), level.text(level.wrong(key)))
            lines = {problem["range"]["start"]["line"]: problem["message"] for problem in problems}
            yield f"{name}: a wrong {key} is marked on its line", lines.keys() == {level.line(key)}, (level.line(key), lines)
    offered = server.offered(draft(f"{name} keys"), level, level.indent)
    yield f"{name}: its keys are offered", offered >= set(level.keys), set(level.keys) - offered


def of_values(server: Server, name: str, key: str, values: tuple[str, ...]) -> Iterator[Check]:
    level = LEVELS[name]
    offered = server.offered(draft(f"{name} {key} values"), level, f"{level.indent}{key}: ")
    yield f"{name}: the values of {key} are offered", offered >= set(values), offered


def draft(name: str) -> str:
    """The address of a file that nobody has saved, beside the jobs: there the modeline finds the schema."""
    return (ROOT / "jobs" / f"{re.sub('[^a-z]+', '-', name)}.draft.yaml").as_uri()


def main() -> int:
    server = Server(installed())
    failed = total = 0
    try:
        for expectation, holds, found in checks(server):
            if not holds or "-v" in sys.argv or expectation.startswith("jobs/"):
                print("ok  " if holds else "FAIL", expectation, *(() if holds else (found,)))  # noqa: T201  # it is what this is for
            failed += not holds
            total += 1
    finally:
        server.close()
    print(f"{total - failed} of {total} expectations hold")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
