"""What to write instead of a value that does not fit, where it can be told from what was written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from jobrunner.jobfile import scalars
from jobrunner.jobfile.document import Path, shortened

WITH_EXPRESSIONS: Final = frozenset({"args", "kwargs", "argv", "env", "foreach", "matrix", "run"})
"""Keys in whose values `${{ }}` is evaluated, though a text is not what they hold."""

_TARGET: Final = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_AS_IT_IS: Final = r"-?[A-Za-z_./][\w./ -]*|\d+(?:\.\d+)?[A-Za-z][A-Za-z0-9]*"  # text that needs no quotes in a flow collection
_AMOUNT: Final = r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\.?(?:\s*,|\s+and\b)?\s*"
_UNITS: Final = {
    **dict.fromkeys(("ms", "msec", "msecs", "milli", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("w", "week", "weeks"), "w"),
}


def of_type(kind: str, path: Path, value: object) -> str:
    """The hint for a value of another type than pydantic's error of that kind expects."""
    match kind:
        case "list_type":
            return _list(path, value)
        case "dict_type" | "model_type":
            return _map(path, value)
        case "string_type":
            return _text(path, value)
        case "bool_type" if isinstance(value, str) and value.lower() in {"yes", "on", "no", "off"}:
            return f"Write {'true' if value.lower() in {'yes', 'on'} else 'false'}."
        case "int_type" if isinstance(value, str) and re.fullmatch(r"[1-9]\d{0,9}", value, re.ASCII):
            return f"Write {value} without quotes."
    return ""


def _list(path: Path, value: object) -> str:
    if isinstance(value, dict) and path[-1] == "args":
        return f"Write kwargs: {{{shortened(str(next(iter(value), 'name')))}: …}}."
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return f"Write [{_in_flow(value) if '${{' in str(value) else shortened(str(value))}]."
    return ""


def _map(path: Path, value: object) -> str:
    if path in {("tasks",), ("finally",)} and isinstance(value, list):
        return _named_rows(value)
    if len(path) == 2 and path[0] in {"tasks", "finally"}:
        return _task(str(path[1]), value)
    if path[-1] in {"env", "params"} and isinstance(value, (list, str)):
        return _pairs(str(path[-1]), value.split() if isinstance(value, str) else value)
    if path == ("secrets",) and isinstance(value, list):
        return "Write a map, each secret under its name: NAME: {env: VARIABLE}."
    if len(path) == 2 and path[0] == "secrets":
        return _secret(str(path[1]), value)
    if path == ("concurrency",) and isinstance(value, (str, int)) and not isinstance(value, bool):
        return _concurrency(value)
    if path[-1] == "resources" and isinstance(value, (str, int)) and not isinstance(value, bool):
        return f"Write resources: {{memory: {shortened(str(value))}}}."
    if path[-1] == "stop" and isinstance(value, (str, int)) and not isinstance(value, bool):
        return f"Write stop: {_stop(str(value))}."
    if path[-1] == "kwargs" and isinstance(value, list):
        return "Write args: […]."
    return ""


def _pairs(key: str, rows: Sequence[object]) -> str:
    """Compose and dagu write lists of NAME=value, or of maps with one name each."""
    pairs: dict[str, object] = {}
    for row in rows:
        if isinstance(row, dict):
            pairs |= row
        elif isinstance(row, str) and "=" in row:
            name, _, text = row.partition("=")
            pairs[name] = text
    return f"Write {key}: {(flow(pairs) if pairs else '') or '{NAME: value}'}."


def _named_rows(rows: list[object]) -> str:
    first = rows[0] if rows else None
    name = first.get("name", first.get("id")) if isinstance(first, dict) else None
    return f"Write a map, each task under its name: {shortened(name) if isinstance(name, str) else 'name'}: {{…}}."


def _task(name: str, value: object) -> str:
    if isinstance(value, str) and (pair := re.fullmatch(r"(target|run|argv):(\S.*)", value, re.DOTALL)):
        return f"A space belongs behind the ':': {pair[1]}: {shortened(pair[2])}."
    if isinstance(value, str):
        action = "target" if re.fullmatch(f"{_TARGET}:{_TARGET}", value) else "run"
        return f"Write {shortened(name)}: {{{action}: {_in_flow(value)}}}."
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return (
            f"Write {shortened(name)}: {{argv: [{', '.join(_in_flow(each) for each in value[:8])}{', …' * (len(value) > 8)}]}}."
        )
    return ""


def _secret(name: str, value: object) -> str:
    """Never the value back: it may be the secret itself."""
    if isinstance(value, str) and re.fullmatch(r"\$?\{?([A-Z][A-Z0-9_]*)\}?", value, re.ASCII):
        return f"Write {shortened(name)}: {{env: {value.strip('${}')}}}."
    if isinstance(value, str) and "/" in value and not re.search(r"\s|://", value):
        return f"Write {shortened(name)}: {{file: {_in_flow(value)}}}."
    return f"Write {shortened(name)}: {{env: VARIABLE}}: a job file says where a secret is, not what it is."


def _concurrency(value: str | int) -> str:
    if isinstance(value, int):
        return f"Write workers: {value}."
    key = "on_conflict" if value in {"fail", "skip", "wait", "replace"} else "group"
    return f"Write concurrency: {{{key}: {_in_flow(value)}}}."


def _stop(text: str) -> str:
    if re.fullmatch(r"[0-9.]+(ms|[smhdw])?", text):
        return f"{{grace: {text}}}"
    return f"{{signal: {shortened(text.upper().removeprefix('SIG'))}}}"


def _text(path: Path, value: object) -> str:
    if isinstance(value, bool):
        return f'Write "{str(value).lower()}".'
    if isinstance(value, (int, float)):
        return f'Write "{value}".'
    if isinstance(value, list) and value and all(isinstance(line, str) for line in value):
        of_command = "; lines of a command go under 'run: |'" if "run" in path else ""
        return f"Write it as one text{of_command}."
    return ""


def _in_flow(value: object) -> str:
    """A text as it is written within […] or {…}: in quotes where YAML would read it otherwise."""
    text = shortened(str(value))
    if re.fullmatch(_AS_IT_IS, text) and text not in scalars.WORDS and scalars.number(text) is text and text == text.strip():
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def flow(value: object, longest: int = 100) -> str:
    """A value on one line, as it stands within […] or {…}; nothing where it takes more than so many characters."""
    text = _flow(value) if _weight(value) <= longest else ""
    return text if len(text) <= longest else ""


def _flow(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case list():
            return f"[{', '.join(map(_flow, value))}]"
        case dict():
            return f"{{{', '.join(f'{_in_flow(key)}: {_flow(part)}' for key, part in value.items())}}}"
    return _in_flow(value)


def _weight(value: object, most: int = 200) -> int:
    """About how many characters a value takes, no further counted than it matters: aliases make values of any size."""
    if isinstance(value, str):
        return len(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    total = 1
    for part in parts:
        if (total := total + 1 + (_weight(part, most - total) if total < most else 0)) >= most:
            break
    return total


def of_target(path: Path, text: str) -> str:
    """`dbtools.dump` and `g.py:show` as module:function."""
    if path[-1] not in {"target", "executor"}:
        return ""
    module, colon, function = text.strip().removeprefix("./").removesuffix("()").partition(":")
    if module.endswith(".py"):
        module, function = module.removesuffix(".py"), function or "function"
    elif not colon:
        module, _, function = module.rpartition(".")
    module = module.replace("/", ".").removesuffix(".py")
    fits = len(text) <= 100 and re.fullmatch(_TARGET, module) and re.fullmatch(_TARGET, function)
    return f"Write {module}:{function}." if fits else ""


def of_size(value: object) -> str:
    """`2G` as 2GiB, which it means nearly everywhere."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT])i?", value, re.ASCII | re.I) if isinstance(value, str) else None
    return f"Write {match[1]}{match[2].upper()}iB." if match else ""


def of_duration(value: object) -> str:
    """`10 minutes` as 10m."""
    if not isinstance(value, str) or len(value) > 60 or not re.fullmatch(f"(?:{_AMOUNT})+", value.lower(), re.ASCII):
        return ""
    parts = re.findall(_AMOUNT, value.lower(), re.ASCII)
    if any(unit not in _UNITS for _, unit in parts):
        return ""
    return f"Write {''.join(number + _UNITS[unit] for number, unit in parts)}."
