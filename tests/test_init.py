"""`jobrunner init`: a first job file that is valid and runs, and job files from a crontab that do what cron did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner import crontab, spec, starter
from jobrunner.cli.main import jobrunner
from jobrunner.errors import UsageError
from jobrunner.jobfile import load, parse, reader

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBRUNNER_STATE", str(tmp_path / "state"))


def _init(*arguments: str, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(jobrunner, ["init", *arguments], input=stdin, standalone_mode=False)


def _run(file: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "jobrunner", file], capture_output=True, text=True, env=environment, timeout=60)


# --- a first job file --------------------------------------------------------------------------------------------------------


def test_the_first_job_file_is_valid_and_runs(tmp_path: Path) -> None:
    assert _init().output == "job.yaml: written. Run it: jobrunner job.yaml\n"
    assert set(load("job.yaml").tasks) >= {"prepare", "work", "report"}
    done = _run("job.yaml")
    assert done.returncode == 0, done.stderr
    assert "work[two] | working on two" in done.stdout


def test_it_names_the_schema_to_both_kinds_of_editors_and_the_schema_is_there() -> None:
    _init("jobs/a.yaml")
    first, second, *_ = Path("jobs/a.yaml").read_text().splitlines()
    assert (first, second) == ("# yaml-language-server: $schema=job.schema.json", "# $schema: job.schema.json")
    assert json.loads(Path("jobs/job.schema.json").read_text()) == spec.json_schema()


def test_a_schema_above_is_used_and_one_of_another_tool_is_not() -> None:
    Path("schemas").mkdir()
    Path("schemas/job.schema.json").write_text(json.dumps(spec.json_schema()))
    Path("jobs").mkdir()
    Path("jobs/job.schema.json").write_text('{"title": "another"}')
    _init("jobs/a.yaml")
    assert Path("jobs/a.yaml").read_text().startswith("# yaml-language-server: $schema=../schemas/job.schema.json\n")


@pytest.mark.parametrize("kind", ["file", "link"])
def test_nothing_is_overwritten(kind: str) -> None:
    Path("job.yaml").write_text("mine") if kind == "file" else Path("job.yaml").symlink_to("nowhere")
    result = _init()
    assert isinstance(result.exception, UsageError)
    assert "there is such a file already; nothing was written" in str(result.exception)
    assert [path.name for path in Path().iterdir()] == ["job.yaml"]


# --- crontab(5) --------------------------------------------------------------------------------------------------------------

# A line · its five fields, its command, and what is fed to it.
LINES = [
    ("30 2 * * * backup", "30 2 * * *", "backup", None),
    ("  */5\t1-3   1,15 * mon-fri \t a  b  ", "*/5 1-3 1,15 * mon-fri", "a  b", None),
    ("@daily x", "0 0 * * *", "x", None),
    ("@MIDNIGHT\tx", "0 0 * * *", "x", None),
    ("@hourly x", "0 * * * *", "x", None),
    ("@weekly x", "0 0 * * 0", "x", None),
    ("@monthly x", "0 0 1 * *", "x", None),
    ("@annually x", "0 0 1 1 *", "x", None),
    ("@reboot x", "", "x", None),
    (r"* * * * * date +\%F", "* * * * *", "date +%F", None),
    ("* * * * * mail joe%Hi,%%there%", "* * * * *", "mail joe", "Hi,\n\nthere\n"),
    (r"* * * * * cat % 5\% off", "* * * * *", "cat", " 5% off"),
    ("* * * * * x # no comment", "* * * * *", "x # no comment", None),
    ("* * * * * A=b x", "* * * * *", "A=b x", None),
]


@pytest.mark.parametrize(("line", "cron", "command", "stdin"), LINES, ids=[line for line, *_ in LINES])
def test_a_line_is_read_as_cron_reads_it(line: str, cron: str, command: str, stdin: str | None) -> None:
    (entry,), refused = crontab.parse(line + "\n")
    assert (entry.cron, entry.command, entry.stdin, refused) == (cron, command, stdin, [])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("* * * * x", "a line has five fields (minute, hour, day, month, day of the week) and a command"),
        ("* * * * *", "a line has five fields (minute, hour, day, month, day of the week) and a command"),
        ("* * * * * %in", "there is no command after the time"),
        ("@often x", "@often is not a time that is known here"),
        ("@daily", "there is no command after the time"),
        ("BAD-NAME=3", "'BAD-NAME' is not the name of an environment variable"),
    ],
)
def test_a_line_that_cannot_be_turned_is_told(line: str, why: str) -> None:
    entries, (refused,) = crontab.parse(f"\n{line}\n")
    assert not entries
    assert refused.line == 2
    assert refused.why.startswith(why)


def test_variables_hold_for_the_lines_below_them() -> None:
    entries, _ = crontab.parse("A=1\n* * * * * x\n A = \" b c \" \n'B'='q'\nC=d  e  \n* * * * * y\n")
    assert [entry.env for entry in entries] == [{"A": "1"}, {"A": " b c ", "B": "q", "C": "d  e"}]


def test_the_comment_right_above_is_the_description_and_what_is_out_of_use_is_not() -> None:
    text = "# header\n\n# Back up\n# at night\n0 1 * * * a\n# 0 2 * * * old\n#@daily old\n# -----\n0 3 * * * b\n"
    text += "# m h  dom mon dow   command\n0 4 * * * c\n"
    entries, _ = crontab.parse(text)
    assert [entry.description for entry in entries] == ["Back up at night", "", ""]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/local/bin/backup.sh --full >> /var/log/b.log 2>&1", "backup"),
        ("cd /srv/app && nice -n 10 ionice -c3 ./bin/poll.py --x", "poll"),
        ("A=b /usr/bin/env python3 /opt/report.py", "report"),
        ("python3 -m reports.weekly; echo done", "weekly"),
        ("flock -n /tmp/lock timeout 5m /opt/sync.sh", "sync"),
        ("test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }", "cron-daily"),
        ("[ -x /usr/bin/certbot ] && sudo -u www certbot renew -q", "certbot-renew"),
        ("make -C /srv report", "make"),
        ("docker compose up -d", "docker-compose"),
        ("bash -c 'cd /x && ./y.sh'", "y"),
        ("/opt/7zip", "job-7zip"),
        ("'", "job"),
        ("cd /tmp", "job"),
    ],
)
def test_a_job_is_named_after_what_the_line_starts(command: str, name: str) -> None:
    assert crontab.name_of(command) == name


# --- crontab → job files -----------------------------------------------------------------------------------------------------

CRONTAB = """\
MAILTO=ops@example.org
PATH=/usr/local/bin:/usr/bin:/bin
# Say hello
30 2 * * * /bin/echo hello > hello.txt
SHELL=/bin/bash
CRON_TZ=Europe/Berlin
@daily echo "${BASH_VERSION:0:1}"; false; echo 'it is: ${{ no expression }}' [x] {y} #z
"""


def test_each_line_becomes_a_job_file_that_is_valid() -> None:
    result = _init("--from-crontab", "-", "--into", "jobs", stdin=CRONTAB)
    assert result.return_value == 0
    assert result.stdout == "jobs/echo.yaml: line 4, 30 2 * * *\njobs/echo-2.yaml: line 7, 0 0 * * *\n"
    first, second = load("jobs/echo.yaml"), load("jobs/echo-2.yaml")
    assert (first.schedule, first.description) == ("30 2 * * *", "Say hello")
    assert first.env == {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    assert first.tasks["echo"].run == "/bin/echo hello > hello.txt"
    assert "# cron mailed its output to ops@example.org" in Path("jobs/echo.yaml").read_text()
    assert isinstance(second.schedule, spec.Schedule)
    assert (second.schedule.cron, second.schedule.timezone) == ("0 0 * * *", "Europe/Berlin")
    assert (second.tasks["echo-2"].argv or [])[:2] == ["/bin/bash", "-c"]


@pytest.mark.parametrize(
    ("line", "output"),
    [
        ("* * * * * cat%one%two: ${{ x }}%%'q' END", "one\ntwo: ${{ x }}\n\n'q' END\n"),
        ("* * * * * false; echo '${{ no expression }}' \"a: b\" # c", "${{ no expression }} a: b\n"),
        ("* * * * * pwd", f"{Path('~').expanduser()}\n"),
        ('A=${{ x }}\n* * * * * echo "$A"', "${{ x }}\n"),
        ("SHELL=/bin/bash\n* * * * * echo ${BASH_VERSION:+yes}", "yes\n"),
        ("HOME=/\n* * * * * pwd", "/\n"),
    ],
)
def test_a_job_does_what_cron_did(line: str, output: str) -> None:
    """What crontab(5) says that the line writes."""
    result = _init("--from-crontab", "-", stdin=line + "\n")
    assert result.return_value == 0, result.stderr
    (file,) = Path().glob("*.yaml")
    done = _run(str(file))
    assert done.returncode == 0, done.stderr
    name = next(iter(load(file).tasks))
    assert [text.partition(" | ")[2] for text in done.stdout.splitlines() if text.startswith(f"{name} |")] == output.splitlines()


def test_lines_of_a_system_crontab_name_their_user() -> None:
    result = _init(
        "--from-crontab", "-", "--system", stdin="5 * * * * www-data\t/bin/x\n5 * * * * root /bin/y\n5 * * * * alone\n"
    )
    assert result.return_value == 2
    assert "line 3: there is no user and command after the time" in result.stderr
    assert (load("x.yaml").tasks["x"].run, load("x.yaml").tasks["x"].cwd) == ("/bin/x", "~www-data")
    assert "# It ran as www-data: start this job as that user." in Path("x.yaml").read_text()
    assert load("y.yaml").tasks["y"].cwd == "~"


def test_what_cannot_be_turned_is_told_with_its_line_and_the_rest_is_written() -> None:
    Path("there.yaml").write_text("mine")
    text = b"0 0 31 4 * never\n61 * * * * bad\n0 5 * * * there\n0 6 * * * good\n0 7 * * * \xff\xfe\n"
    text += b"CRON_TZ=Nowhere/Land\n0 8 * * * z\n"
    result = _init("--from-crontab", "-", stdin=text)
    assert result.return_value == 2
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == ["line 1", "line 2", "line 3", "line 5", "line 7"]
    assert "'61' is no minute: 0 to 59" in result.stderr
    assert "there is such a file already" in result.stderr
    assert {path.name for path in Path().glob("*.yaml")} == {"there.yaml", "good.yaml"}
    assert Path("there.yaml").read_text() == "mine"


def test_what_is_started_at_boot_has_no_schedule_and_its_file_says_so() -> None:
    assert _init("--from-crontab", "-", stdin="@reboot /opt/agent &\n").return_value == 0
    job = load("agent.yaml")
    assert job.schedule is None
    assert job.tasks["agent"].stop.leftover == "allow"
    assert "# @reboot: no schedule says that." in Path("agent.yaml").read_text()


def test_a_crontab_without_a_line_is_told() -> None:
    result = _init("--from-crontab", "-", stdin="# nothing\nA=b\n")
    assert "the crontab starts nothing" in str(result.exception)


_LINE = st.characters(codec="utf-8", exclude_characters="\n\r")
_COMMAND = st.text(_LINE, min_size=1, max_size=60).filter(lambda text: bool(text.strip(" \t")))


@given(command=_COMMAND, comment=st.text(_LINE, max_size=40))
@settings(max_examples=100, deadline=None)
def test_whatever_a_command_is_the_file_holds_it_to_the_letter(command: str, comment: str) -> None:
    entries, _ = crontab.parse(f"# {comment}\n* * * * * {command}\n")
    for name, entry in crontab.named(entries):
        read = reader.read(crontab.job_text(entry, name, "x").encode(), "a.yaml").value
        assert isinstance(read, dict)
        (task,) = read["tasks"].values()
        if entry.stdin is None:
            written = task["run"] if "run" in task else task["argv"][2]
            assert written.replace("${{ '$' }}", "$") == entry.command


@given(text=st.text(max_size=80), indent=st.sampled_from([2, 4, 8]))
@settings(max_examples=100, deadline=None)
def test_a_scalar_reads_back_as_the_text_it_was(text: str, indent: int) -> None:
    if not any(0xD800 <= ord(char) < 0xE000 for char in text):
        document = reader.read(f"{' ' * (indent - 2)}k: {starter.scalar(text, indent=indent)}\n".encode(), "a.yaml")
        assert document.value == {"k": text}


def test_a_starter_is_valid_whatever_its_name_is() -> None:
    assert parse(starter.starter_text("a b\n{x}.yaml", "job.schema.json").encode(), "a.yaml").tasks
