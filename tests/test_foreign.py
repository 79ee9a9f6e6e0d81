"""Keys of other tools: each is answered at the level where people write it, with our key and their value, or with the reason."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from jobrunner import spec
from jobrunner.errors import JobFileError
from jobrunner.jobfile import foreign, parse, vocabulary

# Level · key and value as they are written · words of the answer.
JOB = [
    ("jobs", "{a: {run: x}}", "Write 'tasks'."),
    ("jobs", "4", "Write workers: 4."),
    ("on", "{schedule: [{cron: 30 5 * * 1}]}", 'Write schedule: "30 5 * * 1".'),
    ("on", "push", "jobrunner waits for no events"),
    ("on", "[push, pull_request]", "jobrunner waits for no events"),
    ("permissions", "read-all", "leave it out"),
    ("run-name", "x", "Write 'description'."),
    ("timeout-minutes", "5", "Write timeout: 5m."),
    ("strategy", "{matrix: {a: [1]}}", "matrix is a key of a task: write it there."),
    ("fail-fast", "true", "Write 'fail_fast'."),
    ("version", "3", "Leave it out: a job file has no version."),
    ("includes", "{docs: ./docs/Taskfile.yml}", "Write include: [./docs/Taskfile.yml]."),
    ("includes", "{docs: {taskfile: docs.yml, dir: x}}", "Write include: [docs.yml]."),
    ("vars", "{A: 1}", "Write 'params'."),
    ("dotenv", "[.env]", "Write env_file: .env."),
    ("dotenv", ".env", "Write 'env_file'."),
    ("dotenv", "[.env, .env.local]", "Write env_file: path, one file."),
    ("method", "checksum", "Write cache: {inputs: […], outputs: […]}"),
    ("set", "[e]", "for bash write argv: [bash, -euo, pipefail, -c, …]"),
    ("shopt", "[globstar]", "for bash write argv: [bash, -euo, pipefail, -c, …]"),
    ("silent", "true", "leave it out"),
    ("output", "prefixed", "leave it out"),
    ("interval", "500ms", "jobrunner watches no files"),
    ("run", "once", "Every task runs once in a run: leave it out."),
    ("steps", "[{name: a, command: x}]", "Write 'tasks'."),
    ("handlerOn", "{failure: {command: x}}", "Write finally: {on_failure: {if: failure(), run: …}}."),
    (
        "handler_on",
        "{success: {command: x}, exit: {command: y}}",
        "Write finally: {on_success: {if: success(), run: …}, on_exit: {if: always(), run: …}}.",
    ),
    ("retry_policy", "{limit: 2, interval_sec: 60}", "Write defaults: {retry: {max: 2, delay: 60s}}."),
    ("maxActiveRuns", "1", "A job never runs twice at the same time: leave it out."),
    ("max_active_runs", "3", "concurrency: {on_conflict: wait}"),
    ("maxActiveSteps", "4", "Write workers: 4."),
    ("max_active_steps", "4", "Write workers: 4."),
    ("mailOn", "{failure: true}", "jobrunner sends no mail: write finally:"),
    ("smtp", "{host: x}", "jobrunner sends no mail"),
    ("logDir", "/var/log", "JOBRUNNER_STATE"),
    ("histRetentionDays", "30", "Runs are kept"),
    ("timeoutSec", "60", "Write timeout: 60s."),
    ("skipIfSuccessful", "true", "Write cache:"),
    ("maxCleanUpTimeSec", "30", "Write defaults: {stop: {grace: 30s}}."),
    ("precondition", "x", "Write if: with an expression"),
    ("type", "chain", "mode: serial"),
    ("overlap_policy", "latest", "Write concurrency: {on_conflict: replace}."),
    ("catchup_window", "6h", "Write schedule: {cron: …, catchup: true}."),
    ("tags", "[a]", "jobrunner has no labels"),
    ("working_dir", "/srv", "Write defaults: {cwd: /srv}."),
    ("on_failure", "[{name: x}]", "Write finally: {on_failure: {if: failure(), run: …}} at the top of the file."),
    ("on_success", "[{name: x}]", "Write finally: {on_success: {if: success(), run: …}} at the top of the file."),
    ("context_parser", "pypyr.parser.keyvaluepairs", "Declare parameters under params"),
    ("services", "{a: {run: x}}", "Write 'tasks'."),
    ("volumes", "{a: {}}", "jobrunner starts no containers"),
    ("image", "alpine", "docker run --rm alpine"),
    ("rule", "{a: {run: x}}", "Write 'tasks'."),
    ("configfile", "x.yaml", "--params-file"),
    ("cron", "0 5 * * *", "Write 'schedule'."),
    ("timezone", "UTC", "Write schedule: {cron: …, timezone: Europe/Berlin}."),
    ("retry", "3", "Write 'retry' in a task, or under defaults for all of them."),
    ("argv", "[x]", "Write 'argv' in a task."),
    ("cmds", "[ls]", "Write 'run' in a task."),
    ("durability", "process", "--durability process"),
    ("preload", "true", "'preload' is a key of a pool: write it in one, under pools at the top of the file."),
]
TASK = [
    ("steps", "[{run: make}, {run: make test}]", "Write run: [make, make test]."),
    ("steps", "[{uses: actions/checkout@v4}]", "A task is one step"),
    ("uses", "actions/checkout@v4", "An action is no command"),
    ("with", "{a: 1}", "Write kwargs: {name: value} for a target"),
    ("runs-on", "ubuntu-latest", "leave it out"),
    ("strategy", "{matrix: {os: [a, b]}, fail-fast: false}", "Write matrix: {os: [a, b]} in the task itself."),
    ("max-parallel", "2", "Did you mean 'max_parallel'?"),
    ("fail-fast", "true", "fail_fast holds for the whole job: write it at the top of the file."),
    ("timeout-minutes", "5", "Write timeout: 5m."),
    ("timeout-minutes", "x", "Write timeout: 5m."),
    ("continue-on-error", "true", "Write 'continue_on_error'."),
    ("shell", "bash", "Write argv: [bash, -euo, pipefail, -c, …]."),
    ("working-directory", "x", "Write 'cwd'."),
    ("outputs", "{a: b}", "$JOBRUNNER_OUTPUT"),
    ("id", "x", "A task's name is its key under tasks"),
    ("name", "x", "A task's name is its key under tasks"),
    ("concurrency", "deploy", "Write limits: [deploy], and at the top of the file limits: {deploy: 1}."),
    ("cmds", "[a, b]", "Write 'run'."),
    ("cmd", "a", "Write 'run'."),
    ("deps", "[b]", "Write 'needs'."),
    ("desc", "x", "Write 'description'."),
    ("sources", "[src/**/*.go]", 'Write cache: {inputs: ["src/**/*.go"]}.'),
    ("generates", "[out/app]", "Write cache: {outputs: [out/app]}."),
    ("status", "[test -f x]", "Write cache:"),
    ("preconditions", "[{sh: x}]", "Write if: with an expression"),
    ("silent", "true", "leave it out"),
    ("dir", "x", "Write 'cwd'."),
    ("internal", "true", "leave it out"),
    ("ignore_error", "true", "Write 'continue_on_error'."),
    ("interactive", "true", "Nobody is asked anything while a job runs"),
    ("prompt", "Sure?", "Nobody is asked anything while a job runs"),
    ("vars", "{A: 1}", "Write 'env'."),
    ("task", "b", "write needs: [NAME]"),
    ("job", "other.yaml", "write run: jobrunner other.yaml, or include what both share."),
    ("defer", "rm x", "Write it as a task under finally"),
    ("platforms", "[linux]", "Write if:"),
    ("depends", "[b]", "Write 'needs'."),
    ("retryPolicy", "{limit: 3, intervalSec: 5}", "Write retry: {max: 3, delay: 5s}."),
    ("retry_policy", "{limit: 3, interval_sec: 5}", "Write retry: {max: 3, delay: 5s}."),
    ("continueOn", "{failure: true}", "Write continue_on_error: true."),
    ("continue_on", "failed", "Write continue_on_error: true."),
    ("continueOn", "{exitCode: [1]}", "tasks.NAME.exit_code"),
    ("repeatPolicy", "{repeat: true}", "There is no loop over one task"),
    ("signalOnStop", "SIGINT", "Write stop: {signal: INT}."),
    ("mailOnError", "true", "jobrunner sends no mail"),
    ("stdout", "/tmp/x", "write run: command > file 2>&1"),
    ("executor", "{type: ssh}", "write run: ssh HOST command"),
    ("script", "x.sh", "Write 'run'."),
    ("params", "a", "Parameters belong to the job"),
    ("parallel", "[a, b]", "Write foreach: [a, b]."),
    ("jobs", "2", "Write max_parallel: 2."),
    ("parallel", "{items: [a, b], max_concurrent: 2}", "Write foreach: [a, b] and max_parallel: 2."),
    ("output", "RESULT", "$JOBRUNNER_OUTPUT"),
    ("in", "{a: 1}", "Write 'kwargs'."),
    ("swallow", "true", "Write 'continue_on_error'."),
    ("skip", "true", "Write if: false."),
    ("while", "{max: 3}", "There is no loop over one task"),
    ("comment", "x", "Write 'description'."),
    ("on_failure", "x", "Write finally: {on_failure: {if: failure(), run: …}} at the top of the file."),
    ("image", "alpine:3", "docker run --rm alpine:3"),
    ("entrypoint", "/bin/x", "Write argv: [/bin/x]."),
    ("environment", "[A=1, B=x]", 'Write env: {A: "1", B: x}.'),
    ("environment", "production", "an environment to deploy to has no key here"),
    ("env_file", ".env", "env_file is a key of the job"),
    ("depends_on", "{db: {condition: service_healthy}}", "Write needs: [db]."),
    ("restart", "on-failure:5", "Write retry: 5."),
    ("restart", "always", "belongs to systemd"),
    ("deploy", "{replicas: 3}", "Write foreach: {range: 3}."),
    ("deploy", "{resources: {limits: {memory: 512m}}}", "Write resources: {memory: 512MiB}."),
    ("mem_limit", "512m", "Write resources: {memory: 512MiB}."),
    ("mem_limit", "1.5G", "Write resources: {memory: 1.5GiB}."),
    ("memory", "2Gi", "Write resources: {memory: 2GiB}."),
    ("memory", "3GB", "Write resources: {memory: 3GB}."),
    ("memory", "3 GiB", 'Write resources: {memory: "3 GiB"}.'),
    ("cpus", "'1.5'", "Write resources: {cpus: 2}."),
    ("volumes", "[a:b]", "jobrunner starts no containers"),
    ("ports", "[80]", "jobrunner starts no containers"),
    ("healthcheck", "{test: x}", "A health check is a task of its own"),
    ("stop_signal", "SIGUSR1", "Write stop: {signal: USR1}."),
    ("stop_grace_period", "1m30s", "Write stop: {grace: 1m30s}."),
    ("profiles", "[a]", "--only"),
    ("scale", "3", "Write foreach: {range: 3}."),
    ("extends", "x", "Write the keys that tasks share under defaults"),
    ("file_dep", "[a.c]", "Write cache: {inputs: [a.c]}."),
    ("targets", "[a.o]", "Write cache: {outputs: [a.o]}."),
    ("task_dep", "[b]", "Write 'needs'."),
    ("actions", "[x]", "Write 'run'."),
    ("uptodate", "[true]", "Write cache:"),
    ("clean", "true", "jobrunner removes no files of yours"),
    ("input", "a.csv", "Write cache: {inputs: [a.csv]}."),
    ("threads", "4", "Write limits: {cpu: 4}, and at the top of the file limits: {cpu: 8}."),
    ("benchmark", "x.txt", "task.finished"),
    ("priority", "5", "Ready tasks start in the order of the file"),
    ("chunksize", "10", "let one call do many items"),
    ("batch", "10", "let one call do many items"),
    ("preload", "true", "'preload' is a key of a pool: write it in one, under pools at the top of the file."),
    ("start_method", "spawn", "'start_method' is a key of a pool"),
    ("max_tasks_per_worker", "3", "'max_tasks_per_worker' is a key of a pool"),
    ("log", "x.log", "write run: command > file 2>&1"),
    ("when", "x", "Write 'if'."),
    ("trigger_rule", "all_done", "Write if: always(), or failure()."),
    ("bash_command", "x", "Write 'run'."),
    ("execution_timeout", "5m", "Write 'timeout'."),
    ("schedule", "0 5 * * *", "'schedule' is a key of the job: write it at the top of the file."),
    ("pools", "{a: {}}", "Did you mean 'pool'?"),
]
DEEPER = [
    ("retry: {limit: 3}", "Write max: 3."),
    ("retry: {max: 3, intervalSec: 5}", "Write delay: 5s."),
    ("retry: {max: 3, sleep: 5}", "Write delay: 5s."),
    ("retry: {max: 3, sleepMax: 60}", "Write max_delay: 60s."),
    ("retry: {max: 3, retryOn: [ValueError]}", "Write 'exceptions'."),
    ("retry: {max: 3, stopOn: [ValueError]}", "Name what is tried again, not what is not"),
    ("retry: {max: 3, exit_code: 75}", "Write exit_codes: [75]."),
    ("retry: {max: 3, jrc: 0.5}", "Write 'jitter'."),
    ("resources: {mem_mb: 512}", "Write memory: 512MB."),
    ("resources: {limits: {}}", "without a level between"),
    ("stop: {timeout: 5s}", "Write 'grace'."),
    ("cache: {paths: [x]}", "Write 'inputs'."),
    ("cache: {key: x}", "leave it out"),
]


def hint(text: str) -> str:
    with pytest.raises(JobFileError) as caught:
        parse(text.encode(), "job.yaml")
    found = [problem.hint for problem in caught.value.problems if "unknown key" in problem.message]
    assert len(found) == 1, caught.value
    return found[0]


def test_there_are_more_than_a_hundred_rows() -> None:
    assert len(JOB) + len(TASK) + len(DEEPER) > 100


@pytest.mark.parametrize(("key", "value", "words"), JOB, ids=[f"{key}: {value}" for key, value, _ in JOB])
def test_a_foreign_key_of_the_job_is_answered(key: str, value: str, words: str) -> None:
    _is_answered(hint(f"{key}: {value}\ntasks: {{a: {{run: x}}}}\n"), words)


@pytest.mark.parametrize(("key", "value", "words"), TASK, ids=[f"{key}: {value}" for key, value, _ in TASK])
def test_a_foreign_key_of_a_task_is_answered(key: str, value: str, words: str) -> None:
    _is_answered(hint(f"tasks:\n  b: {{run: y}}\n  a:\n    target: m:f\n    {key}: {value}\n"), words)


@pytest.mark.parametrize(("key", "value", "words"), TASK, ids=[f"{key}: {value}" for key, value, _ in TASK])
def test_a_final_task_is_answered_as_any_other(key: str, value: str, words: str) -> None:
    _is_answered(hint(f"tasks: {{b: {{run: y}}}}\nfinally:\n  a:\n    target: m:f\n    {key}: {value}\n"), words)


@pytest.mark.parametrize(("text", "words"), DEEPER, ids=[text for text, _ in DEEPER])
def test_a_foreign_key_of_a_map_within_a_task_is_answered(text: str, words: str) -> None:
    _is_answered(hint(f"tasks:\n  a:\n    run: x\n    {text}\n"), words)


def _is_answered(said: str, words: str) -> None:
    assert said == words if words.endswith(".") and words.startswith("Write") else words in said


@pytest.mark.parametrize("model", list(vocabulary.WORDS), ids=lambda model: model.__name__)
def test_no_word_of_another_tool_is_a_key_of_ours_at_that_level(model: type[spec.Model]) -> None:
    assert not set(spec.keys(model)) & set(vocabulary.WORDS[model])


@pytest.mark.parametrize("model", list(vocabulary.WORDS), ids=lambda model: model.__name__)
@pytest.mark.parametrize("value", [None, True, 3, 2.5, "text", [], ["a", 1, None], {}, {"a": [1]}, [[[]]], 10**30], ids=repr)
def test_every_word_is_answered_whatever_its_value_is(model: type[spec.Model], value: object) -> None:
    for name in (*vocabulary.WORDS[model], *vocabulary.WORDS_ANYWHERE):
        for candidate in vocabulary.candidates(model, name):
            found = candidate(value)
            assert found is None or len(str(found)) < 400
            assert found is None or bool(found.note) != bool(found.key)


@pytest.mark.parametrize("model", list(vocabulary.WORDS), ids=lambda model: model.__name__)
def test_an_answer_names_a_key_that_there_is(model: type[spec.Model]) -> None:
    models: list[type[BaseModel]] = [*vocabulary.WORDS, spec.Glob]
    keys = {key for each in models for key in spec.keys(each)}
    for name in vocabulary.WORDS[model]:
        for candidate in vocabulary.candidates(model, name):
            found = candidate("x")
            assert found is None or found.note or found.key in keys


@pytest.mark.parametrize(
    ("word", "is_near"), [("nedes", True), ("need", True), ("neeeds", True), ("neads", True), ("nds", False), ("deens", False)]
)
def test_a_slip_is_one_letter_more_less_other_or_swapped(word: str, is_near: bool) -> None:
    assert foreign.is_slip(word, "needs") is is_near
