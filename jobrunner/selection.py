"""Which tasks of a job a run consists of: --only, --from, --until and --skip, as pure functions on the job.

all tasks ─ only ∩ from ∩ until ─ without skip ─▶ selected, in declared order; nothing that it leaves out may be missed

A final task runs in every selection but `only`, unless it is skipped by name: it tidies up, whatever was done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from jobrunner.errors import UsageError
from jobrunner.hints import one_of
from jobrunner.structs import struct, values
from jobrunner.typed import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from jobrunner.spec import Job

Uses: TypeAlias = "Callable[[Job], Collection[str]]"
"""The tasks whose data the tasks of a job use."""

_MOST_SAID = 10
"""Names in one message; a job may have 100,000."""


@struct
class Wanted:
    """What a caller asked for. Empty is no restriction; several names of one option are added up."""

    only: Sequence[str] = ()
    """Exactly these."""
    start_from: Sequence[str] = ()
    """These and all that needs them."""
    until: Sequence[str] = ()
    """These and all that they need."""
    skip: Sequence[str] = ()
    """None of these; what needs them counts them as met."""

    @property
    def named(self) -> dict[str, Sequence[str]]:
        """The names by the option that gives them, of the options that were given."""
        return {option_of(name): names for name, names in values(self).items() if len(names)}


def option_of(name: str) -> str:
    """The option of the command line that a field of Wanted stands for."""
    return "--from" if name == "start_from" else f"--{name}"


def select(job: Job, wanted: Wanted, uses: Uses) -> tuple[str, ...]:
    """The selected tasks in declared order; empty where all are.

    Raises UsageError for a name that is none, where nothing is left to run, and where a selected task uses the data of one that
    is not: that says what to add. Final tasks may: they find it skipped. Takes time linear in the size of the job.
    """
    _check_names(job, wanted)
    out = left_out(job, wanted)
    if not out:
        return ()
    selected = tuple(name for name in job.tasks if name not in out)
    _check_some_left(job, wanted, selected)
    _check_data(job, selected, out, uses)
    return selected


def left_out(job: Job, wanted: Wanted) -> dict[str, str]:
    """The tasks that are not selected, each with the option that leaves it out."""
    only, skip = frozenset(wanted.only), frozenset(wanted.skip)
    after = _reached(wanted.start_from, _dependents(job)) if wanted.start_from else None
    before = _needed(job, wanted.until) if wanted.until else None
    found: dict[str, str] = {}
    for name in job.tasks:
        if name in skip:
            found[name] = "--skip"
        elif only and name not in only:
            found[name] = "--only"
        elif name in job.finals:
            continue
        elif after is not None and name not in after:
            found[name] = "--from"
        elif before is not None and name not in before:
            found[name] = "--until"
    return found


def _needed(job: Job, names: Iterable[str]) -> Collection[str]:
    """These and all that they need. A final task comes after all others, so it needs them."""
    if any(name in job.finals for name in names):
        return job.tasks
    return _reached(names, {name: task.needs for name, task in job.tasks.items()})


def _dependents(job: Job) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, task in job.tasks.items():
        for need in task.needs:
            found.setdefault(need, []).append(name)
    return found


def _reached(names: Iterable[str], leads_to: Mapping[str, Sequence[str]]) -> set[str]:
    found, pending = set(names), list(names)
    while pending:
        for each in leads_to.get(pending.pop(), ()):
            if each not in found:
                found.add(each)
                pending.append(each)
    return found


def _check_names(job: Job, wanted: Wanted) -> None:
    for option, names in wanted.named.items():
        if isinstance(names, str):
            field = "start_from" if option == "--from" else option.removeprefix("--")
            raise UsageError(f"{field} is a list of task names: write {field}=[{names!r}]")
        for name in names:
            if name not in job.tasks:
                raise UsageError(f"{option} {name}: there is no such task. {one_of(name, job.tasks)}".rstrip())


def _check_some_left(job: Job, wanted: Wanted, selected: Sequence[str]) -> None:
    """Final tasks alone are only run where one was asked for: else the options contradict each other."""
    asked = {*wanted.only, *wanted.start_from, *wanted.until}
    if any(name not in job.finals or name in asked for name in selected):
        return
    options = " ".join(_options(option, names) for option, names in wanted.named.items())
    told = "What runs is in each of --only, --from and --until that is given, and not in --skip"
    raise UsageError(f"{options}: no task is left to run. {told}")


def _check_data(job: Job, selected: Sequence[str], out: Mapping[str, str], uses: Uses) -> None:
    running = [name for name in selected if name not in job.finals]
    missing = _missing(job, running, out, uses)
    if not missing:
        return
    by_option: dict[str, list[str]] = {}
    for name in missing:
        by_option.setdefault(out[name], []).append(name)
    raise UsageError("\n".join(_told(job, option, names, running, uses) for option, names in by_option.items()))


def _missing(job: Job, running: Sequence[str], out: Mapping[str, str], uses: Uses) -> list[str]:
    """What is left out of all whose data is used, by the running tasks or by one that these miss; in declared order."""
    found: set[str] = set()
    asking: Collection[str] = running
    while asking:
        used = uses(_job_of(job, asking))
        asking = [name for name in used if name in out and name not in found]
        found.update(asking)
    return [name for name in job.tasks if name in found] if found else []


def _job_of(job: Job, names: Iterable[str]) -> Job:
    return job.model_copy(update={"tasks": {name: job.tasks[name] for name in names}, "finals": {}})


def _told(job: Job, option: str, missing: Sequence[str], running: Sequence[str], uses: Uses) -> str:
    said = f"{option} leaves out {_names(missing)}, whose data is used."
    if option != "--skip":
        rerun = _options("--rerun", [name for name in running if not set(missing).isdisjoint(uses(_job_of(job, [name])))])
        recorded = f", or use what a run has recorded: jobrunner resume RUN {rerun}" if option == "--only" and rerun else ""
        return f"{said} Add {_options(option, missing)}{recorded}"
    users = [name for name in running if not set(missing).isdisjoint(uses(_job_of(job, [name])))]
    return f"{said} Do not skip {'it' if len(missing) == 1 else 'them'}, or skip what uses it: {_options('--skip', users)}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(_some(names))


def _options(option: str, names: Sequence[str]) -> str:
    return " ".join(name if name == "…" else f"{option} {name}" for name in _some(names))


def _some(names: Sequence[str]) -> Iterator[str]:
    yield from names[:_MOST_SAID]
    if len(names) > _MOST_SAID:
        yield "…"
