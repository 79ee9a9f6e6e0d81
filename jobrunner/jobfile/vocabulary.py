"""Keys of other tools by the level where people write them, with what says the same here: GitHub Actions, go-task, dagu, pypyr,
compose, doit, snakemake, make, just, Airflow, GitLab CI, Ansible. Nothing here looks at more than one key and its value.

key ─WORDS[level], WORDS_ANYWHERE─→ candidates ─first whose key the level has─→ Answer
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from pydantic import BaseModel

from jobrunner import spec
from jobrunner.jobfile import answers
from jobrunner.jobfile.answers import Answer, Candidate

Words: TypeAlias = dict[str, tuple[Candidate, ...]]


def candidates(model: type[BaseModel], name: str) -> Iterable[Candidate]:
    """What a key may stand for in a model, best first. `name` is as `plain` has it."""
    return (*WORDS.get(spec.Task if model is spec.Defaults else model, {}).get(name, ()), *WORDS_ANYWHERE.get(name, ()))


# --- the words ---------------------------------------------------------------------------------------------------------------


def _words(*rows: tuple[str, tuple[Candidate, ...]]) -> Words:
    """Rows of names, blanks between, and what they all stand for."""
    return {name: found for names, found in rows for name in names.split()}


_NO_CONTAINERS: Final = answers.note("jobrunner starts no containers: write it as an option of docker run, in run.")
_NO_LOGIC: Final = answers.note("jobrunner runs on this machine, as the user who starts it: leave it out.")
_LEAVE_OUT_OUTPUT: Final = answers.note(
    "Output is shown line by line with the task's name, and kept in the run's folder: leave it out."
)
_NO_INPUT: Final = answers.note(
    "Nobody is asked anything while a job runs: declare a parameter under params, and give it with --set."
)
_NO_WATCHING: Final = answers.note("jobrunner watches no files: start the job from a systemd path unit, or write a schedule.")
_STRICT_SHELL: Final = answers.note(
    "A text with several commands runs in sh -e; for bash write argv: [bash, -euo, pipefail, -c, …]."
)
_TEST_FIRST: Final = answers.note("Write if: with an expression, or a task that tests it and that this one needs.")
_FRESH: Final = answers.note("Write cache: {inputs: […], outputs: […]}: the task is skipped while their contents stay the same.")
_NAMED_ABOVE: Final = answers.note("A task's name is its key under tasks; a text for people is its description.")
_OUTPUTS: Final = answers.note(
    "Write lines name=value to the file $JOBRUNNER_OUTPUT in the command; others read ${{ tasks.NAME.outputs.name }}."
)
_TO_FILE: Final = answers.note("Output is kept in the run's folder; for a file of your own write run: command > file 2>&1.")
_NO_SERVER: Final = answers.note("jobrunner is no server and keeps no queue: leave it out.")
_TIMES: Final = answers.note("The log has the duration, CPU time and memory of each task in task.finished: leave it out.")
_ONLY_SKIP: Final = answers.note(
    "Write nothing here: choose tasks with --only, --from, --until and --skip when you start the job."
)
_TAGS: Final = answers.note("jobrunner has no labels: leave it out, or write it into description.")
_ONCE: Final = answers.note("Every task runs once in a run: leave it out.")
_RUN_STORE: Final = answers.note("Logs are under the state directory: set the environment variable JOBRUNNER_STATE to choose it.")
_CHECKOUT: Final = answers.note(
    "An action is no command: write what it does as run or target (for a checkout: run: git clone URL)."
)
_SLOTS: Final = (
    lambda value: Answer(
        key="limits", text=f"limits: {{cpu: {answers.flow_or(value, '4')}}}, and at the top of the file limits: {{cpu: 8}}"
    ),
)
_LOOP: Final = answers.note("There is no loop over one task: retry: {max: 100, delay: 5s, backoff: 1} runs it until it succeeds.")
_SERVICES: Final = answers.note(
    "A health check is a task of its own that others need: write retry: {max: 30, delay: 1s, backoff: 1}."
)

_JOB: Final[Words] = _words(
    # GitHub Actions
    ("jobs parallel", (answers.jobs,)),
    ("on", (answers.on,)),
    ("permissions runs_on", _NO_LOGIC),
    ("run_name", answers.same("description")),
    ("strategy matrix", answers.note("matrix is a key of a task: write it there.")),
    # go-task
    ("version", answers.note("Leave it out: a job file has no version.")),
    ("includes import imports", (answers.includes,)),
    ("output silent", _LEAVE_OUT_OUTPUT),
    ("method use_gitignore", _FRESH),
    ("set shopt", _STRICT_SHELL),
    ("interval watch", _NO_WATCHING),
    ("run", _ONCE),
    # dagu
    ("handler_on handlers hooks", (answers.handlers,)),
    ("retry_policy", (answers.default_retry,)),
    ("max_active_runs", (answers.active_runs,)),
    ("max_active_steps max_active_tasks", (answers.number("workers"),)),
    ("mail_on mail_on_error error_mail info_mail wait_mail smtp notifications notify email email_on_failure", (answers.mail,)),
    ("log_dir artifacts", _RUN_STORE),
    ("hist_retention_days", (answers.kept("days"),)),
    ("hist_retention_runs", (answers.kept("runs"),)),
    ("delay_sec", answers.text("schedule", "schedule: {cron: …, jitter: 5m}, which waits by chance")),
    ("restart_wait_sec queue worker_selector run_config max_output_size", _NO_SERVER),
    ("skip_if_successful", _FRESH),
    (
        "max_clean_up_time_sec",
        (lambda value: Answer(key="defaults", text=f"defaults: {{stop: {{grace: {answers.flow_or(value, '60')}s}}}}"),),
    ),
    ("tags labels group", _TAGS),
    ("type", (answers.branching,)),
    ("overlap_policy concurrency_policy", (answers.overlap,)),
    ("catchup_window catchup", answers.text("schedule", "schedule: {cron: …, catchup: true}")),
    ("working_dir working_directory workdir cwd dir", answers.within("defaults", "cwd", "path")),
    ("shell", _STRICT_SHELL),
    ("precondition preconditions", _TEST_FIRST),
    # pypyr
    ("on_success", answers.ending("success")),
    ("on_failure on_error onerror", answers.ending("failure")),
    ("onsuccess", answers.ending("success")),
    ("on_exit after_all teardown", answers.ending("always")),
    ("onstart before_all setup", answers.note("Write a task, and needs: [it] in those that come after it.")),
    ("context_parser", answers.note("Declare parameters under params; they are given with --set name=value.")),
    # compose
    ("services", answers.like("tasks")),
    ("volumes networks configs models", _NO_CONTAINERS),
    ("profiles", _ONLY_SKIP),
    ("image container build", (answers.image,)),
    # snakemake, make, just, Airflow, GitLab, Ansible
    ("rules rule recipes targets dag", answers.like("tasks")),
    ("configfile config", answers.note("Declare parameters under params; --params-file gives them from a file.")),
    ("localrules", _NO_SERVER),
    ("cron crontab schedule_interval", answers.like("schedule")),
    ("timezone tz cron_tz", answers.text("schedule", "schedule: {cron: …, timezone: Europe/Berlin}")),
    ("default_args", answers.like("defaults")),
    ("dagrun_timeout", answers.same("timeout")),
    ("start_date end_date", answers.note("A schedule has no first and no last day: leave it out.")),
    ("hosts become", _NO_LOGIC),
    ("before_script after_script", answers.note("Write a task that the others need, or one under finally.")),
    ("durability", answers.note("How a run is recorded is said when it starts: jobrunner run FILE --durability process.")),
    (
        "keep keep_runs history",
        answers.note("Runs are kept until somebody removes their folders from the state directory: leave it out."),
    ),
)

_TASK: Final[Words] = _words(
    # GitHub Actions
    ("steps", (answers.steps,)),
    ("uses", _CHECKOUT),
    ("with", answers.note("Write kwargs: {name: value} for a target; the arguments of a command stand in run or argv.")),
    ("runs_on become become_user user userns_mode hosts delegate_to", _NO_LOGIC),
    ("strategy", (answers.strategy,)),
    ("fail_fast failfast", answers.note("fail_fast holds for the whole job: write it at the top of the file.")),
    ("id name basename label alias aliases container_name", _NAMED_ABOVE),
    ("outputs output export register", _OUTPUTS),
    ("permissions", _NO_LOGIC),
    ("concurrency", (answers.group,)),
    (
        "environment",
        (answers.environment, *answers.note("Write env: {NAME: value}; an environment to deploy to has no key here.")),
    ),
    # go-task
    ("vars", answers.like("env")),
    ("sources file_dep input", answers.listed("cache", "inputs")),
    ("generates targets produces artifacts", answers.listed("cache", "outputs")),
    ("status uptodate method use_gitignore", _FRESH),
    ("precondition preconditions only_if unless", _TEST_FIRST),
    ("set shopt", _STRICT_SHELL),
    ("silent quiet verbosity prefix log_output", _LEAVE_OUT_OUTPUT),
    ("interactive prompt tty stdin_open stdin stdin_data", _NO_INPUT),
    ("internal hidden private", answers.note("Every task of the selection runs, and none by itself: leave it out.")),
    ("watch interval", _NO_WATCHING),
    ("platforms", answers.text("if", "if: with an expression, or leave it out")),
    ("task", answers.note("A task does not call another one: write needs: [NAME].")),
    ("job subjob workflow job_file", (answers.another_job,)),
    ("defer", answers.note("Write it as a task under finally, which runs whatever happens.")),
    # dagu
    ("retry_policy", (answers.retry_rule,)),
    ("continue_on", (answers.continue_on,)),
    ("repeat_policy while until", _LOOP),
    ("signal_on_stop stop_signal kill_signal", (answers.signal,)),
    ("mail_on_error notify email email_on_failure email_on_retry", (answers.mail,)),
    ("stdout stderr log logfile log_dir logging", _TO_FILE),
    (
        "executor type",
        answers.note("A task is a target or a command; ssh, docker and the like are commands: write run: ssh HOST command."),
    ),
    (
        "call params getargs pos_arg calc_dep",
        answers.note("Parameters belong to the job: declare them under params, and write ${{ params.name }}."),
    ),
    ("approval routes worker_selector queue pool_slots", _NO_SERVER),
    ("parallel", (answers.parallel, answers.number("max_parallel"))),
    ("jobs", (answers.number("max_parallel"),)),
    ("shell_packages", _NO_LOGIC),
    # pypyr
    ("in", answers.like("kwargs")),
    ("swallow", answers.same("continue_on_error")),
    ("skip", (answers.skip,)),
    ("comment", answers.same("description")),
    ("on_success", answers.ending("success")),
    ("on_failure on_error", answers.ending("failure")),
    ("run_me", answers.like("if")),
    # compose
    ("image build container conda singularity envmodules", (answers.image,)),
    (
        "entrypoint",
        (lambda value: Answer(key="argv", text=f"argv: {answers.flow_or(answers.as_list(value), '[program, argument]')}"),),
    ),
    ("restart", (answers.restart,)),
    ("deploy", (answers.deploy,)),
    ("mem_limit mem memory memory_limit ram max_memory mem_mb", (answers.memory,)),
    ("cpus cores cpu ncpus cpu_count", (answers.cpus,)),
    ("nice niceness", answers.within("resources", "nice", "10")),
    ("volumes ports networks network_mode expose links hostname dns privileged cap_add cap_drop ulimits devices", _NO_CONTAINERS),
    ("extra_hosts secrets_from configs tmpfs security_opt shm_size pull_policy platform init ipc pid", _NO_CONTAINERS),
    ("healthcheck", (*_SERVICES,)),
    ("stop_grace_period grace kill_after stop_timeout", answers.within("stop", "grace", "30s")),
    ("profiles tags stage", _ONLY_SKIP),
    ("labels", _TAGS),
    ("scale replicas", answers.within("foreach", "range", "3")),
    ("extends", answers.note("Write the keys that tasks share under defaults; for some tasks only, a YAML anchor and <<.")),
    ("dotenv env_file", answers.note("env_file is a key of the job: write it at the top of the file.")),
    # doit, snakemake, make, just
    ("task_dep setup prereqs prerequisites", answers.same("needs")),
    ("teardown", answers.note("Write a task under finally, at the top of the file.")),
    ("actions recipe", answers.like("run")),
    ("clean", answers.note("jobrunner removes no files of yours: write a task that does, and choose it with --only.")),
    (
        "rule phony default checkpoint shadow group localrule",
        answers.note("Leave it out: every entry under tasks is a task, and runs unless it is not selected."),
    ),
    ("threads", _SLOTS),
    ("benchmark", _TIMES),
    ("message", answers.same("description")),
    (
        "priority priority_weight",
        answers.note(
            "Ready tasks start in the order of the file, and once earlier runs have told how long they take, "
            "the longest way first; resources: {nice: 10} makes it yield."
        ),
    ),
    (
        "chunksize chunk_size batch batch_size",
        answers.note(
            "Short calls are handed over several at a time as it is: leave it out, "
            "or let one call do many items, with foreach: {range: [0, 5000, 100]}."
        ),
    ),
    ("wrapper notebook", answers.note("Write the command that runs it, as run.")),
    # Airflow, GitLab, Ansible
    ("trigger_rule", answers.text("if", "if: always(), or failure()")),
    ("when only except rules", answers.like("if")),
    ("execution_timeout", answers.same("timeout")),
    ("retry_delay", (lambda value: Answer(key="retry", text=f"retry: {{max: 3, delay: {answers.flow_or(value, '5s')}}}"),)),
    ("max_active_tis_per_dag max_concurrent", (answers.number("max_parallel"),)),
    ("bash_command", answers.same("run")),
    ("python_callable", answers.text("target", "target: module:function")),
    ("op_args", answers.same("args")),
    ("op_kwargs", answers.same("kwargs")),
    ("before_script after_script", answers.note("Write the commands as a list: run: [first, second].")),
    ("async poll", answers.note("Tasks run at once unless one needs the other: leave it out.")),
    ("changed_when failed_when", answers.note("A command fails when its exit code is not 0: end it with a test of your own.")),
    ("cron crontab", answers.note("A job has one schedule: write schedule: at the top of the file.")),
    ("count times", answers.within("foreach", "range", "3")),
    ("exit_codes", answers.within("retry", "max: 3, exit_codes", "[75]")),
)

_RETRY: Final[Words] = _words(
    ("count times limit retries max_retries", (answers.number("max"),)),
    ("attempts max_attempts max_tries tries", (answers.number("max", less=1),)),
    ("interval_sec sleep wait interval delay_seconds retry_delay", (answers.number("delay", "s", example="5s"),)),
    ("max_interval_sec sleep_max max_interval max_wait", (answers.number("max_delay", "s", example="5m"),)),
    ("factor multiplier exponential backoff_factor exponential_base", (answers.number("backoff", example="2"),)),
    ("backoff_args", answers.text("backoff", "backoff: 2")),
    ("jrc", answers.like("jitter")),
    ("retry_on on_exceptions errors exception", answers.like("exceptions")),
    (
        "exit_code exitcodes codes return_codes on_exit_codes",
        (
            lambda value: Answer(
                key="exit_codes", text=f"exit_codes: {answers.flow_or(value if isinstance(value, list) else [value], '[75]')}"
            ),
        ),
    ),
    (
        "stop_on when",
        answers.note("Name what is tried again, not what is not: write exceptions: [ConnectionError] or exit_codes: [75]."),
    ),
)

WORDS: Final[dict[type[BaseModel], Words]] = {
    spec.Job: _JOB,
    spec.Task: _TASK,
    spec.Retry: _RETRY,
    spec.Stop: _words(
        ("stop_signal kill_signal", answers.like("signal")),
        ("grace_period stop_grace_period kill_after wait timeout stop_timeout", answers.same("grace")),
    ),
    spec.Resources: _words(
        ("mem_mb", (answers.number("memory", "MB", example="512MB"),)),
        ("disk_mb disk", answers.note("Disk space is not limited here: leave it out.")),
        ("runtime time", answers.note("Write timeout: in the task itself.")),
        ("threads", answers.same("cpus")),
        ("limits reservations requests", answers.note("Write memory: 512MiB and cpus: 1 here, without a level between.")),
    ),
    spec.Range: _words(
        ("min minimum least required", answers.like("at_least")),
        ("at_least", answers.note("at_least stands beside glob, and nowhere else.")),
    ),
    spec.Cache: _words(
        ("paths path files sources file_dep input", answers.like("inputs")),
        ("generates targets output artifacts", answers.same("outputs")),
        ("expires expire max_age", answers.same("ttl")),
        ("key keys method", answers.note("The key is made of the task, its inputs and env: leave it out.")),
    ),
    spec.Schedule: _words(
        ("tz time_zone cron_tz", answers.same("timezone")),
        ("expression expr at when", answers.like("cron")),
        ("catch_up catchup_window misfire persistent", answers.text("catchup", "catchup: true")),
        ("random_delay randomized_delay_sec splay", answers.like("jitter")),
    ),
    spec.Concurrency: _words(
        ("cancel_in_progress", (answers.conflict,)),
        ("limit max max_runs", answers.note("A job never runs twice at the same time: leave it out.")),
    ),
    spec.Param: _words(
        ("enum options values allowed", answers.same("choices")),
        ("help desc doc title", answers.same("description")),
        ("value", answers.same("default")),
        ("pattern min max minimum maximum", answers.note("A parameter is checked by its type and its choices: leave it out.")),
        ("secret", answers.note("A secret is declared under secrets, at the top of the file.")),
    ),
    spec.Secret: _words(
        ("environment variable var from_env env_var", answers.same("env")),
        ("path from_file", answers.same("file")),
        ("cmd run shell exec", answers.same("command")),
        ("value", answers.note("A job file says where a secret is, not what it is: write env: VARIABLE, or file: path.")),
        ("provider key", answers.note("Write one of env: VARIABLE, file: path, command: command, credential: name.")),
    ),
    spec.Pool: _words(
        ("size slots max_size", answers.same("workers")),
        ("type kind", answers.like("mode")),
        ("initializer", answers.note("Do it at the top of the target's module, which each worker imports once.")),
        ("maxtasksperchild max_tasks_per_child", answers.same("max_tasks_per_worker")),
        ("start context mp_context", answers.like("start_method")),
    ),
    spec.Limit: _words(
        ("count size max permits value", answers.same("slots")), ("global shared", answers.text("scope", "scope: host"))
    ),
}

WORDS_ANYWHERE: Final[Words] = _words(
    ("timeout_minutes timeout_min timeout_mins", (answers.number("timeout", "m", example="5m"),)),
    ("timeout_seconds timeout_secs timeout_sec timeout_s", (answers.number("timeout", "s", example="5s"),)),
    ("timeout_hours", (answers.number("timeout", "h", example="5h"),)),
    ("command cmd exec", (answers.command,)),
    ("shell executable interpreter", (answers.shell,)),
    ("func function callable python", answers.text("target", "target: module:function")),
    ("retries max_retries", (answers.number("retry"), answers.number("max"))),
    ("attempts max_attempts", (answers.number("retry", less=1), answers.number("max", less=1))),
    ("parallel", (answers.number("max_parallel"), *answers.like("workers"))),
    ("depends depends_on dependson requires after deps dependencies upstream", (answers.needs,)),
    ("cmds commands script bash sh", answers.same("run")),
    ("steps jobs stages", answers.same("tasks")),
    ("working_directory working_dir workdir dir chdir", answers.same("cwd")),
    ("environment envs environ variable variables var", (answers.environment,)),
    ("envfile env_files dotenv environment_file", (answers.dotenv,)),
    ("mem mem_limit memory_limit ram max_memory", answers.same("memory")),
    ("niceness", answers.same("nice")),
    ("priority", answers.like("nice")),
    ("cores cpu ncpus cpu_count", answers.same("cpus")),
    ("concurrency_policy if_running overlap policy", answers.like("on_conflict")),
    ("path from_file", answers.like("file")),
    ("with_items loop for_each for items each", answers.same("foreach")),
    ("concurrency max_workers jobs_count n_jobs processes", answers.same("workers")),
    ("threads", answers.like("workers")),
    ("max_parallelism parallelism", answers.same("max_parallel")),
    ("vars variables inputs parameters", answers.like("params")),
    ("ignore_errors allow_failure ignore_error", answers.same("continue_on_error")),
    ("continue_on_error", answers.same("continue_on_error")),
    ("fail_fast failfast", answers.same("fail_fast")),
    ("arguments params", answers.like("kwargs")),
    ("title desc summary doc", answers.same("description")),
    ("arg", answers.same("args")),
    ("kwarg", answers.same("kwargs")),
)
"""Words that mean the same wherever they stand: the first of our keys that the level has."""
