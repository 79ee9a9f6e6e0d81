"""The job file as pydantic models: what each key may hold, and nothing else. No I/O, no checks across tasks (see checks)."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, JsonValue, Tag, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from jobrunner import kinds

Mode: TypeAlias = Literal["serial", "thread", "process", "thread_pool", "process_pool"]
ParamType: TypeAlias = Literal["str", "int", "float", "bool", "path", "date", "choice", "list"]
StartMethod: TypeAlias = Literal["fork", "spawn"]
Signal: TypeAlias = Literal["TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "KILL"]

LONGEST = 10 * 366 * 86_400.0
"""The longest duration a job file may ask for, in seconds: ten years."""

MOST_WORKERS = kinds.MOST_WORKERS
MOST_FILES = 10_000_000
"""What `at_least` of a glob may ask for."""
DEFAULT_POOL = kinds.DEFAULT_POOL
DEFAULT_GRACE = 10.0
"""Seconds between the stop signal and SIGKILL, where a task does not say."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
# Patterns are texts: `re` compiles them at their first use, which a job without durations does not pay for.
_DURATION = r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:ms|[smhdw]))+"
_DURATION_PART = r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdw])"
_ISO_DURATION = (
    r"P(?=.)(?:([0-9]{1,9})W)?(?:([0-9]{1,9})D)?"
    r"(?:T(?=.)(?:([0-9]{1,9})H)?(?:([0-9]{1,9})M)?(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)S)?)?"
)
_ISO_SECONDS = (604_800.0, 86_400.0, 3600.0, 60.0, 1.0)


def seconds(value: object) -> float:
    """A duration in seconds: `90`, `"90s"`, `"1h30m"`, `"1.5h"`, or ISO 8601 (`"PT1H30M"`). Raises for anything else."""
    total = _seconds_of(value)
    if total is None:
        raise PydanticCustomError("duration", "not a duration; write seconds (90) or units (90s, 1h30m, 1.5h, 500ms, PT90S)")
    if not 0 <= total <= LONGEST:
        raise PydanticCustomError("duration", "a duration is between 0 and ten years")
    return total


def _seconds_of(value: object) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return None if value != value else float(max(-1, min(value, 2 * LONGEST)))  # a huge int is no float
    if not isinstance(value, str):
        return None
    text = value.strip()
    if re.fullmatch(_DURATION, text):
        return sum(float(number) * _UNITS[unit] for number, unit in re.findall(_DURATION_PART, text))
    if match := re.fullmatch(_ISO_DURATION, text):
        return sum(float(part) * scale for part, scale in zip(match.groups(), _ISO_SECONDS, strict=True) if part)
    return float(text) if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text, re.ASCII) else None


def _positive_seconds(value: object) -> float:
    if (total := seconds(value)) <= 0:
        raise PydanticCustomError("duration", "a timeout is longer than 0 seconds; leave it out for none")
    return total


def _workers(value: object) -> object:
    if isinstance(value, str):
        percent = re.fullmatch(r"(\d{1,4})%", value, re.ASCII)
        if value == "auto" or (percent and 1 <= int(percent[1]) <= 1000):
            return value
    elif isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_WORKERS:
        return value
    raise PydanticCustomError(
        "workers", f'workers is a whole number from 1 to {MOST_WORKERS}, "auto", or a share of the CPUs like "50%"'
    )


def _as_text(value: object) -> object:
    """Values of `env` are text; the reader hands plain scalars over as they were written, so 1.10 stays "1.10"."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


_SIZE = r"(\d{1,15}(?:\.\d{1,6})?) ?([KMGT]?i?B|)"
_SIZES = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)},
}
_LEAST_MEMORY = 1 << 20


def size(value: object) -> int:
    """A size in bytes: `1048576`, `"512MiB"`, `"1.5GB"`. Raises for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    elif isinstance(value, str) and (match := re.fullmatch(_SIZE, value.strip(), re.ASCII | re.I)):
        found = int(float(match[1]) * _SIZES.get(match[2].lower(), 0))
    else:
        raise PydanticCustomError("size", "not a size; write bytes (1048576) or units (512MiB, 2GB)")
    if not _LEAST_MEMORY <= found <= 1 << 50:
        raise PydanticCustomError("size", "a memory limit is between 1MiB and 1024TiB")
    return found


def _argument(value: object) -> object:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return value
    raise PydanticCustomError("argument", "an argument of a command is text or a number; quote it")


_DURATION_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\s*[0-9PT.][0-9.a-zA-Z]*\s*$"}],
    "examples": ["90s", "1h30m", "1.5h", "PT90S", 90],
}
_TIMEOUT_SCHEMA = {**_DURATION_SCHEMA, "anyOf": [{"type": "number", "exclusiveMinimum": 0}, *_DURATION_SCHEMA["anyOf"][1:]]}
Duration = Annotated[float, BeforeValidator(seconds), WithJsonSchema(_DURATION_SCHEMA)]
Timeout = Annotated[float, BeforeValidator(_positive_seconds), WithJsonSchema(_TIMEOUT_SCHEMA)]
Workers = Annotated[
    int | str,
    BeforeValidator(_workers),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MOST_WORKERS},
                {"type": "string", "pattern": "^(auto|[0-9]+%)$"},
            ],
            "examples": ["auto", "50%", 4],
        }
    ),
]
EnvText = Annotated[
    str,
    BeforeValidator(_as_text),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"], "description": "taken as written"}),
]
Size = Annotated[
    int,
    BeforeValidator(size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": _LEAST_MEMORY},
                {"type": "string", "pattern": r"^\s*[0-9.]+ ?([KkMmGgTt]?[iI]?[bB])?\s*$"},
            ],
            "examples": ["512MiB", "2GB"],
        }
    ),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
JobName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Target = Annotated[
    str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$", examples=["nightly:list_files"])
]
ExceptionName = Annotated[
    str, Field(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*$", examples=["ConnectionError", "requests.exceptions.Timeout"])
]
Slots = Annotated[int, Field(ge=1, le=MOST_WORKERS)]
Argument: TypeAlias = Annotated[str | int | float, BeforeValidator(_argument), WithJsonSchema({"type": ["string", "number"]})]
Env: TypeAlias = dict[EnvName, EnvText]


class Model(BaseModel):
    """What all models of the job file share: an unknown key is an error, types are taken strictly, a model never changes."""

    # Built when a job is first read, all within Job and none on its own: 16 instead of 19 ms, and nothing where no job is read.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Param(Model, kinds.Param):
    """A declared parameter: `--set name=value` gives it, its default otherwise."""

    type: ParamType | None = Field(None, description="Type of the value; that of the default where it is not given, else str.")
    default: JsonValue = Field(
        None, description="Value used when none is given. A relative path counts from the job file's folder."
    )
    required: bool = Field(False, description="A run without a value is refused.")
    choices: list[JsonValue] | None = Field(None, min_length=1, description="The only values that are allowed.")
    description: str = Field("", description="Shown to people who set it.")


class Pool(Model):
    """Where tasks run: a mode with its worker count."""

    mode: Mode | None = Field(None, description="How attempts run: serial, thread, process, thread_pool or process_pool.")
    workers: Workers = Field(
        "auto", description='How many at once: a number, "auto" (usable CPUs) or a share of the CPUs like "50%".'
    )
    executor: Target | None = Field(
        None, description="Any PEP 3148 executor by dotted name, called with max_workers. Stands in place of mode."
    )
    max_tasks_per_worker: Annotated[int, Field(ge=1)] | None = Field(
        None, description="A worker process is replaced after so many attempts (process_pool)."
    )
    start_method: StartMethod | None = Field(
        None, description="How worker processes start: fork (default on Linux) or spawn (a fresh interpreter)."
    )
    preload: bool = Field(
        False, description="The modules of its targets are imported once, and forked with each worker (process, process_pool)."
    )


class Retry(Model):
    """When and how often a failed attempt is run again."""

    max: Annotated[int, Field(ge=0, le=1000)] = Field(description="How many RE-runs: 2 means at most three attempts.")
    delay: Duration = Field(1.0, description="Wait before the first re-run.")
    backoff: Annotated[float, Field(ge=1, le=100)] = Field(2.0, description="Each further wait is so many times longer.")
    max_delay: Duration = Field(300.0, description="No wait is longer than this.")
    jitter: Annotated[float, Field(ge=0, le=1)] = Field(0.1, description="Share of the wait that is random, 0 to 1.")
    exit_codes: Annotated[list[Annotated[int, Field(ge=1, le=255)]], Field(min_length=1)] | None = Field(
        None, description="Of the failures only those with one of these exit codes are tried again."
    )
    exceptions: Annotated[list[ExceptionName], Field(min_length=1)] | None = Field(
        None, description="Of the failures only those with one of these exceptions, or one derived from them, are tried again."
    )


class Stop(Model):
    """How a running attempt is stopped: signal, grace, SIGKILL."""

    signal: Signal = Field("TERM", description="First signal, sent to the whole process group.")
    grace: Duration = Field(DEFAULT_GRACE, description="Wait before SIGKILL.")
    leftover: Literal["kill", "allow"] = Field("kill", description="What happens to processes that a command leaves behind.")


class Resources(Model):
    """What an attempt may use. Only for commands and targets of mode process, which have a process of their own."""

    memory: Size | None = Field(None, description="Most memory of each of its processes, like 512MiB: RLIMIT_DATA.")
    nice: Annotated[int, Field(ge=-20, le=19)] | None = Field(None, description="Niceness: 19 is the most patient.")
    cpus: Annotated[int, Field(ge=1, le=MOST_WORKERS)] | None = Field(None, description="On so many CPUs it may run.")


class Limit(Model, kinds.Limit):
    """So many slots, which tasks take while they run."""

    slots: Slots = Field(description="How many there are.")
    scope: Literal["run", "host"] = Field(
        "run", description="run: shared by the tasks of one run. host: by all jobs on this machine that name this limit."
    )


class Cache(Model):
    """When a task need not run: nothing that it depends on has changed, and what it made is still there."""

    inputs: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="Files it reads: paths or patterns (`**` crosses folders), relative to the job file."
    )
    outputs: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="Files it makes: paths or patterns. It runs again if one is gone or was changed."
    )
    env: list[EnvName] = Field(default_factory=list, description="Environment variables whose values count.")
    ttl: Timeout | None = Field(None, description="After so long it runs again in any case.")


class Schedule(Model):
    """When the job should run. jobrunner itself schedules nothing: cron and systemd do."""

    cron: Annotated[str, Field(min_length=1)] = Field(description="Five fields, as in a crontab: `30 2 * * *`.")
    timezone: Annotated[str, Field(min_length=1)] | None = Field(None, description="Of the times, like Europe/Berlin.")
    jitter: Duration = Field(0.0, description="Start by up to so much later, at random.")
    catchup: bool = Field(False, description="Run once after the machine was off at the time.")


class Secret(Model):
    """Where the value of a secret is read when a run starts: exactly one of env, file, command and credential."""

    SOURCES: ClassVar[tuple[str, ...]] = kinds.SOURCES

    env: EnvName | None = Field(None, description="A variable of jobrunner's own environment; tasks no longer see it there.")
    file: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="A file, relative to the job file's folder; others must not be able to read it."
    )
    command: Annotated[str, Field(min_length=1)] | None = Field(None, description="A command whose standard output it is.")
    credential: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:@-]{1,255}$")] | None = Field(
        None, description="A credential that systemd passed to the service (LoadCredential=)."
    )

    @model_validator(mode="after")
    def _is_one_source(self) -> Secret:
        given = [key for key in self.SOURCES if getattr(self, key) is not None]
        if len(given) != 1:
            said = " and ".join(given) if given else "none of them"
            told = f"a secret has exactly one of env, file, command and credential; this one has {said}"
            raise PydanticCustomError("secret", told)
        return self


class Concurrency(Model):
    """What happens when this job, or another one of its group, is running already."""

    group: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")] | None = Field(
        None, description="Jobs of one group never run at the same time. A job alone is its own group."
    )
    on_conflict: Literal["fail", "skip", "wait", "replace"] = Field(
        "fail", description="fail: exit 75. skip: exit 0, nothing runs. wait: for its end. replace: stop the other one."
    )
    wait: Duration | None = Field(None, description="Longest wait for the other one's end, then exit 75 (wait, replace).")


def _kind_of_range(value: object) -> str | None:
    if isinstance(value, list):
        return "<bounds>"
    return "<count>" if isinstance(value, int) and not isinstance(value, bool) else None


class Range(Model, kinds.Range):
    """`range: 3`, or `range: [start, stop]`, `range: [start, stop, step]`, as in Python."""

    range: Annotated[
        Annotated[int, Tag("<count>")] | Annotated[list[int], Field(min_length=1, max_length=3), Tag("<bounds>")],
        Discriminator(
            _kind_of_range, custom_error_type="range", custom_error_message="range is a whole number, or a list of 1 to 3 of them"
        ),
    ] = Field(description="How many, or [start, stop] or [start, stop, step]; stop is not reached.")


def _kind_of_glob(value: object) -> str | None:
    return "<patterns>" if isinstance(value, list) else "<pattern>" if isinstance(value, str) else None


class Glob(Model, kinds.Glob):
    """Files that match a pattern, or one of several (`**` crosses folders), sorted by name, each once.

    Patterns count from the job file's folder.
    """

    glob: Annotated[
        Annotated[str, Field(min_length=1), Tag("<pattern>")]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1), Tag("<patterns>")],
        Discriminator(
            _kind_of_glob, custom_error_type="glob", custom_error_message="glob is a pattern of paths, or a list of patterns"
        ),
    ] = Field(description="Pattern of the paths, like data/**/*.csv, or a list of patterns.")
    at_least: Annotated[int, Field(ge=0, le=MOST_FILES)] = Field(0, description="Fewer files fail the task.")

    @property
    def patterns(self) -> list[str]:
        """The patterns, also where there is one."""
        return kinds.patterns(self)


class Lines(Model, kinds.Lines):
    """The lines of a text file without their line ends; empty ones are left out. Relative to the job file's folder."""

    lines: Annotated[str, Field(min_length=1)] = Field(description="Path of the text file.")


# Unions are told apart by what was written, so that a mistake is answered once and not once for each member. The tags stand in
# the positions of pydantic's errors, where nobody's keys look like them.


def _kind_of_foreach(value: object) -> str | None:
    if isinstance(value, Model):
        return f"<{type(value).__name__.lower()}>"
    if isinstance(value, dict):
        keys = [key for key in ("range", "glob", "lines") if key in value]
        return f"<{keys[0]}>" if len(keys) == 1 else None
    return "<list>" if isinstance(value, list) else "<expression>" if isinstance(value, str) else None


def _kind_of_retry(value: object) -> str | None:
    if isinstance(value, (dict, Model)):
        return "<rule>"
    return "<count>" if isinstance(value, int) and not isinstance(value, bool) else None


def _kind_of_run(value: object) -> str | None:
    return "<steps>" if isinstance(value, list) else "<command>" if isinstance(value, str) else None


def _kind_of_axis(value: object) -> str | None:
    return "<list>" if isinstance(value, list) else "<expression>" if isinstance(value, str) else None


def _kind_of_limit(value: object) -> str | None:
    if isinstance(value, (dict, Model)):
        return "<limit>"
    return "<slots>" if isinstance(value, int) and not isinstance(value, bool) else None


def _kind_of_taken(value: object) -> str | None:
    return "<names>" if isinstance(value, list) else "<counts>" if isinstance(value, dict) else None


def _kind_of_schedule(value: object) -> str | None:
    return "<rule>" if isinstance(value, (dict, Model)) else "<cron>" if isinstance(value, str) else None


def _condition(value: object) -> object:
    """`if: false` and `if: ${{ … }}` alike as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and value.strip():
        return value
    raise PydanticCustomError("condition", "a condition is an expression, like ${{ params.full }} or failure()")


def _kind_of_param(value: object) -> str:
    return "<declaration>" if isinstance(value, (dict, Model)) else "<value>"


Foreach: TypeAlias = Annotated[
    Annotated[list[JsonValue], Tag("<list>")]
    | Annotated[Range, Tag("<range>")]
    | Annotated[Glob, Tag("<glob>")]
    | Annotated[Lines, Tag("<lines>")]
    | Annotated[str, Tag("<expression>")],
    Discriminator(
        _kind_of_foreach,
        custom_error_type="foreach",
        custom_error_message="foreach is a list, one of {range: …}, {glob: …} and {lines: …}, or an expression that gives a list",
    ),
]
RetryRule: TypeAlias = Annotated[
    Annotated[int, Field(ge=0, le=1000), Tag("<count>")] | Annotated[Retry, Tag("<rule>")],
    Discriminator(
        _kind_of_retry,
        custom_error_type="retry",
        custom_error_message="retry is a whole number of re-runs, "
        "or {max, delay, backoff, max_delay, jitter, exit_codes, exceptions}",
    ),
]
RunLines: TypeAlias = Annotated[
    Annotated[str, Field(min_length=1), Tag("<command>")]
    | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1), Tag("<steps>")],
    Discriminator(_kind_of_run, custom_error_type="run", custom_error_message="run is a command, or a list of commands"),
]
Axis: TypeAlias = Annotated[
    Annotated[list[JsonValue], Tag("<list>")] | Annotated[str, Tag("<expression>")],
    Discriminator(
        _kind_of_axis,
        custom_error_type="axis",
        custom_error_message="each name of a matrix has a list, or an expression that gives one",
    ),
]
Matrix: TypeAlias = Annotated[dict[Name, Axis], Field(min_length=1)]
Condition: TypeAlias = Annotated[
    str, BeforeValidator(_condition), WithJsonSchema({"anyOf": [{"type": "string", "minLength": 1}, {"type": "boolean"}]})
]
LimitRule: TypeAlias = Annotated[
    Annotated[Slots, Tag("<slots>")] | Annotated[Limit, Tag("<limit>")],
    Discriminator(
        _kind_of_limit, custom_error_type="limit", custom_error_message="a limit is a whole number of slots, or {slots, scope}"
    ),
]
Taken: TypeAlias = Annotated[
    Annotated[list[Name], Tag("<names>")] | Annotated[dict[Name, Slots], Tag("<counts>")],
    Discriminator(
        _kind_of_taken,
        custom_error_type="limits",
        custom_error_message="limits of a task are a list of names, or a map from name to how many slots it takes",
    ),
]
ScheduleRule: TypeAlias = Annotated[
    Annotated[str, Field(min_length=1), Tag("<cron>")] | Annotated[Schedule, Tag("<rule>")],
    Discriminator(
        _kind_of_schedule,
        custom_error_type="schedule",
        custom_error_message="schedule is the text of a crontab's five fields, or {cron, timezone, jitter, catchup}",
    ),
]
ParamRule: TypeAlias = Annotated[
    Annotated[Param, Tag("<declaration>")] | Annotated[str | int | float | bool | None | list[JsonValue], Tag("<value>")],
    Discriminator(_kind_of_param),
]


class Defaults(Model):
    """Task keys that hold for every task that does not say otherwise (`env` is merged key by key)."""

    mode: Mode | None = Field(None, description="A pool of its own in this mode.")
    workers: Workers | None = Field(None, description="Worker count of a pool of its own.")
    pool: Name | None = Field(None, description="A pool named under `pools`.")
    env: Env = Field(default_factory=dict, description="Environment variables; values are taken as written.")
    cwd: str | None = Field(None, description="Working directory, relative to the job file's folder (which is the default).")
    timeout: Timeout | None = Field(None, description="Longest time of one attempt.")
    stop: Stop = Field(Stop.model_construct(), description="How an attempt is stopped.")
    retry: RetryRule = Field(0, description="Re-runs after a failure: a number, or how and when.")
    continue_on_error: bool = Field(False, description="A failure is shown, but dependents run and the run stays green.")
    max_parallel: Annotated[int, Field(ge=1, le=MOST_WORKERS)] | None = Field(
        None, description="Most instances of this task at once."
    )
    limits: Taken = Field(
        default_factory=list,
        description="Slots of the job's limits that each instance takes while it runs: names, or name: count.",
    )
    resources: Resources | None = Field(None, description="Limits of memory, CPUs and priority: commands and mode process.")
    at_most_once: bool = Field(
        False, description="Never run again after a crash in the middle of it: `unknown` until `resume --rerun TASK`."
    )


class Task(Defaults):
    """A named unit of work: a Python callable (`target`) or a command (`run`, `argv`)."""

    ACTIONS: ClassVar[tuple[str, ...]] = kinds.ACTIONS

    description: str = Field("", description="Shown in lists and reports.")
    target: Target | None = Field(
        None, description="A Python callable as module:function, looked up beside the job file first, then on the path."
    )
    args: list[JsonValue] = Field(default_factory=list, description="Positional arguments of the target.")
    kwargs: dict[str, JsonValue] = Field(default_factory=dict, description="Keyword arguments of the target.")
    run: RunLines | None = Field(
        None,
        description="A shell command, or a list of them run in order; values of ${{ }} are shell-quoted. "
        "Run without a shell where it has no shell syntax.",
    )
    argv: Annotated[list[Argument], Field(min_length=1)] | None = Field(
        None, description="A command and its arguments, no shell."
    )
    secrets: list[Name] = Field(default_factory=list, description="Secrets of the job that this task gets, and no other.")
    needs: list[Name] = Field(default_factory=list, description="Tasks that must have succeeded before this one starts.")
    condition: Condition | None = Field(
        None,
        alias="if",
        description="Skipped where it is false. Without success(), failure() or always() it asks for success() too.",
    )
    foreach: Foreach | None = Field(
        None, description="One instance for each item: a list, {range}, {glob}, {lines}, or an expression that gives a list."
    )
    matrix: Matrix | None = Field(
        None,
        description="One instance for each combination of the values under its names; `include` adds some, `exclude` drops some.",
    )
    cache: Cache | None = Field(None, description="Skipped while nothing that it depends on has changed.")

    @model_validator(mode="after")
    def _is_one_action(self) -> Task:
        if (self.target is None) + (self.run is None) + (self.argv is None) != 2:
            given = [key for key in self.ACTIONS if getattr(self, key) is not None]
            said = " and ".join(given) if given else "none of them"
            raise PydanticCustomError("action", f"a task has exactly one of target, run and argv; this one has {said}")
        if self.target is None and (self.args or self.kwargs):
            said = "args and kwargs belong to a target; write the arguments of a command into run or argv"
            raise PydanticCustomError("action", said)
        return self

    @property
    def takes(self) -> dict[str, int]:
        """How many slots of which limits each instance takes."""
        return kinds.takes(self)

    @property
    def has_instances(self) -> bool:
        """It is a fan-out: what it comes to are the results of its instances."""
        return kinds.has_instances(self)

    @property
    def retries(self) -> Retry:
        """The retry rule, also where the job file gives only a number."""
        return kinds.retries(self.retry, Retry)


class Job(Model):
    """One job file."""

    name: JobName = Field("", validate_default=False, description="Name of the job; the file's stem where it is not given.")
    description: str = Field("", description="Shown in lists and reports.")
    include: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = Field(
        None, description="Files with defaults, env, params, pools, limits and tasks that this one shares with others."
    )
    schedule: ScheduleRule | None = Field(
        None, description="When it should run: five fields as in a crontab, or {cron, timezone, jitter, catchup}."
    )
    mode: Mode = Field("thread_pool", description="Default mode of the tasks.")
    workers: Workers = Field(
        "auto", description='Workers of the default pool: a number, "auto" or a share of the CPUs like "50%".'
    )
    pools: dict[Name, Pool] = Field(default_factory=dict, description="Pools that tasks share by name.")
    params: dict[Name, ParamRule] = Field(
        {}, description="Parameters: a value, or {type, default, required, choices, description}. Set with --set name=value."
    )
    env: Env = Field(default_factory=dict, description="Environment variables of every task; values are taken as written.")
    env_file: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="A file of NAME=value lines for every task, relative to the job file's folder. `env` stands above it."
    )
    secrets: dict[Name, Secret] = Field(default_factory=dict, description="Secrets, which reach only the tasks that list them.")
    limits: dict[Name, LimitRule] = Field(
        default_factory=dict, description="Slots that tasks take while they run: a number, or {slots, scope: run or host}."
    )
    concurrency: Concurrency = Field(Concurrency.model_construct(), description="What happens when it is running already.")
    defaults: Defaults = Field(
        Defaults.model_construct(), description="Task keys that hold for every task that does not say otherwise."
    )
    tasks: Annotated[dict[Name, Task], Field(min_length=1)] = Field(description="The tasks, by name.")
    finals: dict[Name, Task] = Field(
        default_factory=dict, alias="finally", description="Tasks that start when all others have ended, whatever the outcome."
    )
    timeout: Timeout | None = Field(None, description="Longest time of the whole run.")
    fail_fast: bool = Field(False, description="After a failure nothing new starts, and what runs is stopped.")

    def pool_of(self, name: str) -> str:
        """Name of the pool that a task runs in: the one it names, its own where it has a mode or workers, else `default`."""
        return kinds.pool_of(self, name)

    def used_pools(self) -> dict[str, Pool]:
        """Every pool that some task runs in, with mode and workers decided, in the order of first use."""
        return kinds.used_pools(self, Pool)


def keys(model: type[BaseModel]) -> list[str]:
    """The keys that a model has in a job file."""
    return [field.alias or name for name, field in model.model_fields.items()]


_MODES: dict[str, str] = {
    "serial": "One at a time, in the order of the file",
    "thread": "A new thread for each attempt: few, long tasks that wait",
    "process": "A new process for each attempt: tasks that compute and want a clean one",
    "thread_pool": "Threads that are used again: many tasks that wait, and commands",
    "process_pool": "Processes that are used again: many tasks that compute",
}
_CHANGES = (
    ("include", "Combinations to add, or values to add to those that they fit."),
    ("exclude", "Combinations to drop: all that have these values."),
)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the job file, for editors."""
    schema = _for_editors(Job.model_json_schema())
    for name, keys in (("Task", Task.ACTIONS), ("Secret", Secret.SOURCES)):
        given = {"not": {"type": "null"}}
        schema["$defs"][name]["oneOf"] = [{"required": [key], "properties": {key: given}} for key in keys]
    rows = {"type": ["array", "string"], "items": {"type": "object", "minProperties": 1}}
    schema["$defs"]["Task"]["properties"]["matrix"]["properties"] = {key: {"description": says, **rows} for key, says in _CHANGES}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "jobrunner job file"}


def _for_editors(schema: Any) -> Any:
    """The schema closed to names that do not fit, and without what makes a hover hard to read.

    That is pydantic's titles and empty defaults, and unions: an editor tells all their members where one list of types would do.
    """
    if isinstance(schema, list):
        return [_for_editors(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    names = schema.get("properties")
    kept = {key: _for_editors(part) for key, part in schema.items() if not _is_noise(key, part)}
    if isinstance(names, dict):
        kept["properties"] = {name: _for_editors(part) for name, part in names.items()}
    if "patternProperties" in kept:
        kept["additionalProperties"] = False
    if set(kept.get("enum", ())) == set(get_args(Mode)):
        kept["enumDescriptions"] = [_MODES[mode] for mode in kept["enum"]]
    return _united(kept) if "anyOf" in kept or "oneOf" in kept else kept


def _united(schema: dict[str, Any]) -> dict[str, Any]:
    """A union as one list of types; members that are more than a type stay, and say in a hover what the key is for."""
    members = [
        each
        for key in ("anyOf", "oneOf")
        for member in schema.pop(key, ())
        for each in (member["oneOf"] if member.keys() == {"oneOf"} else [member])
    ]
    plain = [member for member in members if "type" in member and "enum" not in member]
    if not plain:
        return {**schema, "oneOf": members}
    types = list(dict.fromkeys(kind for member in plain for kind in _listed(member["type"])))
    one = {key: part for member in plain for key, part in member.items()} | {"type": types}
    others = [
        {**member, "description": schema["description"]} if "$ref" in member and "description" in schema else member
        for member in members
        if member not in plain
    ]
    if not others:
        return {**one, **schema}
    one["type"] = types if len(types) > 1 else types[0]
    return {**schema, "oneOf": [*others, one]}


def _listed(kind: str | list[str]) -> list[str]:
    return kind if isinstance(kind, list) else [kind]


def _is_noise(key: str, value: object) -> bool:
    return (key == "title" and isinstance(value, str)) or (
        key == "default" and (value is None or value in ("", {}, []) or isinstance(value, dict))
    )
