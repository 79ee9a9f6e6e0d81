"""The values of secrets and the variables of an env_file: where they are read, and that no message holds one."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from jobrunner import credentials, spec
from jobrunner.errors import JobrunnerError, UnsafeError, UsageError

VALUE = "hunter2"


def job(sources: Mapping[str, Mapping[str, str]]) -> spec.Job:
    return spec.Job.model_validate({"secrets": sources, "tasks": {"a": {"run": "x", "secrets": list(sources)}}})


def read(folder: Path, environ: Mapping[str, str] | None = None, **source: str) -> str:
    """The value of one secret with that source."""
    found = credentials.read(job({"token": source}), folder, {"PATH": os.defpath, **(environ or {})}, wanted=["token"])
    assert list(found) == ["token"]
    return found["token"]


def told(folder: Path, environ: Mapping[str, str] | None = None, **source: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(folder, environ, **source)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(folder), "FOLDER")


def private(path: Path, data: bytes = VALUE.encode(), mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


# --- which -------------------------------------------------------------------------------------------------------------------


def test_only_what_the_selected_tasks_list_is_wanted_and_read(tmp_path: Path) -> None:
    tasks = {"a": {"run": "x", "secrets": ["two", "one"]}, "b": {"run": "x", "secrets": ["three"]}, "c": {"run": "x"}}
    sources = {name: {"env": name.upper()} for name in ("one", "two", "three", "four")}
    found = spec.Job.model_validate({"secrets": sources, "tasks": tasks})
    assert credentials.wanted(found, ["a", "c"]) == ("one", "two")
    assert credentials.wanted(found, found.tasks) == ("one", "two", "three")
    assert credentials.read(found, tmp_path, {"TWO": "2 two"}, wanted=["two"]) == {"two": "2 two"}
    assert credentials.read(found, tmp_path, {}, wanted=[]) == {}


def test_every_variable_that_a_secret_is_read_from_is_named_once() -> None:
    found = job({"a": {"env": "X"}, "b": {"env": "Y"}, "c": {"env": "X"}, "d": {"file": "f"}})
    assert credentials.variables(found) == ("X", "Y")


def test_every_secret_that_cannot_be_had_is_told_at_once(tmp_path: Path) -> None:
    sources = {"a": {"env": "A"}, "b": {"env": "B"}, "c": {"file": "c"}}
    with pytest.raises(UsageError) as caught:
        credentials.read(job(sources), tmp_path, {"A": ""}, wanted=["a", "b", "c"])
    assert str(caught.value).splitlines() == [
        "secrets.a: it is empty",
        "secrets.b: the variable B is not set",
        f"secrets.c: {tmp_path}/c cannot be read: No such file or directory",
    ]


# --- sources -----------------------------------------------------------------------------------------------------------------


def test_a_variable(tmp_path: Path) -> None:
    assert read(tmp_path, {"T": " hunter2\n"}, env="T") == " hunter2\n"


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"hunter2", VALUE), (b"hunter2\n", VALUE), (b"hunter2\r\n", VALUE), (b"a\nb\n\n", "a\nb\n"), ("ключ".encode(), "ключ")],
)
def test_a_file_without_its_last_line_end(tmp_path: Path, data: bytes, value: str) -> None:
    private(tmp_path / "token", data)
    assert read(tmp_path, file="token") == value
    assert read(tmp_path / "elsewhere", file=str(tmp_path / "token")) == value


@pytest.mark.parametrize(
    ("command", "value"),
    [
        ("echo hunter2", VALUE),
        ("printf 'a b'; printf '\\n\\n'", "a b\n"),
        ("cat token | tr a-z A-Z", "HUNTER2"),
        ('echo "$FROM_US"', "from us"),
        ("cat; echo hunter2", VALUE),
    ],
)
def test_a_command_prints_it(tmp_path: Path, command: str, value: str) -> None:
    private(tmp_path / "token")
    assert read(tmp_path, {"FROM_US": "from us"}, command=command) == value


def test_the_errors_of_a_command_are_passed_on_and_its_output_is_not(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert read(tmp_path, command="echo asked the vault >&2; echo hunter2") == VALUE
    assert capfd.readouterr() == ("", "asked the vault\n")


def test_a_credential_of_systemd(tmp_path: Path) -> None:
    private(tmp_path / "db.password", b"hunter2\n", mode=0o400)
    assert read(tmp_path / "x", {"CREDENTIALS_DIRECTORY": str(tmp_path)}, credential="db.password") == VALUE


# --- what cannot be had ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b" \t\n", "it is empty"),
        (b"a\0b", "it holds a NUL character, which no variable can hold"),
        (b"\xff\xfe", "FOLDER/token is not UTF-8"),
        (b"x" * ((64 << 10) + 1), "FOLDER/token is larger than 64 KiB, more than a variable can hold"),
    ],
)
def test_a_file_that_holds_no_secret(tmp_path: Path, data: bytes, message: str) -> None:
    private(tmp_path / "token", data)
    assert told(tmp_path, file="token") == f"secrets.token: {message}"


def test_a_secret_as_large_as_a_variable_holds_reaches_a_process(tmp_path: Path) -> None:
    private(tmp_path / "token", b"x" * (64 << 10))
    assert os.spawnve(os.P_WAIT, "/bin/sh", ["sh", "-c", ":"], {"TOKEN": read(tmp_path, file="token")}) == 0


def test_a_variable_that_is_not_utf_8(tmp_path: Path) -> None:
    assert told(tmp_path, {"T": os.fsdecode(b"\xff")}, env="T") == "secrets.token: it is not UTF-8"


def test_what_is_no_regular_file_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert told(tmp_path, file="fifo") == "secrets.token: FOLDER/fifo is not a regular file"
    assert told(tmp_path, file=".").startswith("secrets.token: FOLDER cannot be read: Is a directory")
    assert "is not a regular file" in told(tmp_path, file="/dev/zero")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("exit 3", "its command ended with exit code 3"),
        ("echo hunter2; false", "its command ended with exit code 1"),
        ("kill -9 $$", "its command was killed by signal 9"),
        ("true", "it is empty"),
        ("not-a-command-at-all", "its command ended with exit code 127"),
        ("printf '\\377'", "what its command printed is not UTF-8"),
        ("yes", "what its command printed is larger than 64 KiB, more than a variable can hold"),
    ],
)
def test_a_command_that_gives_no_secret(tmp_path: Path, command: str, message: str) -> None:
    assert told(tmp_path, command=command) == f"secrets.token: {message}"


def test_a_command_that_does_not_end_is_killed_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "PATIENCE", 0.2)
    os.mkfifo(tmp_path / "fifo")
    alive = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    message = told(tmp_path, command="exec 3> fifo; echo hunter2; sleep 600 & sleep 600")
    assert message == "secrets.token: its command did not end within 0 s"
    os.set_blocking(alive, True)
    assert os.read(alive, 1) == b"", "the last of them that holds the pipe open is gone"
    os.close(alive)


def test_a_credential_that_is_not_there_says_what_the_unit_wants(tmp_path: Path) -> None:
    assert "LoadCredential=db:PATH" in told(tmp_path, credential="db")
    assert "the service has no credential 'db'" in told(tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, credential="db")


# --- who else can read it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644, 0o777])
def test_a_file_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    private(tmp_path / "token", mode=mode)
    with pytest.raises(UnsafeError, match=r"others may read or change the secret in .*: chmod o= ") as caught:
        read(tmp_path, file="token")
    assert caught.value.exit_code == 77


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_file_for_the_owner_and_his_group_is_fine(tmp_path: Path, mode: int) -> None:
    private(tmp_path / "token", mode=mode)
    assert read(tmp_path, file="token") == VALUE


def test_a_file_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private(tmp_path / "token")
    seen = list(os.stat(tmp_path / "token"))
    seen[stat.ST_UID] = 12345
    monkeypatch.setattr(os, "fstat", lambda descriptor: os.stat_result(seen))
    with pytest.raises(UnsafeError, match="belongs to another user"):
        read(tmp_path, file="token")


@pytest.mark.parametrize("data", [b"\xff" + VALUE.encode(), VALUE.encode() + b"\0", VALUE.encode() * 10_000])
def test_no_message_holds_a_part_of_a_secret(tmp_path: Path, data: bytes) -> None:
    private(tmp_path / "token", data)
    for source in ({"file": "token"}, {"command": "cat token; exit 1"}, {"command": "cat token"}):
        with pytest.raises(JobrunnerError) as caught:
            read(tmp_path, None, **source)
        assert VALUE not in str(caught.value)
        assert VALUE not in repr(caught.value.__context__)


# --- env_file ----------------------------------------------------------------------------------------------------------------


def env_file(folder: Path, text: str | bytes) -> dict[str, str]:
    path = folder / "x.env"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return credentials.env_file(path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("\n  \n# A=1\n  # B=2\n", {}),
        ("A=1\nB_2=two words\n", {"A": "1", "B_2": "two words"}),
        ("export A=1\nexport\tB=2", {"A": "1", "B": "2"}),
        ("  A=1  \r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=\nB=''\nC=\"\"", {"A": "", "B": "", "C": ""}),
        ("A='a \\n $HOME # \"b\"'", {"A": 'a \\n $HOME # "b"'}),
        (r'A="a \"b\" \\ \n\t\$ \x # $HOME"', {"A": 'a "b" \\ \n\t$ \\x # $HOME'}),
        ("A='1' # comment\nB=\"2\"\t#x\nC=3#4\nD=a=b=c", {"A": "1", "B": "2", "C": "3#4", "D": "a=b=c"}),
        ("A=it's\nB=5\" disk", {"A": "it's", "B": '5" disk'}),
        ("A=$HOME/${X}\nB=\\n", {"A": "$HOME/${X}", "B": "\\n"}),
        (b"\xef\xbb\xbfA=\xc3\xa9", {"A": "é"}),
    ],
)
def test_the_lines_of_an_env_file(tmp_path: Path, text: str | bytes, found: dict[str, str]) -> None:
    assert env_file(tmp_path, text) == found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("A", "a line is NAME=value"),
        ("A = 1", "no blanks around ="),
        ("1A=x", "a line is NAME=value"),
        ("A-B=x", "a line is NAME=value"),
        ("=x", "a line is NAME=value"),
        ("exportA", "a line is NAME=value"),
        ("A=x # y", "the value of A may end in a comment or hold a #: quote it"),
        ("A='x", "the quotes of A are not closed on this line"),
        ('A="x\\"', "the quotes of A are not closed on this line"),
        ("A='x'y", "something stands behind them"),
        ("A='x'#y", "something stands behind them"),
        ("A=x\0y", "no NUL"),
        ("FIRST=2", "FIRST stands there twice"),
    ],
)
def test_a_line_that_is_none_is_told_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        env_file(tmp_path, f"# comment\nFIRST=1\n{line}\n")
    assert str(caught.value).startswith(f"{tmp_path}/x.env:3: ")
    assert message in str(caught.value)


def test_all_lines_that_are_none_are_told_at_once_without_their_values(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        env_file(tmp_path, "A='hunter2\nB=1\nhunter2\n")
    assert [line.partition("x.env:")[2][:2] for line in str(caught.value).splitlines()] == ["1:", "3:"]
    assert VALUE not in str(caught.value)


def test_an_env_file_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, message in (("gone", "No such file"), ("fifo", "not a regular file"), (".", "Is a directory")):
        with pytest.raises(UsageError, match=message):
            credentials.env_file(tmp_path / name)
    with pytest.raises(UsageError, match=r"x\.env:2: this is not UTF-8"):
        env_file(tmp_path, b"A=1\nB=\xff\n")
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        env_file(tmp_path, b"#" * ((1 << 20) + 1))


def test_an_env_file_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    private(tmp_path / "x.env", b"A=1\n", mode=0o666)
    with pytest.raises(UnsafeError) as caught:
        credentials.env_file(tmp_path / "x.env")
    assert caught.value.exit_code == 77
