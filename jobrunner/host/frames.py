"""The lines that go between the engine and a host: how each begins, and how calls and results are written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii

from jobrunner.typed import Any
from jobrunner.work import Call, Calls, Outcome, Resources, Result

MOST_AT_MARK = 1 << 11
"""Bytes of a value that may stand at a mark: a pipe takes 4 KiB in one piece."""
PING = b""
"""The line that asks whether it still works."""
CHANNEL = b"!"
"""How the line begins with which a host is given a queue; the mark of its output follows."""
BACK = b"-"
"""The line that asks a host of threads for the calls that nobody has taken up."""
RINGS = b"#"
"""The line with which a host of threads is given memory for its rings."""
RING = 256
"""Numbers of 8 bytes in a ring: the native id of its thread, the number in the name of its worker, and the calls that it took up
last, more than may be on their way to a host."""
RING_HEAD = 2
MARK = b"\0"
"""How a mark in the output begins; the rest is what nobody else knows, and the call after which it stands."""
WHERE = b"?"
"""How a line begins that asks where the thread of a call stands; its id follows."""


def quoted(worker: str) -> bytes:
    return encode_basestring_ascii(worker).encode()


BEGAN = b'["began",%d,%b,%b]\n'
_RAN, _BEGAN_HEAD, _BEGAN_END = b'["ran"%b,%.6f,%.6f]\n%b\n', b'["began"', b"]\n"
JOINED = b'["joined",%b,%b,%d,%.6f]\n'
_PLAIN_RESULT = b'["result",%d,"succeeded",%.6f,%.6f,%b,null,"",null,true]\n%b\n'
"""As most of them are."""
TOLD = b",%d,%.6f,%.6f,%d] %b"
TOLD_BEFORE = b",%d]"
"""At a mark, after the number of the call that begins: how the one before has ended, or that this was sent before."""


_SUCCEEDED = Outcome.SUCCEEDED  # a look into an enum takes 70 ns


def is_plain(result: Result) -> bool:
    """Of a success there is no more to tell than its value and its measures."""
    is_plain = result.error is None and result.exit_code is None and not result.note and result.outcome is _SUCCEEDED
    return is_plain and result.value is not None and result.cpu is not None


def result_frame(result: Result, max_rss: int | None) -> bytes:
    """One line, and the value as another one."""
    if is_plain(result):
        rss = b"null" if max_rss is None else b"%d" % max_rss
        return _PLAIN_RESULT % (result.id, result.duration, result.cpu, rss, result.value)
    error = result.error and [result.error.type, result.error.message, result.error.traceback, *result.error.kinds]
    has_value = result.value is not None
    duration, cpu = round(result.duration, 6), None if result.cpu is None else round(result.cpu, 6)
    frame = ["result", result.id, result.outcome, duration, cpu, max_rss, result.exit_code, result.note, error]
    line = json.dumps([*frame, has_value], separators=(",", ":")).encode() + b"\n"
    return line + (result.value or b"") + b"\n" if has_value else line


def ran_frame(began: bytes, result: Result) -> bytes:
    """That of a begin, and a plain result, as one line, and the value as another one."""
    return _RAN % (began[len(_BEGAN_HEAD) : -len(_BEGAN_END)], result.duration, result.cpu, result.value)


def thread_of(native_id: int | None) -> bytes:
    return b"null" if native_id is None else b"%d" % native_id


_decode = json.JSONDecoder().raw_decode


def fields_of(line: bytes) -> dict[str, Any]:
    """Of a call, as it comes from the engine."""
    fields: dict[str, Any]
    fields, _ = _decode(line.decode())  # json.loads would look for the encoding first
    return fields


def calls_of(line: bytes) -> Iterable[Call]:
    """One or many, in their order."""
    fields = fields_of(line)
    if "ids" not in fields:
        return (_call(fields),)
    args, get = fields["args"], fields.get
    kwargs = get("kwargs") or [{}] * len(args)
    return Calls(fields["ids"], fields["target"], args, kwargs, get("env", {}), get("own_env", {}), get("cwd", ""))


def call_of(line: bytes) -> Call:
    return _call(fields_of(line))


def _call(fields: dict[str, Any]) -> Call:
    get = fields.get
    call = Call(fields["id"], fields["target"], fields["args"], get("kwargs") or {}, get("env") or {}, get("cwd", ""))
    call.needed = get("needed", False)
    if (resources := get("resources")) is not None:
        call.resources = Resources(**resources)
    return call
