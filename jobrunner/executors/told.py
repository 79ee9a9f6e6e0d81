"""What hosts say, as values: frames that came over a socket, and what stands at a mark. What is none is refused.

A task can write where its host does, so nothing is taken for what it should be. Most of what comes is alike, and has a quick way
here: what comes together is read as one piece of JSON, and what has an unusual form is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobrunner.encoding import loads
from jobrunner.typed import Any
from jobrunner.work import MOST_KINDS, Error, Outcome, Result

Frame = list[Any]

NOT_A_FRAME = (ValueError, TypeError, KeyError, IndexError, AttributeError)
"""What comes of taking something else for a frame."""

_FAR_OUTCOMES = {str(each): each for each in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CRASHED)}
"""A task can write to its host's socket, and what is no result must not get any further."""
_SUCCEEDED = Outcome.SUCCEEDED  # a look into an enum takes 70 ns
_NUMBER = (int, float)
_MOST = 1e12
"""Seconds."""
_TOLD = 4
"""Fields of a result that stands at a mark."""


_MEASURED, _PLAIN = 5, [None, None, "", None, True]
"""Behind the measures of a plain success of a thread."""
_RUN = 6
"""Fields of that frame."""


def is_time(seconds: Any) -> bool:
    """As a host measures it: no NaN, which no JSON may hold."""
    return type(seconds) in _NUMBER and abs(seconds) < _MOST


def result_of(frame: Frame, value: bytes | None) -> Result:
    """The Result in a frame. Raises ValueError or TypeError where it is none."""
    _, call_id, outcome, duration, cpu, max_rss, exit_code, note, error, _ = frame
    if (
        outcome not in _FAR_OUTCOMES
        or type(call_id) is not int
        or not is_time(duration)
        or not (cpu is None or is_time(cpu))
        or not (max_rss is None or type(max_rss) is int)
        or not (exit_code is None or type(exit_code) is int)
        or type(note) is not str
    ):
        raise ValueError(outcome)
    return Result(
        id=call_id,
        outcome=_FAR_OUTCOMES[outcome],
        duration=duration,
        cpu=cpu,
        max_rss=max_rss,
        exit_code=exit_code,
        note=note,
        error=None if error is None else _error_of(error),
        value=value,
    )


Turn = tuple[int, int, float, float, int, bytes]
"""Which call begins (0: none), which has ended, if that is told, and its duration, cpu, max_rss and value."""


NO_TURN: Turn = 0, 0, 0.0, 0.0, 0, b""


def turns_of(marks: Sequence[bytes]) -> list[Turn | None]:
    """What stands at each of many marks, read as one piece of JSON; None for what is to be looked at by itself."""
    parts = [mark.partition(b" ") for mark in marks]
    try:
        fields = loads(b"[%b]" % b",".join([each for each, _, _ in parts]))
    except ValueError:
        fields = ()
    if len(fields) != len(marks):
        return [None] * len(marks)
    return [_turn(each, value) for each, (_, _, value) in zip(fields, parts, strict=True)]


def _turn(fields: Any, value: bytes) -> Turn | None:
    if type(fields) is not list or len(fields) != 1 + _TOLD:
        return (fields[0], 0, 0.0, 0.0, 0, b"") if type(fields) is list and len(fields) == 1 and type(fields[0]) is int else None
    begins, ended, duration, cpu, max_rss = fields
    if not (type(begins) is type(ended) is type(max_rss) is int and type(duration) is type(cpu) is float):
        return None
    return (begins, ended, duration, cpu, max_rss, value) if -_MOST < duration < _MOST and -_MOST < cpu < _MOST else None


def has_value(frame: Any) -> bool:
    """What is no list is no frame, which its taker finds out."""
    if type(frame) is not list or not frame:
        return False
    return frame[0] == "ran" or (frame[0] == "result" and bool(frame[-1]))


def plain_run(frame: Frame) -> tuple[int, str, int, float, float] | None:
    """The call, its worker and thread, its duration and cpu in a frame that tells of a call from begin to success; else None."""
    if type(frame) is not list or len(frame) != _RUN or frame[0] != "ran":
        return None
    _, call_id, worker, thread, duration, cpu = frame
    is_one = type(call_id) is type(thread) is int and type(worker) is str and type(duration) is type(cpu) is float
    is_measured = is_one and -_MOST < duration < _MOST and -_MOST < cpu < _MOST
    return (call_id, worker, thread, duration, cpu) if is_measured else None


def plain_end(frame: Frame) -> tuple[int, float, float] | None:
    """The call, its duration and cpu in a frame of a thread with a value, that tells a plain success, as most do; else None."""
    if frame[_MEASURED:] != _PLAIN:
        return None
    _, call_id, outcome, duration, cpu, *_ = frame
    is_measured = type(duration) is type(cpu) is float and -_MOST < duration < _MOST and -_MOST < cpu < _MOST
    return (call_id, duration, cpu) if outcome == "succeeded" and type(call_id) is int and is_measured else None


def turn_of(mark: bytes) -> tuple[int, int, Result | None]:
    """What stands at a mark: which call begins, which has ended (0: none), and how, unless it was told before.

    Raises ValueError or TypeError where it is no such thing.
    """
    fields, _, value = mark.partition(b" ")
    begins, *told = loads(fields)
    if type(begins) is not int or (told and type(told[0]) is not int):
        raise ValueError(mark)
    if len(told) < _TOLD:
        return begins, told[0] if told else 0, None
    ended, duration, cpu, max_rss = told
    is_measured = type(duration) is type(cpu) is float and is_time(duration) and is_time(cpu)
    if not is_measured or type(max_rss) is not int:
        raise ValueError(mark)
    result = Result(id=ended, outcome=_SUCCEEDED, duration=duration, cpu=cpu, max_rss=max_rss, value=value)
    return begins, ended, result


def _error_of(texts: list[str]) -> Error:
    if type(texts) is not list or not all(type(text) is str for text in texts):
        raise ValueError(texts)
    kind, message, traceback, *kinds = texts
    return Error(type=kind, message=message, traceback=traceback, kinds=tuple(kinds[:MOST_KINDS]))
