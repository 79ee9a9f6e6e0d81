"""How an attempt ended, in words: the error and the one line that events, logs and summaries show."""

from __future__ import annotations

import signal

from jobrunner.work import Outcome, Result

_TAIL_LINES = 10

_SPEAKS_FOR_ITSELF = frozenset(
    {
        "CommandFailed",
        "CommandStopped",
        "Recorded",
        "WorkerDied",
        "TimedOut",
        "Cancelled",
        "ResultError",
        "OutOfMemory",
        "OSError",
        "SystemExit",
    }
)
"""Kinds of errors whose message needs no kind in front."""


def reason_of(error: dict[str, str] | None) -> str:
    """Why it did not succeed, in one line that a person can read."""
    if error is None:
        return "failed"
    message = error["message"].partition("\n")[0]
    is_plain = error["type"] in _SPEAKS_FOR_ITSELF or message.startswith(("could not start", error["type"]))
    return message if is_plain else f"{error['type']}: {message}"


def signal_name(number: int | None) -> str | None:
    """`SIGTERM` for 15."""
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def error_of(outcome: Outcome, result: Result, duration: float) -> dict[str, str] | None:
    """Why an attempt did not succeed; for one that was stopped, that it was."""
    if outcome is Outcome.TIMED_OUT:
        stack = {"traceback": result.stack} if result.stack else {}
        return {"type": "TimedOut", "message": f"timed out after {duration:.3g} s{_ending(result)}", **stack}
    if outcome is Outcome.CANCELLED:
        return {"type": "Cancelled", "message": f"cancelled after {duration:.3g} s{_ending(result)}"}
    if result.error is None:
        return None
    error = {"type": result.error.type, "message": result.error.message, "traceback": result.error.traceback}
    return {name: text for name, text in error.items() if text}


def _ending(result: Result) -> str:
    if result.abandoned:
        return "; its thread was abandoned"
    return f", stopped by {signal_name(result.signal)}" if result.signal else ""


def last_lines(tail: bytes) -> str | None:
    """The last lines of some output, None where it has none."""
    lines = tail.decode("utf-8", "replace").splitlines()[-_TAIL_LINES:]
    return "\n".join(lines) or None
