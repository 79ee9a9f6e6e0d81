"""The key `schedule`: whether its text is a crontab's five fields, and its time zone one that there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from jobrunner import spec
from jobrunner.hints import did_you_mean
from jobrunner.jobfile.document import Finding, Path, shortened

_NICKNAMES: Final = {
    **dict.fromkeys(("@yearly", "@annually"), "0 0 1 1 *"),
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    **dict.fromkeys(("@daily", "@midnight"), "0 0 * * *"),
    "@hourly": "0 * * * *",
}
_FIELDS: Final = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of the month": "1 to 31",
    "month": "1 to 12, or JAN to DEC",
    "day of the week": "0 to 7 (0 and 7 are Sunday), or SUN to SAT",
}


def find(rule: str | spec.Schedule) -> Iterator[Finding]:
    """Everything wrong in a schedule."""
    if isinstance(rule, str):
        yield from _cron(("schedule",), rule)
        return
    yield from _cron(("schedule", "cron"), rule.cron)
    if rule.timezone is not None:
        yield from _timezone(("schedule", "timezone"), rule.timezone)


def _cron(path: Path, text: str) -> Iterator[Finding]:
    if "${{" in text:
        yield Finding(path=path, message="no ${{ }} is evaluated here", hint="Write the value itself.")
    elif text.strip().startswith("@"):
        yield _nickname(path, text.strip())
    elif (count := len(text.split())) != len(_FIELDS):
        message = f"a schedule has five fields (minute, hour, day of the month, month, day of the week); this one has {count}"
        yield Finding(path=path, message=message, hint=_miscounted(text, count))
    else:
        yield from _fields(path, text)


def _nickname(path: Path, text: str) -> Finding:
    fields = _NICKNAMES.get(text.lower())
    hint = f'Write "{fields}".' if fields else did_you_mean(text, _NICKNAMES)
    return Finding(path=path, message="a schedule is written in five fields", hint=hint)


def _miscounted(text: str, count: int) -> str:
    if re.match(r"\s*(CRON_)?TZ=", text):
        return "Write schedule: {cron: …, timezone: …}."
    if count == len(_FIELDS) + 1:
        return "There are no seconds here: leave the first field out."
    return 'Every night at half past two is "30 2 * * *".'


def _fields(path: Path, text: str) -> Iterator[Finding]:
    """What is wrong with which field; all are right alone where a day never comes, as the 31st of April."""
    if _is_read(text):
        return
    fields = list(re.finditer(r"\S+", text))
    wrong = [at for at, field in enumerate(fields) if not _is_read(" ".join(["*"] * at + [field[0]] + ["*"] * (4 - at)))]
    for at in wrong:
        name, bounds = list(_FIELDS.items())[at]
        said = fields[at][0]
        message = f"{shortened(said)!r} is no {name}: {bounds}"
        yield Finding(path=path, message=message, hint=_of_field(said), offset=fields[at].start(), length=len(said))
    if not wrong:
        message = "no month of this schedule has that day, so it would never start"
        yield Finding(path=path, message=message, offset=fields[2].start(), length=len(fields[2][0]))


def _is_read(text: str) -> bool:
    from cronsim import CronSim, CronSimError  # only for jobs that have a schedule

    try:
        CronSim(text, datetime(2000, 1, 1))
    except (CronSimError, ValueError):  # ValueError: a number of thousands of digits
        return False
    return True


def _of_field(text: str) -> str:
    if text == "?":
        return "Write *."
    backwards = re.fullmatch(r"(\d{1,4})-(\d{1,4})", text, re.ASCII)
    return "A range runs upwards." if backwards and int(backwards[1]) > int(backwards[2]) else ""


def _timezone(path: Path, name: str) -> Iterator[Finding]:
    import zoneinfo  # only for jobs that have a schedule

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        if known := zoneinfo.available_timezones():  # without a database of them there is nothing to say
            hint = _near(name, known) or "Write one like Europe/Berlin, or UTC."
            yield Finding(path=path, message=f"no time zone is called {shortened(name)!r}", hint=hint)


def _near(name: str, known: set[str]) -> str:
    """The zone of that city, or one that is written alike in the same part of the world."""
    region, _, city = name.replace(" ", "_").rpartition("/")
    same = sorted(each for each in known if each.rpartition("/")[2].casefold() == city.casefold())
    return did_you_mean(same[0], same[:1]) if same else did_you_mean(name, sorted(z for z in known if z.startswith(f"{region}/")))
