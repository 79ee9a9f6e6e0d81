"""Text that lacks its quotes: YAML stops in the middle of it, or takes it for something else; how the entry is written with them.

text, character where the reader stopped ─of_stop─→ `Quote the whole text: run: 'echo a: b'.`
"""

from __future__ import annotations

import re
from typing import Final

from jobrunner import spec
from jobrunner.jobfile.document import LONGEST_LINE

_FLOW_KEY: Final = r"[{,]\s*([A-Za-z_][\w-]*):\s+(?=\S)"
_BLOCK_KEY: Final = r"\s*(?:-\s+)?([A-Za-z_][\w-]*):\s+(?=\S)"
_NEXT_KEY: Final = r",\s*([A-Za-z_][\w-]*):\s"
_KEYS: Final = frozenset((*spec.keys(spec.Task), *spec.keys(spec.Job)))
_NEVER_TEXT: Final = _KEYS - {"run", "if", "description", "schedule", "name", "cwd", "env_file", "default", "target"}
"""Keys whose values are seldom one text: where they go wrong it is something else."""


def of_stop(text: str, index: int) -> str:
    """The entry around a character at which YAML stopped, in quotes; nothing where it is no text that only lacks them."""
    begin = text.rfind("\n", 0, index) + 1
    end = text.find("\n", index)
    line = text[begin : len(text) if end < 0 else end].rstrip()
    if len(line) > LONGEST_LINE or "${{" in line:
        return ""
    hint = _in_flow(line, index - begin) or _in_block(line, index - begin)
    return hint if hint.isprintable() else ""


def _in_flow(line: str, column: int) -> str:
    """The entry of a `{…}` on one line."""
    if column >= len(line) and " #" in line:  # a comment has begun in the middle of it
        column = line.index(" #")
    keys = [found for found in re.finditer(_FLOW_KEY, line) if found.end() <= column]
    while keys and _value(line, keys[-1].end())[1] < column:
        keys.pop()
    keys = [found for found in keys if line[found.end()] != "{"]
    if not keys or line.count("{", 0, keys[0].end()) == 0:
        return ""
    value, _ = _value(line, keys[-1].end())
    return _hint(keys[-1][1], value)


def _in_block(line: str, column: int) -> str:
    """`key: text` on a line of its own."""
    found = re.match(_BLOCK_KEY, line)
    if found is None or found.end() > column + 1 or line[found.end()] in "{|>&":
        return ""
    value = line[found.end() :]
    if (inner := re.match(_BLOCK_KEY, value)) and inner[1] in _KEYS:  # `a: run: ls`
        return f"Write {found[1]}: {{{value}}}, or {inner[1]} on a line of its own."
    return _hint(found[1], value)


def _value(line: str, begin: int) -> tuple[str, int]:
    """The text from there to the next key or the end of its map, and where that is."""
    depth, next_key = 0, re.compile(_NEXT_KEY)
    for at in range(begin, len(line)):
        if line[at] in "{[":
            depth += 1
        elif line[at] in "}]":
            depth -= 1
            if depth < 0:
                return line[begin:at].rstrip(), at
        elif depth == 0 and (following := next_key.match(line, at)) and following[1] in _KEYS:
            return line[begin:at].rstrip(), at
    return line[begin:], len(line)


def _hint(key: str, value: str) -> str:
    if key == "if" and value[:1] == "!":
        return _negated(value[1:])
    is_alias = re.fullmatch(r"[*&][\w-]+", value)
    is_quoted = value[:1] in {"'", '"'} and value[-1] == value[0] and value.count(value[0]) == 2
    if key in _NEVER_TEXT or not value or len(value) > LONGEST_LINE or not value.isprintable() or is_alias or is_quoted:
        return ""
    return f"Quote the whole text: {key}: {quoted(value)}."


def quoted(value: str) -> str:
    """A text in the quotes that need no escapes, where there are such."""
    if '"' not in value and "\\" not in value:
        return f'"{value}"'
    if "'" not in value:
        return f"'{value}'"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def of_tag(text: str, index: int) -> str:
    """`!failure()`, which is a tag to YAML, as a condition; any other text with a '!' at its beginning in quotes."""
    begin = text.rfind("\n", 0, index) + 1
    end = text.find("\n", index)
    line = text[begin : len(text) if end < 0 else end].rstrip()
    keys = [found for found in (*re.finditer(_FLOW_KEY, line), *re.finditer(_BLOCK_KEY, line)) if found.end() == index - begin]
    if not keys or line[index - begin : index - begin + 2] == "!!":
        return ""
    is_flow = keys[0][0].lstrip().startswith(("{", ","))
    value = (_value(line, index - begin)[0] if is_flow else line[index - begin :])[1:]
    return _negated(value) if keys[0][1] == "if" else ""


def _negated(value: str) -> str:
    """A condition without the `!` that stood before it."""
    if not value.isprintable() or len(value) > 100:
        return ""
    if " and " in value or " or " in value or "&&" in value or "||" in value:
        return "Write `not` for the '!'."
    return f"Write if: not {value.strip()}."


def of_entries(text: str, begin: int, end: int, key: str) -> str:
    """`{run: echo "a, b"}`: what stands from the value of `key` to the last of the entries that a comma has made of it."""
    line_end = text.find("\n", begin)
    line = text[begin : len(text) if line_end < 0 else line_end]
    value, _ = _value(line, 0)
    return _hint(key, value) if begin < end < begin + len(value) else ""
