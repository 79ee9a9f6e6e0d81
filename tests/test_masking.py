"""Masking: no form of a secret gets out, however it is written and wherever reads cut it; everything else passes unchanged."""

from __future__ import annotations

import ast
import base64
import html
import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from typing import Any, get_args
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jobrunner import events
from jobrunner.events import Data, Event, TaskFinished, TaskOutput
from jobrunner.masking import LEAST, Mask, masked

TOKEN = "hunter2/Pa$$ \"w'ord\\é€😀+&=<"
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq/hkiG9w0BAQ+EFAASC\nsecondLineOfIt==\n-----END KEY-----"

DOUBLE = "'\""
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON in JSON": lambda text: json.dumps({"a": json.dumps([text])}),
    "JSON with escaped slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "repr": repr,
    "repr among both quotes": lambda text: repr(DOUBLE + text + DOUBLE),
    "ascii": ascii,
    "repr of bytes": lambda text: repr(text.encode()),
    "a traceback's dict": lambda text: str({"token": text}),
    "shlex": shlex.quote,
    "shell, double quotes": lambda text: '"' + re.sub(r'([\\"$`])', r"\\\1", text) + '"',
    "URL path": quote,
    "URL part": lambda text: quote(text, safe=""),
    "URL query": lambda text: urlencode({"q": text, "r": 1}),
    "URL in small letters": lambda text: re.sub("%..", lambda found: found[0].lower(), quote_plus(text)),
    "HTML": html.escape,
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 behind one byte": lambda text: base64.b64encode(b":" + text.encode() + b"tail").decode(),
    "base64 behind two bytes": lambda text: base64.b64encode(b"u:" + text.encode() + b"t").decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(b"user:" + text.encode()).decode(),
}


def undone(text: str) -> list[str]:
    """What somebody gets who tries to take the output back: each of the ways that the table knows."""
    found = [text]
    for step in (
        lambda: json.loads(text),
        lambda: json.loads(json.loads(text)["a"])[0],
        lambda: ast.literal_eval(text),
        lambda: bytes.fromhex(text).decode("utf-8", "replace"),
        lambda: base64.urlsafe_b64decode(text.replace("+", "-").replace("/", "_")).decode("utf-8", "replace"),
    ):
        try:
            found.append(str(step()))
        except (ValueError, SyntaxError, KeyError, TypeError, IndexError):
            continue
    return found


@pytest.mark.parametrize("secret", [TOKEN, "correct horse", "s3cr3t", "a b\tc", KEY, "ключ-доступа"], ids=lambda text: text[:12])
@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_a_secret_is_masked(form: str, secret: str) -> None:
    shown = Mask([secret]).text(f"x={FORMS[form](secret)};")
    assert "***" in shown
    for line in [secret, *secret.split("\n")]:
        assert FORMS[form](line).strip("'\"") not in shown
        assert all(line not in text for text in undone(shown.removeprefix("x=").removesuffix(";")))


def test_each_line_of_a_secret_of_several_is_masked_on_its_own() -> None:
    mask = Mask([KEY])
    assert mask.text("got secondLineOfIt==, fine") == "got ***, fine"
    assert mask.text(KEY) == "***"


def test_short_lines_of_a_secret_are_not_masked_on_their_own() -> None:
    assert Mask(["long-enough\nab\n"]).text("cab") == "cab"


def test_a_secret_is_masked_without_the_blanks_around_it() -> None:
    assert Mask(["  pass word \n"]).text("<pass word>") == "<***>"


def test_a_short_secret_is_masked_as_it_is() -> None:
    assert Mask(["a"]).text("bab 61 YQ==") == "b***b 61 YQ=="


@pytest.mark.parametrize("width", [64, 76])
def test_base64_in_lines_is_masked(width: int) -> None:
    secret = "".join(chr(33 + at * 7 % 90) for at in range(500))
    encoded = base64.b64encode(secret.encode()).decode()
    shown = Mask([secret]).text("\n".join(encoded[at : at + width] for at in range(0, len(encoded), width)))
    assert all(len(line) <= len("******==") for line in shown.splitlines())


def test_what_a_shell_prints_of_a_secret_is_masked() -> None:
    script = (
        'set -x; printf "%s\\n" "$S"; : "$S"; printf "%q\\n" "$S"; echo "$S" | base64; echo "$S" | od -An -tx1 | tr -d " \\n"'
    )
    ended = subprocess.run(["bash", "-c", script], env={"S": "top secret's"}, capture_output=True, check=True)
    shown = Mask(["top secret's"]).data(ended.stdout + ended.stderr)
    for form in (b"top secret", b"top\\ secret", b"dG9wIHNlY3JldC", b"746f7020736563726574"):
        assert form not in shown
    assert shown.count(b"***") == 9


def test_of_two_secrets_that_begin_alike_the_longer_is_masked() -> None:
    mask = Mask(["token", "token-of-admin"])
    assert mask.text("token token-of-admin token-of") == "*** *** ***-of"
    stream = mask.stream()
    assert [stream.feed(b"a token"), stream.feed(b"-of-admin!"), stream.end()] == [b"a ", b"***!", b""]
    assert [stream.feed(b"a token"), stream.feed(b"-of x"), stream.end()] == [b"a ", b"***-of x", b""]


def test_without_a_secret_nothing_changes() -> None:
    data = b"any thing"
    assert Mask([]).data(data) is data
    assert Mask([""]).stream().feed(data) == data


def test_keys_and_values_of_json_are_masked() -> None:
    value = {"pw=hunter2": ["hunter2", 2, None, {"a": b"hunter2"}], "n": 1.5}
    assert Mask(["hunter2"]).value(value) == {"pw=***": ["***", 2, None, {"a": b"***"}], "n": 1.5}


def test_the_end_of_a_secret_that_was_cut_off_is_masked() -> None:
    mask = Mask(["hunter2hunter2", "nter2xyz-0"])
    assert mask.rest("ter2hunter2\nline") == "***\nline"
    assert mask.rest("unter2xyz-0 hunter2hunter2.") == "*** ***."
    assert mask.rest("er2 is too short") == "er2 is too short"
    assert mask.holds(b"ter2hunter2", is_rest=True)
    assert not mask.holds(b"ter2hunter2")


def test_a_stream_holds_back_only_what_may_be_the_beginning_of_a_secret() -> None:
    stream = Mask(["hunter2"]).stream()
    assert stream.feed(b"the password is: ") == b"the password is: "
    assert stream.feed(b"hun") == b""
    assert stream.feed(b"dred") == b"hundred"
    assert stream.feed(b" h") == b" "
    assert stream.end() == b"h"
    assert [stream.feed(bytes([byte])) for byte in b"hunter2."] == [b""] * 6 + [b"***", b"."]


def test_what_a_stream_holds_back_is_bounded_by_the_longest_form() -> None:
    stream = Mask(["a" * 1000]).stream()
    fed = shown = 0
    for _ in range(300):
        fed += 100
        shown += len(stream.feed(b"a" * 100).replace(b"***", b"a" * 1000))
        assert fed - shown <= 4000


@given(st.binary(min_size=1, max_size=60), st.integers(0, 59), st.binary(max_size=20))
def test_whatever_is_left_of_a_secret_at_the_beginning_is_masked(data: bytes, cut: int, after: bytes) -> None:
    value = "s3cr3t" + data.hex()
    left = value[min(cut, len(value) - LEAST) :]
    shown = Mask([value]).rest(left + " " + after.hex())
    assert shown.startswith("*** ")


secrets = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0*"), min_size=1, max_size=40).filter(str.strip)
noise = st.binary(max_size=30)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.lists(secrets, min_size=1, max_size=3), st.data(), st.lists(st.integers(0, 5000), max_size=12))
def test_no_form_of_a_secret_gets_out_wherever_it_is_cut(values: list[str], data: Any, cuts: list[int]) -> None:
    mask = Mask(values)
    pieces = data.draw(st.lists(st.one_of(noise, st.sampled_from(values).flatmap(written)), max_size=6))
    whole = b"".join(pieces)
    stream = mask.stream()
    shown = b"".join([*map(stream.feed, split(whole, cuts)), stream.end()])
    assert shown == mask.data(whole)
    for value in values:
        assert value.encode() not in shown
        for form in FORMS.values():
            if len(core := form(value).strip("'\"=").encode()) >= LEAST and form not in _EMBEDDED:
                assert core not in shown


_EMBEDDED = {
    FORMS[name] for name in FORMS if name.startswith(("base64 ", "JSON in JSON", "URL query", "a traceback", "repr among"))
}


def written(value: str) -> st.SearchStrategy[bytes]:
    return st.sampled_from(list(FORMS.values())).map(lambda form: form(value).encode())


@given(st.lists(secrets, min_size=1, max_size=3), st.lists(noise, max_size=10))
def test_what_is_no_secret_passes_unchanged(values: list[str], pieces: list[bytes]) -> None:
    mask = Mask(values)
    whole = b"".join(pieces)
    assume(not any(form in whole for form in mask._forms))
    stream = mask.stream()
    assert b"".join([*map(stream.feed, pieces), stream.end()]) == whole
    assert mask.data(whole) is whole


@given(secrets, st.binary(max_size=7), st.binary(max_size=7))
def test_no_byte_of_a_secret_can_be_read_back_from_base64(value: str, before: bytes, after: bytes) -> None:
    """At most the characters that its neighbours share are left: less than a byte at either end."""
    assume(len(data := value.encode()) >= 8)
    shown = Mask([value]).data(base64.b64encode(before + data + after))
    assert b"***" in shown
    left, _, right = shown.partition(b"***")
    assert len(left) * 6 < (len(before) + 1) * 8
    assert len(right.rstrip(b"=")) * 6 < (len(after) + 2) * 8


@settings(max_examples=30)
@given(st.text(max_size=50), st.sampled_from([TOKEN, "hunter2"]))
def test_text_and_bytes_are_masked_alike(text: str, value: str) -> None:
    mask = Mask([value])
    whole = f"{text}{value}{text}"
    assert mask.text(whole).encode("utf-8", "surrogatepass") == mask.data(whole.encode("utf-8", "surrogatepass"))


def test_a_lone_surrogate_beside_a_secret_stays() -> None:
    assert Mask(["hunter2"]).text("\ud800hunter2\udfff") == "\ud800***\udfff"


def test_much_output_and_a_long_key_take_little_time() -> None:
    """No figure of this machine: a guard against what grows with the square."""
    key = "\n".join(base64.b64encode(bytes((line * 7 + at) % 251 for at in range(48))).decode() for line in range(50))
    started = time.process_time()
    mask = Mask([key])
    stream = mask.stream()
    for _ in range(64):
        stream.feed(b"2026-01-31T00:00:00Z INFO imported 1200 rows into table orders, 17 refused\n" * 800)
    for byte in key.encode():
        stream.feed(bytes([byte]))
    assert stream.end() in (b"***", b"")
    assert time.process_time() - started < 10


# --- events ------------------------------------------------------------------------------------------------------------------


def output(data: bytes, task: str = "a", attempt: int = 1) -> TaskOutput:
    return TaskOutput(task=task, item=None, attempt=attempt, pool="default", data=data)


def finished(**changes: Any) -> TaskFinished:
    given: dict[str, Any] = {"task": "a", "item": None, "attempt": 1, "mode": "process", "worker": "w", "pid": 7}
    return TaskFinished(**{**given, "outcome": "failed", "duration": 0.5, **changes})


def emitted(*given: Event, secret: str = "hunter2") -> list[Event]:
    found: list[Event] = []
    emit = masked(Mask([secret]), found.append)
    for event in given:
        emit(event)
    return found


def test_output_that_is_held_back_comes_before_the_event_that_ends_its_attempt() -> None:
    found = emitted(output(b"x hunt"), output(b"hunter", "b"), output(b"er2 y hu"), finished(), output(b"2", "b"))
    assert found == [output(b"x "), output(b"*** y "), output(b"hu"), finished(), output(b"***", "b")]


@pytest.mark.parametrize(
    "end",
    [
        events.PoolClosed(pool="default"),
        events.RunFinished(outcome="failed", exit_code=1, duration=1.0, task_time=1.0, outcomes={}),
        events.TaskLateResult(task="a", item=None, attempt=1, outcome="failed"),
    ],
    ids=lambda event: event.NAME,
)
def test_what_is_held_back_of_a_late_output_is_not_lost(end: Event) -> None:
    assert emitted(output(b"hunt"), end) == [output(b"hunt"), end]


def test_outputs_of_two_attempts_are_not_mixed() -> None:
    found = emitted(output(b"hunt"), output(b"er2", attempt=2), finished(), finished(attempt=2))
    assert found == [output(b"er2", attempt=2), output(b"hunt"), finished(), finished(attempt=2)]


def test_every_text_of_an_event_is_masked() -> None:
    error = {"type": "E", "message": "hunter2", "traceback": "…\nE: hunter2"}
    before = finished(error=error, output="unter2\nhunter2", note="hunter2", reason="hunter2", item="hunter2")
    (after,) = emitted(before)
    assert isinstance(after, TaskFinished)
    assert after.error == {"type": "E", "message": "***", "traceback": "…\nE: ***"}
    assert (after.output, after.note, after.reason, after.item) == ("***\n***", "***", "***", "***")
    (started,) = emitted(
        events.RunStarted(file="/f", run_dir="/d", pid=1, tasks=1, params={"hunter2": ["hunter2"]}, options={"only": ["hunter2"]})
    )
    assert isinstance(started, events.RunStarted)
    assert (started.params, started.options) == ({"***": ["***"]}, {"only": ["***"]})


def test_a_secret_that_is_a_word_of_ours_does_not_damage_what_a_resume_reads() -> None:
    before = finished(task="process", outcome="succeeded", mode="process", digest="process")
    assert emitted(before, secret="process") == [before]
    skipped = events.TaskSkipped(task="recorded", reason="recorded", outcome="succeeded")
    assert emitted(skipped, secret="recorded") == [skipped]


@pytest.mark.parametrize(
    ("data", "is_kept"),
    [
        (Data(value=b'{"a":1}', stdout=b"fine", outputs={"k": "v"}), True),
        (Data(value=json.dumps(["hunter2"]).encode()), False),
        (Data(stdout=b"x hunter2"), False),
        (Data(outputs={"k": "hunter2"}), False),
        (Data(outputs={"hunter2": "v"}), False),
        (Data(stdout=b"unter2" + b"x" * (64 << 10)), False),
        (Data(stdout=b"unter2"), True),
    ],
)
def test_data_that_holds_a_secret_is_withheld_as_a_whole(data: Data, is_kept: bool) -> None:
    (after,) = emitted(finished(data=data))
    assert isinstance(after, TaskFinished)
    assert after.data == (data if is_kept else Data(withheld=True))


def test_every_kind_of_event_passes() -> None:
    """No event has a field that the mask cannot put back."""
    for kind in get_args(events.Event):
        values = {name: _sample(str(each.type)) for name, each in kind.__dataclass_fields__.items() if name != "NAME"}
        event = kind(**values)
        after = emitted(event, events.RunFinished(outcome="x", exit_code=0, duration=0.0, task_time=0.0, outcomes={}))
        assert after[0] == event


def _sample(annotation: str) -> object:
    samples = {
        "str": "text",
        "int": 1,
        "float": 1.5,
        "bool": True,
        "bytes": b"data.\n",
        "dict": {"k": "v"},
        "list": [1],
        "tuple": ("text",),
        "Data": Data(),
    }
    return next(value for name, value in samples.items() if annotation.startswith(name))
