"""Keeps secrets out of everything that is written: every form of a value becomes `***`, also one that two reads cut in two.

    values ─ _forms ─→ what programs make of them: JSON, repr, shell, URL, HTML, base64, hex, each line
                          └─→ one regex of their first bytes finds where one may begin; there it is compared as a whole
    events ─ masked ─→ output through a Masked for each attempt, all other texts as they are ─→ emit

What a form is not: a part of a value, or a value that was compressed, encrypted, reversed. Who prints those means to.
"""

from __future__ import annotations

import binascii
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias, get_args
from urllib.parse import quote, quote_plus

from jobrunner.events import Data, Event, PoolClosed, RunFinished, TaskFinished, TaskLateResult, TaskOutput, TaskSkipped
from jobrunner.structs import defaults, replace

REPLACEMENT: Final = b"***"
LEAST: Final = 4
"""Bytes of the shortest form that is masked besides a value as it is: shorter ones stand everywhere."""

_HEAD: Final = 8
"""First bytes of a form that are searched for."""

Emit: TypeAlias = Callable[[Event], None]
Origin: TypeAlias = tuple[str, str | None, int, str]
"""Task, item, attempt and pool of some output."""


class Mask:
    """Knows all forms of some secrets, and replaces each of them; where several begin, the longest."""

    def __init__(self, values: Iterable[str]) -> None:
        self._forms = sorted(_all_forms(values))
        self._longest = max(map(len, self._forms), default=0)
        self._short = frozenset(form for form in self._forms if len(form) < _HEAD)
        self._long: dict[bytes, list[bytes]] = {}
        for form in sorted(self._forms, key=len, reverse=True):
            if len(form) >= _HEAD:
                self._long.setdefault(form[:_HEAD], []).append(form)
        self._heads = re.compile(_either({*self._short, *self._long}) if self._forms else rb"(?!)")

    def data(self, data: bytes) -> bytes:
        """The data with every form of a secret replaced; the same object where there is none."""
        return self.scan(data, is_end=True)[0]

    def text(self, text: str) -> str:
        """As `data`."""
        found = text.encode("utf-8", "surrogatepass")
        masked = self.data(found)
        return text if masked is found else masked.decode("utf-8", "surrogatepass")

    def rest(self, text: str) -> str:
        """As `text`, of what is left of a longer one: what it begins with may be the end of a secret."""
        found = text.encode("utf-8", "surrogatepass")
        if not (cut := self._end_in(found)):
            return self.text(text)
        return (REPLACEMENT + self.data(found[cut:])).decode("utf-8", "surrogatepass")

    def value(self, value: object) -> object:
        """A JSON-like value with every text and every key in it masked; others are handed back as they are."""
        match value:
            case str():
                return self.text(value)
            case bytes():
                return self.data(value)
            case dict():
                return {self.value(key): self.value(each) for key, each in value.items()}
            case list():
                return [self.value(each) for each in value]
            case tuple():
                return tuple(self.value(each) for each in value)
        return value

    def holds(self, data: bytes, *, is_rest: bool = False) -> bool:
        """Whether some form of a secret is in the data, or the end of one begins it where it `is_rest` of more."""
        return bool(self._forms) and (self.data(data) is not data or (is_rest and self._end_in(data) > 0))

    def stream(self) -> Masked:
        """For data that comes in pieces."""
        return Masked(self)

    def scan(self, data: bytes, *, is_end: bool) -> tuple[bytes, bytes]:
        """Masked data, and what is held back as it may be the beginning of a secret: nothing where `is_end`."""
        parts: list[bytes] = []
        begin = at = 0
        while (start := self._next(data, at, is_end)) >= 0:
            if not is_end and self._may_go_on(data, start):
                return b"".join([*parts, data[begin:start]]), data[start:]
            at = start + 1
            if length := self._length_at(data, start):
                parts += [data[begin:start], REPLACEMENT]
                begin = at = start + length
        return b"".join([*parts, data[begin:]]) if parts else data, b""

    def _next(self, data: bytes, at: int, is_end: bool) -> int:
        """Where from `at` on a form may begin; -1 for nowhere. The last bytes are too few for the regex."""
        found = self._heads.search(data, at)
        start = found.start() if found else -1
        if is_end:
            return start
        tail = range(max(at, len(data) - _HEAD + 1), start if found else len(data))
        return next((each for each in tail if self._may_go_on(data, each)), start)

    def _may_go_on(self, data: bytes, start: int) -> bool:
        """Whether a form begins with all that follows `start`, and is longer."""
        if len(data) - start >= self._longest:
            return False
        rest = data[start:]
        place = bisect_right(self._forms, rest)
        return place < len(self._forms) and self._forms[place].startswith(rest)

    def _length_at(self, data: bytes, start: int) -> int:
        """Length of the longest form that stands at `start`, or 0."""
        for form in self._long.get(data[start : start + _HEAD], ()):
            if data.startswith(form, start):
                return len(form)
        return next((length for length in range(_HEAD - 1, 0, -1) if data[start : start + length] in self._short), 0)

    def _end_in(self, data: bytes) -> int:
        """How many of the first bytes are the end of a form, with what a form beginning in there takes; 0 for none."""
        cut = max((_shared_end(form, data) for form in self._forms), default=0)
        return max([cut, *(start + self._length_at(data, start) for start in range(cut))])


def _shared_end(form: bytes, data: bytes) -> int:
    """How many of the first bytes of `data` the form ends with; 0 where they are fewer than LEAST."""
    head = data[:_HEAD]
    at = form.find(head)
    while at >= 0:
        if data.startswith(form[at:]):
            return len(form) - at
        at = form.find(head, at + 1)
    return next((length for length in range(min(_HEAD, len(data)), LEAST - 1, -1) if form.endswith(head[:length])), 0)


class Masked:
    """Masks data that comes in pieces, wherever they are cut. Holds back no more than the longest form of a secret."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can be shown of all that came so far and was not shown before."""
        shown, self._held = self._mask.scan(self._held + data, is_end=False)
        return shown

    def end(self) -> bytes:
        """The rest: nothing follows any more."""
        shown, self._held = self._mask.data(self._held), b""
        return shown


# --- events ------------------------------------------------------------------------------------------------------------------

_NAMES: Final = frozenset({
    "cause", "cause_outcome", "digest", "executor", "file", "group", "holder", "mode", "on_conflict", "outcome", "outcomes",
    "pool", "run", "run_dir", "signal", "task", "worker",
})  # fmt: skip
"""Fields that hold words of ours or names from the job file. A secret may be the same word; a run that is resumed needs them."""
_TEXTS: Final[dict[type, tuple[str, ...]]] = {
    kind: tuple(name for name in defaults(kind) if name not in _NAMES) for kind in get_args(Event)
} | {TaskSkipped: ("item",)}
_TAIL: Final = 64 << 10
"""Bytes of standard output that are kept: so many may be the rest of more."""


def masked(mask: Mask, emit: Emit) -> Emit:
    """`emit` with every secret masked. What is held back of an attempt's output comes before the event that it has ended."""
    streams: dict[Origin, Masked] = {}

    def emit_masked(event: Event) -> None:
        if isinstance(event, TaskOutput):
            origin = (event.task, event.item, event.attempt, event.pool)
            stream = streams.get(origin) or streams.setdefault(origin, mask.stream())
            _emit_output(mask, origin, stream.feed(event.data), emit)
            return
        for origin in [each for each in streams if _is_over(each, event)]:
            _emit_output(mask, origin, streams.pop(origin).end(), emit)
        emit(_event(mask, event))

    return emit_masked


def _emit_output(mask: Mask, origin: Origin, data: bytes, emit: Emit) -> None:
    if data:
        task, item, attempt, pool = origin
        key = None if item is None else mask.text(item)
        emit(TaskOutput(task=task, item=key, attempt=attempt, pool=pool, data=data))


def _is_over(origin: Origin, event: Event) -> bool:
    """Whether nothing more is to be expected from there after `event`."""
    match event:
        case TaskFinished() | TaskLateResult():
            return origin[:3] == (event.task, event.item, event.attempt)
        case PoolClosed():
            return origin[3] == event.pool
    return isinstance(event, RunFinished)


def _event(mask: Mask, event: Event) -> Event:
    changes: dict[str, object] = {}
    for name in _TEXTS[type(event)]:
        value = getattr(event, name)
        shown = _data(mask, value) if isinstance(value, Data) else mask.value(value)
        if shown != value:
            changes[name] = shown
    if isinstance(event, TaskFinished) and event.output:
        changes["output"] = mask.rest(event.output)
    return replace(event, **changes) if changes else event


def _data(mask: Mask, data: Data) -> Data:
    """Left out as a whole where it holds a secret: half of a value would be another value."""
    texts = [data.value or b"", *(part.encode("utf-8", "surrogatepass") for pair in data.outputs.items() for part in pair)]
    is_withheld = any(map(mask.holds, texts)) or mask.holds(data.stdout, is_rest=len(data.stdout) >= _TAIL)
    return Data(withheld=True) if is_withheld else data


# --- forms -------------------------------------------------------------------------------------------------------------------


def _all_forms(values: Iterable[str]) -> set[bytes]:
    """Every form of every value, of its lines, and of both without the blanks around them."""
    found: set[bytes] = set()
    for value in filter(None, values):
        found.add(value.encode())
        pieces = {value, *value.splitlines()}
        for piece in {*pieces, *map(str.strip, pieces)}:
            if piece == value or len(piece.encode()) >= LEAST:
                found.update(form for form in _forms(piece) if len(form) >= LEAST)
    return found


def _forms(text: str) -> Iterator[bytes]:
    data = text.encode()
    yield data
    for form in {*_in_json(text), *_in_python(text), *_in_shell(text), *_in_urls(text), *_in_html(text)}:
        yield form.encode()
    yield from (data.hex().encode(), data.hex().upper().encode())
    yield from _in_base64(data)


def _in_json(text: str) -> Iterator[str]:
    for is_ascii in (False, True):
        form = json.dumps(text, ensure_ascii=is_ascii)[1:-1]
        yield form
        yield form.replace("/", "\\/")
        yield form.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
        yield re.sub(r"\\u[0-9a-f]{4}", lambda escape: "\\u" + escape[0][2:].upper(), form)
        yield json.dumps(form, ensure_ascii=is_ascii)[1:-1]  # JSON in a text in JSON


def _in_python(text: str) -> Iterator[str]:
    """As repr() of it, of its bytes and of a longer text shows it: which quotes are escaped depends on the others there."""
    both = "\"'"
    for form in (repr(both + text)[4:-1], ascii(both + text)[4:-1], repr((both + text).encode())[5:-1]):
        yield form
        yield form.replace("\\'", "'")


def _in_shell(text: str) -> Iterator[str]:
    """In single quotes as shlex and dash write it, and as bash does; in double quotes; with backslashes."""
    yield text.replace("'", "'\"'\"'")
    yield text.replace("'", "'\\''")
    yield re.sub(r'[\\"$`]', r"\\\g<0>", text)
    yield re.sub(r"[^\w%+,./:=@-]", r"\\\g<0>", text)


def _in_urls(text: str) -> Iterator[str]:
    for form in (quote(text), quote(text, safe=""), quote(text, safe="!*'()"), quote_plus(text)):
        yield form
        yield re.sub("%[0-9A-F]{2}", lambda escape: escape[0].lower(), form)


def _in_html(text: str) -> Iterator[str]:
    from html import escape  # only where there are secrets

    yield escape(text)
    yield escape(text, quote=False)
    yield escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


def _in_base64(data: bytes) -> Iterator[bytes]:
    """What does not depend on the neighbours, wherever among them the data begins; whole and in lines of 64 or 76."""
    for before in range(3):
        encoded = binascii.b2a_base64(bytes(before) + data, newline=False)
        core = encoded[-(-8 * before // 6) : 8 * (before + len(data)) // 6]
        lines = [
            core[at : at + width] for width in (64, 76) if before == 0 < len(core) - width for at in range(0, len(core), width)
        ]
        for form in (core, *lines):
            yield form
            yield form.replace(b"+", b"-").replace(b"/", b"_")


def _either(heads: Iterable[bytes]) -> bytes:
    """A regex for any of the texts, one branch for each first byte: a longer one that begins as another is left out."""
    rests: dict[int, list[bytes]] = {}
    for head in heads:
        rests.setdefault(head[0], []).append(head[1:])
    branches = [re.escape(bytes([first])) + (b"" if b"" in rest else _either(rest)) for first, rest in rests.items()]
    return branches[0] if len(branches) == 1 else b"(?:" + b"|".join(branches) + b")"
