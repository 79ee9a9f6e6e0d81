"""What is written here for one key of another tool, from that key's value: the candidates that vocabulary gives its words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeAlias

from jobrunner import spec
from jobrunner.jobfile.cures import flow
from jobrunner.structs import struct


@struct
class Answer:
    """What to write for a key of another tool: `key` of ours, or where there is none a `note` that says what to do instead.

    `text` is the key with its value; without one the value stands as it was written. `is_same`: it means exactly the same.
    """

    key: str = ""
    text: str = ""
    note: str = ""
    is_same: bool = False

    def __str__(self) -> str:
        return self.note or (f"Write {self.text}." if self.text else f"Write {self.key!r}.")


Candidate: TypeAlias = Callable[[object], Answer | None]
"""From the value that was written to the answer; None where the value is not what that tool has there."""


def plain(key: str) -> str:
    """The key in small letters with underscores: `runs-on`, `runsOn` and `runs_on` are one."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key[:100]).lower().replace("-", "_")


# --- any value -----------------------------------------------------------------------------------------------------------------


def same(key: str) -> tuple[Candidate, ...]:
    return (lambda _value: Answer(key=key, is_same=True),)


def like(key: str) -> tuple[Candidate, ...]:
    return (lambda _value: Answer(key=key),)


def note(text: str) -> tuple[Candidate, ...]:
    return (lambda _value: Answer(note=text),)


def number(key: str, unit: str = "", *, less: int = 0, example: str = "") -> Candidate:
    """A number that is written with our key; `example` stands for what is no number."""

    def spell(value: object) -> Answer:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return Answer(key=key, text=f"{key}: {max(0, value - less)}{unit}", is_same=True)
        return Answer(key=key, text=f"{key}: {example}" if example else "")

    return spell


def within(key: str, inner: str, example: str) -> tuple[Candidate, ...]:
    """A key whose value goes into a map of ours."""
    return (lambda value: Answer(key=key, text=f"{key}: {{{inner}: {flow_or(value, example)}}}"),)


def listed(key: str, inner: str) -> tuple[Candidate, ...]:
    """The same, where that map holds a list."""
    return (lambda value: Answer(key=key, text=f"{key}: {{{inner}: {flow_or(as_list(value), '[path]')}}}"),)


def text(key: str, written: str) -> tuple[Candidate, ...]:
    return (lambda _value: Answer(key=key, text=written),)


def as_list(value: object) -> list[object]:
    """The texts of a list, what stands alone as a list of one, the names of a map."""
    if isinstance(value, (list, dict)):
        return [each for each in value if isinstance(each, str)]
    return [] if value is None else [value]


def flow_or(value: object, example: str) -> str:
    return (flow(value) if value not in (None, "", [], {}) else "") or example


# --- candidates that look at the value ---------------------------------------------------------------------------------------


def command(value: object) -> Answer:
    return Answer(key="argv" if isinstance(value, list) else "run", is_same=True)


def shell(value: object) -> Answer:
    """`shell: bash` names the shell of other tools; `shell: ls -l` is a command."""
    name = value.rpartition("/")[2] if isinstance(value, str) else ""
    if name not in {"bash", "sh", "zsh", "dash", "ksh"}:
        return command(value)
    strict = "-euo, pipefail" if name in {"bash", "zsh", "ksh"} else "-eu"
    return Answer(key="argv", text=f"argv: [{name}, {strict}, -c, …]")


def jobs(value: object) -> Answer | None:
    return Answer(key="workers", text=f"workers: {value}", is_same=True) if isinstance(value, int) else None


def needs(value: object) -> Answer:
    """Compose has a map from what is needed to a condition."""
    if isinstance(value, dict):
        return Answer(key="needs", text=f"needs: {flow_or(as_list(value), '[…]')}")
    return Answer(key="needs", is_same=True)


def parallel(value: object) -> Answer | None:
    items = value.get("items") if isinstance(value, dict) else value
    if not isinstance(items, list):
        return None
    most = value.get("max_concurrent", value.get("maxConcurrent")) if isinstance(value, dict) else None
    return Answer(key="foreach", text=f"foreach: {flow_or(items, '[…]')}" + (f" and max_parallel: {most}" if most else ""))


def strategy(value: object) -> Answer:
    matrix = value.get("matrix") if isinstance(value, dict) else None
    return Answer(key="matrix", text=f"matrix: {flow_or(matrix, '{name: [value, …]}')} in the task itself")


def steps(value: object) -> Answer:
    """Steps of a task: those that are all commands are one list."""
    rows = value if isinstance(value, list) else []
    lines = [row.get("run") if isinstance(row, dict) else row for row in rows]
    if rows and all(isinstance(line, str) for line in lines):
        return Answer(key="run", text=f"run: {flow_or(lines, '[command, …]')}")
    return Answer(note="A task is one step: write run: [command, …] for several commands, or a task for each, with needs.")


def on(value: object) -> Answer:
    crons = value.get("schedule") if isinstance(value, dict) else None
    first = crons[0].get("cron") if isinstance(crons, list) and crons and isinstance(crons[0], dict) else None
    if isinstance(first, str):
        return Answer(key="schedule", text=f"schedule: {flow(first)}")
    return Answer(note="jobrunner waits for no events: write schedule: for a time, or start the job where the event is seen.")


def retry_rule(value: object) -> Answer:
    """A retry policy with words of its own: limit and interval_sec, max_attempts and delay."""
    rule = {plain(str(key)): part for key, part in value.items()} if isinstance(value, dict) else {}
    if isinstance(value, int) and not isinstance(value, bool):
        return Answer(key="retry", text=f"retry: {value}", is_same=True)
    most = rule.get("limit", rule.get("max", rule.get("retries", 3)))
    wait = rule.get("interval_sec", rule.get("delay", rule.get("sleep", 5)))
    delay = f"{wait}s" if isinstance(wait, (int, float)) else str(wait)
    return Answer(key="retry", text=f"retry: {{max: {flow(most)}, delay: {flow(delay)}}}")


def default_retry(value: object) -> Answer:
    return Answer(key="defaults", text=f"defaults: {{{retry_rule(value).text}}}")


def continue_on(value: object) -> Answer:
    goes_on = value in {"failed", "failure"} if isinstance(value, str) else isinstance(value, dict) and value.get("failure")
    if goes_on:
        return Answer(key="continue_on_error", text="continue_on_error: true")
    note = "Write continue_on_error: true, or test ${{ tasks.NAME.exit_code }} in the if: of what needs it."
    return Answer(note=note)


def handlers(value: object) -> Answer:
    whens = {"success": "success()", "failure": "failure()", "cancel": "failure()", "abort": "failure()", "exit": "always()"}
    rows = [f"on_{name}: {{if: {whens[name]}, run: …}}" for name in (value if isinstance(value, dict) else {}) if name in whens]
    return Answer(key="finally", text=f"finally: {{{', '.join(rows) or 'on_exit: {run: …}'}}}")


def ending(status: str) -> tuple[Candidate, ...]:
    """`on_failure` and its like: what runs at the end, in which case."""
    return text("finally", f"finally: {{{'on_' + status}: {{if: {status}(), run: …}}}} at the top of the file")


def mail(_value: object) -> Answer:
    return Answer(note='jobrunner sends no mail: write finally: {mail: {if: failure(), run: "mail -s failed you@example.org"}}.')


def restart(value: object) -> Answer:
    policy, _, most = str(value).partition(":")
    if policy == "on-failure":
        return Answer(key="retry", text=f"retry: {most if most.isdecimal() else 3}")
    return Answer(note="A task runs once: retry: 3 runs it again after a failure; a service that never ends belongs to systemd.")


def image(value: object) -> Answer:
    image = value if isinstance(value, str) and re.fullmatch(r"[\w./:@-]{1,60}", value, re.ASCII) else "IMAGE"
    return Answer(note=f"jobrunner starts no containers: write run: docker run --rm {image} COMMAND.")


def another_job(value: object) -> Answer:
    file = value if isinstance(value, str) and re.fullmatch(r"[\w./-]{1,60}\.ya?ml", value, re.ASCII) else "other.yaml"
    return Answer(note=f"A job is no action of another one: write run: jobrunner {file}, or include what both share.")


def deploy(value: object) -> Answer:
    limits = value.get("resources", {}) if isinstance(value, dict) else {}
    limits = limits.get("limits", {}) if isinstance(limits, dict) else {}
    if isinstance(limits, dict) and limits:
        memory = limits.get("memory")
        return Answer(key="resources", text=f"resources: {{memory: {_size(memory) if memory else '512MiB'}}}")
    replicas = value.get("replicas") if isinstance(value, dict) else None
    if isinstance(replicas, int):
        return Answer(key="foreach", text=f"foreach: {{range: {replicas}}}")
    return Answer(
        note="jobrunner deploys nothing: write resources: {memory: 512MiB, cpus: 1}, or foreach: {range: N} for replicas."
    )


def _size(value: object) -> str:
    """What is a size here stays what it is. Compose, systemd, Slurm write 512m and 2G for what is 512MiB and 2GiB here."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt])i?", str(value).lower())
    return f"{match[1]}{match[2].upper()}iB" if match else flow(value)


def memory(value: object) -> Answer:
    return Answer(key="resources", text=f"resources: {{memory: {_size(value) if value else '512MiB'}}}")


def cpus(value: object) -> Answer:
    count = value
    if isinstance(value, str) and re.fullmatch(r"\d{1,4}(\.\d+)?", value, re.ASCII):
        count = float(value)
    whole = max(1, round(count)) if isinstance(count, (int, float)) and abs(count) < 1e4 else 2
    return Answer(key="resources", text=f"resources: {{cpus: {whole}}}")


def signal(value: object) -> Answer:
    name = str(value).upper().removeprefix("SIG") if isinstance(value, str) else "INT"
    return Answer(key="stop", text=f"stop: {{signal: {name if name.isalnum() else 'INT'}}}")


def environment(value: object) -> Answer | None:
    """Compose, dagu: a list of NAME=value."""
    if isinstance(value, dict) or value is None:
        return Answer(key="env", is_same=True)
    if not isinstance(value, list):
        return None
    pairs: dict[str, object] = {}
    for row in value:
        pairs |= row if isinstance(row, dict) else dict([str(row).split("=", 1)]) if "=" in str(row) else {}
    return Answer(key="env", text=f"env: {flow_or(pairs, '{NAME: value}')}")


def group(value: object) -> Answer | None:
    """`concurrency: group` of a job of GitHub's, which is a task here."""
    group = value.get("group") if isinstance(value, dict) else value
    if not isinstance(group, str):
        return None
    name = group if re.fullmatch(r"[A-Za-z_][\w-]{0,63}", group, re.ASCII) else "NAME"
    return Answer(key="limits", text=f"limits: [{name}], and at the top of the file limits: {{{name}: 1}}")


def active_runs(value: object) -> Answer:
    if value == 1:
        return Answer(note="A job never runs twice at the same time: leave it out.")
    return Answer(note="A job never runs twice at the same time; concurrency: {on_conflict: wait} lets a second one wait.")


def overlap(value: object) -> Answer:
    ours = {"all": "wait", "allow": "wait", "latest": "replace", "forbid": "fail"}.get(str(value).lower(), "skip")
    return Answer(key="concurrency", text=f"concurrency: {{on_conflict: {ours}}}")


def conflict(value: object) -> Answer:
    return Answer(
        key="on_conflict", text=f"on_conflict: {'wait' if value is False else 'replace'}", is_same=isinstance(value, bool)
    )


def dotenv(value: object) -> Answer:
    files = as_list(value)
    if isinstance(value, str):
        return Answer(key="env_file", is_same=True)
    return Answer(key="env_file", text=f"env_file: {flow(files[0])}" if len(files) == 1 else "env_file: path, one file")


def includes(value: object) -> Answer:
    """go-task: a map from a namespace to a file, or to a map that has it."""
    rows = list(value.values()) if isinstance(value, dict) else as_list(value)
    files = [row.get("taskfile") if isinstance(row, dict) else row for row in rows]
    return Answer(key="include", text=f"include: {flow_or([each for each in files if isinstance(each, str)], '[path]')}")


def skip(value: object) -> Answer:
    if isinstance(value, bool):
        return Answer(key="if", text=f"if: {'false' if value else 'true'}")
    return Answer(key="if", text="if: not (…)")


def kept(key: str) -> Candidate:
    def spell(value: object) -> Answer:
        if "keep" in spec.keys(spec.Job):
            return Answer(key="keep", text=f"keep: {{{key}: {flow_or(value, '30')}}}")
        return Answer(note="Runs are kept until somebody removes their folders from the state directory: leave it out.")

    return spell


def branching(value: object) -> Answer:
    """dagu's and Airflow's way to say that steps run one after the other."""
    if value == "chain":
        return Answer(
            note="Tasks run at once unless one needs the other: write needs in each, or mode: serial for the whole job."
        )
    return Answer(note="Tasks run at once unless one needs the other: leave it out.")
