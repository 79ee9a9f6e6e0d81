"""`work.run`: whatever a target does is in the Result, as JSON and text. It never raises."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, cast

import pytest

from jobrunner import host, speech, work
from jobrunner.executors.told import result_of
from jobrunner.work import Call, Outcome, Result

TARGETS = "tests.targets.contract"
FILE = str(Path(__file__).with_name("targets") / "contract.py")


def run(target: str, *args: object, needed: bool = False, **kwargs: object) -> Result:
    name = target if ":" in target else f"{TARGETS}:{target}"
    return work.run(Call(id=7, target=name, args=list(args), kwargs=kwargs, needed=needed))


@pytest.mark.parametrize(
    ("target", "args", "value"),
    [
        ("echo", ["é", 1.5, None], {"args": ["é", 1.5, None], "kwargs": {}}),
        ("big_number", [], 2**80),
        ("wait_a_little", [], "awaited"),
        ("leave", [], None),
        ("leave", [0], None),
        ("leave", [256], None),
        ("json:loads", ["[1]"], [1]),
        ("os.path:basename", ["a/b"], "b"),
    ],
)
def test_a_value_comes_back_as_json(target: str, args: list[object], value: object) -> None:
    result = run(target, *args)
    assert (result.id, result.outcome, result.json(), result.error) == (7, Outcome.SUCCEEDED, value, None)


@pytest.mark.parametrize(
    ("code", "exit_code", "message"),
    [(3, 3, "exit 3"), (-1, 255, "exit -1"), (259, 3, "exit 259"), (True, 1, "exit True"), ("no disk", 1, "no disk")],
)
def test_sys_exit_with_a_code_is_a_failure_with_the_code_that_a_process_would_have(
    code: object, exit_code: int, message: str
) -> None:
    result = run("leave", code)
    assert result.error is not None
    assert (result.outcome, result.exit_code, result.error.message) == (Outcome.FAILED, exit_code, message)


@pytest.mark.parametrize("target", ["return_object", "return_lambda", "return_nan", "return_surrogate", "return_evil"])
def test_a_value_that_is_not_json_is_dropped_with_a_note_or_refused_where_it_is_needed(target: str) -> None:
    dropped, refused = run(target), run(target, needed=True)
    assert (dropped.outcome, dropped.value) == (Outcome.SUCCEEDED, None)
    assert dropped.note.endswith(": dropped")
    assert refused.outcome is Outcome.FAILED
    assert refused.error is not None
    assert f"{refused.error.message}: dropped" == dropped.note


@pytest.mark.parametrize("target", ["generate", "generate_later"])
def test_a_generator_is_refused_because_nothing_ran(target: str) -> None:
    result = run(target)
    assert result.error is not None
    assert result.error.message == "returned a generator, so nothing ran; return a list instead of using yield"


@pytest.mark.parametrize(("excess", "outcome"), [(-2, Outcome.SUCCEEDED), (-1, Outcome.FAILED)])
def test_a_value_is_refused_beyond_its_largest_size(excess: int, outcome: Outcome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "LARGEST_RESULT", 1000)
    assert run("text_of", 1000 + excess).outcome is outcome  # two quotes come on top


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        ("raise_value", "ValueError", "a plain mistake"),
        ("raise_keyboard_interrupt", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise_speechless", "Speechless", "(no message: its __str__ raised ValueError)"),
        ("no.such:f", "ModuleNotFoundError", "No module named 'no'"),
        ("no_such_function", "AttributeError", f"{TARGETS}:no_such_function: there is no 'no_such_function' in {FILE!r}."),
        ("NOT_CALLABLE", "TypeError", f"{TARGETS}:NOT_CALLABLE is not callable but int"),
    ],
)
def test_an_exception_becomes_text(target: str, kind: str, message: str) -> None:
    error = run(target).error
    assert error is not None
    assert (error.type, error.message) == (kind, message)
    assert error.traceback.rstrip().splitlines()[-1].startswith((kind, f"{TARGETS}.{kind}"))


class _Deaf(type):
    """Answers whatever its classes are asked, and as badly as it can."""

    def __getattribute__(cls, name: str) -> object:
        raise KeyboardInterrupt

    def __eq__(cls, other: object) -> bool:
        raise SystemExit(0)

    __hash__ = None  # type: ignore[assignment]


class _Text(str):
    __slots__ = ()

    def __getattribute__(self, name: str) -> object:
        raise MemoryError


def _hostile() -> type[Exception]:
    return cast(type[Exception], _Deaf("Hostile", (ValueError,), {"__module__": 3, "__qualname__": _Text("a.\udcff.Hostile")}))


def _deep(number: int) -> type[Exception]:
    found: type[Exception] = Exception
    for each in range(number):
        found = type(f"Deep{each}" * 100, (found,), {})
    return found


_HERE = __name__


class _Shop(LookupError):
    class Sold(ConnectionResetError, KeyError):
        """A class in a class."""


@pytest.mark.parametrize(
    ("raised", "kinds"),
    [
        (ValueError, ("ValueError", "Exception")),
        (KeyboardInterrupt, ("KeyboardInterrupt",)),
        (BaseException, ()),
        (json.JSONDecodeError, ("json.decoder.JSONDecodeError", "ValueError", "Exception")),
        (
            _Shop.Sold,
            (f"{_HERE}._Shop.Sold", "ConnectionResetError", "ConnectionError", "OSError", "KeyError", "LookupError", "Exception"),
        ),
        (ExceptionGroup, ("ExceptionGroup", "BaseExceptionGroup", "Exception")),
        (_hostile(), ("a.\\udcff.Hostile", "ValueError", "Exception")),
    ],
    ids=lambda value: value[0] if type(value) is tuple and value else "",
)
def test_the_kinds_of_an_exception_are_the_dotted_names_of_its_class_and_its_bases(
    raised: type[BaseException], kinds: tuple[str, ...]
) -> None:
    assert work.kinds(raised) == kinds


def test_the_kinds_of_an_exception_are_bounded_in_number_and_length() -> None:
    kinds = work.kinds(_deep(100))
    assert len(kinds) == work.MOST_KINDS
    assert {len(kind) for kind in kinds} == {200}


def test_an_exception_whose_class_lies_about_itself_is_described_all_the_same() -> None:
    error = work.describe(_hostile()(_Text("why")))
    assert (error.type, error.message, error.kinds[1]) == ("Hostile", "why", "ValueError")


@pytest.mark.parametrize(
    ("target", "kinds"),
    [
        ("raise_value", ("ValueError", "Exception")),
        ("raise_group", ("BaseExceptionGroup",)),
        ("no.such:f", ("ModuleNotFoundError", "ImportError", "Exception")),
        ("return_object", ()),
        ("leave_with_three", ("SystemExit",)),
    ],
)
def test_an_error_has_the_kinds_of_what_was_raised_and_none_where_nothing_was(target: str, kinds: tuple[str, ...]) -> None:
    error = run("leave", 3).error if target == "leave_with_three" else run(target, needed=True).error
    assert error is not None
    assert error.kinds == kinds


def test_a_long_traceback_is_cut_in_the_middle() -> None:
    error = work.describe(ValueError("x" * 100_000))
    assert len(error.traceback) < 17_000
    assert "characters left out" in error.traceback
    assert len(error.message) == 2000


def test_text_with_lone_surrogates_is_escaped() -> None:
    error = work.describe(ValueError("\udcff"))
    assert json.dumps(error.message, ensure_ascii=False).encode() == b'"\\\\udcff"'


def test_an_exception_that_cannot_even_be_formatted_is_still_described() -> None:
    class Hopeless(Exception):
        @property
        def __notes__(self) -> Any:  # type: ignore[override]  # it is here to be hostile
            raise KeyboardInterrupt

    error = work.describe(Hopeless("why"))
    assert (error.type, error.message) == ("Hopeless", "why")


# --- To the engine -------------------------------------------------------------------------------------------------------------


def test_an_error_crosses_to_the_engine_with_its_kinds() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        result = run("raise_value")
        host.Port(theirs, speech.Streams()).ended(result)
        frame = json.loads(ours.recv(1 << 16))
    assert result_of(frame, None).error == result.error
    assert len(frame) == 10


@pytest.mark.parametrize("error", [["T"], ["T", "m", "t", 3], ["T", "m", "t", None], [["T"], "m", "t"]])
def test_what_cannot_be_an_error_is_refused(error: list[object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        result_of(["result", 1, "failed", 0.1, None, None, None, "", error, False], None)


def test_of_kinds_no_more_are_taken_than_are_ever_sent() -> None:
    error = result_of(["result", 1, "failed", 0.1, None, None, None, "", ["T", "m", "t", *["K"] * 1000], False], None).error
    assert error is not None
    assert len(error.kinds) == work.MOST_KINDS
