"""What threads print: each line goes to the attempt of the thread that wrote it."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable

import pytest

from jobrunner import speech


def over_a_text(test: Callable[[io.StringIO], None]) -> Callable[[], None]:
    """Standard output is a Speech over a text that the test can read. No fixture: pytest's capture comes between."""

    def call() -> None:
        behind = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            for name in ("stdout", "stderr"):
                patch.setattr(sys, name, behind)
            patch.setattr(speech, "_installed", {})
            speech.install()
            test(behind)

    call.__name__ = test.__name__
    return call


@over_a_text
def test_a_thread_with_a_voice_is_heard_by_its_listener_alone(behind: io.StringIO) -> None:
    heard: dict[str, list[str]] = {"a": [], "b": []}
    together = threading.Barrier(2)

    def talk(name: str) -> None:
        with speech.Voice(heard[name].append):
            together.wait()
            for number in range(50):
                sys.stdout.write(f"{name}{number}\n")

    threads = [threading.Thread(target=talk, args=(name,)) for name in heard]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: "".join(pieces) for name, pieces in heard.items()} == {
        name: "".join(f"{name}{number}\n" for number in range(50)) for name in heard
    }
    assert behind.getvalue() == ""


@over_a_text
def test_a_thread_without_a_voice_goes_on_to_the_stream_behind(behind: io.StringIO) -> None:
    sys.stdout.write("nobody's\n")
    assert behind.getvalue() == "nobody's\n"


@over_a_text
def test_a_piece_is_passed_on_when_its_line_is_whole_or_its_attempt_has_ended(behind: io.StringIO) -> None:
    heard: list[str] = []
    with speech.Voice(heard.append):
        sys.stdout.write("a")
        assert heard == []
        sys.stdout.write("b\nc")
        assert heard == ["ab\nc"]
        sys.stdout.write("d")
    assert heard == ["ab\nc", "d"]


@over_a_text
def test_a_line_without_end_is_passed_on_in_pieces(behind: io.StringIO) -> None:
    heard: list[str] = []
    with speech.Voice(heard.append):
        for _ in range(100):
            sys.stdout.write("x" * 1000)
        assert len(heard) >= 10
    assert "".join(heard) == "x" * 100_000


@over_a_text
def test_bytes_are_heard_too(behind: io.StringIO) -> None:
    heard: list[str] = []
    with speech.Voice(heard.append):
        assert sys.stdout.buffer.write(b"caf\xc3\xa9 \xff\n") == 8
    assert heard == ["café \\xff\n"]


@over_a_text
def test_what_replaced_it_is_replaced_by_the_next_install(behind: io.StringIO) -> None:
    first = sys.stdout
    sys.stdout = io.StringIO()
    speech.install()
    assert sys.stdout is first


@over_a_text
def test_a_forked_child_has_no_voice(behind: io.StringIO) -> None:
    heard: list[str] = []
    with speech.Voice(heard.append):
        sys.stdout.write("before")
        pid = os.fork()
        if pid == 0:
            sys.stdout.write("from the child\n")
            os._exit(0 if not heard and behind.getvalue() == "from the child\n" else 1)
        assert os.waitpid(pid, 0)[1] == 0
    assert heard == ["before"]
