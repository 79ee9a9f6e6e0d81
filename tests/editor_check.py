"""A check that needs npm, so no test: what the real yaml-language-server says about job files in an editor.

        python -m tests.editor_check            installs the server into the user's cache, once; then talks to it over stdio

Exits 1 if an expectation fails. Asked are the examples of jobs/, a file with mistakes, and completion after `mode: `.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from jobrunner.spec import Mode

ROOT = Path(__file__).resolve().parent.parent
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


def checks(server: Server) -> Iterator[tuple[str, bool, object]]:
    """Every expectation, whether it holds, and what was found."""
    for path in sorted((ROOT / "jobs").glob("*.yaml")):
        found = server.open(path.as_uri(), path.read_text(encoding="utf-8"))
        yield f"jobs/{path.name} has no problem", not found, [problem["message"] for problem in found]
    uri = (ROOT / "jobs" / "mistakes.yaml").as_uri()
    problems = {problem["range"]["start"]["line"]: problem["message"] for problem in server.open(uri, MISTAKES)}
    yield f"mistakes are found on lines {sorted(EXPECTED)}", problems.keys() == EXPECTED.keys(), problems
    for indent, place in (("", "mode: "), ("tasks: {a: {run: ls}}\ndefaults:\n  ", "mode: ")):
        text = MODELINE + indent + place
        uri = (ROOT / "jobs" / f"completed{len(indent)}.yaml").as_uri()
        server.open(uri, text)
        line = text.count("\n")
        found_modes = server.completions(uri, line, len(text.splitlines()[-1]))
        yield f"`{place}` completes to the modes", set(found_modes) >= set(get_args(Mode)), found_modes


def main() -> int:
    server = Server(installed())
    failed = 0
    try:
        for expectation, holds, found in checks(server):
            print("ok  " if holds else "FAIL", expectation, *(() if holds else (found,)))  # noqa: T201  # it is what this is for
            failed += not holds
    finally:
        server.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
