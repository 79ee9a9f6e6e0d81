"""Start-up: nothing is loaded that a run does not use, and what is understood without click is what click understands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from jobrunner import encoding, host, kinds
from jobrunner.cli import words
from jobrunner.cli.group import jobrunner
from jobrunner.cli.run import run as command

ROOT = Path(__file__).resolve().parent.parent
COMMAND = "tasks: {a: {argv: ['true']}}"
LIMITED = "limits: {db: 1}\ntasks: {a: {run: 'echo ${{ params.x }}', limits: [db], retry: 2}}\nparams: {x: 1}"
CALL = "tasks: {a: {target: 'platform:node'}}"

ALWAYS = {"rich", "jsonschema", "sqlite3", "unittest", "pydantic.v1", "structlog", "simpleeval", "cronsim", "asyncio", "ssl"}
"""What no path here needs."""
PARSING = {"pydantic", "pydantic_core", "yaml", "jobrunner.spec", "jobrunner.jobfile.loader", "jobrunner.jobfile.reader"}
PEOPLE = {"click", "inspect", "gettext", "difflib"}
HEAVY = {"orjson", "dataclasses", "uuid", "hashlib", "_hashlib", "shutil", "random", "secrets", "traceback", "subprocess"}
HOSTS = {"jobrunner.executors.pool", "jobrunner.host", "socket", "multiprocessing", "concurrent.futures", "logging"}
TYPES = {"typing", "ast", "_ast"}
UNASKED = {"threading", "weakref", "shlex", "array", "jobrunner.selection", "jobrunner.jobfile.params", "jobrunner.bind.fanout"}
"""What runs without expressions, parameters, selection and fan-outs need not know."""
UNUSED = {"jobrunner.masking", "jobrunner.cache", "jobrunner.fingerprint", "jobrunner.slots", "jobrunner.forecast"}


def loaded(folder: Path, *args: str) -> set[str]:
    """The modules that a command line has loaded at its end."""
    code = "import sys\nfrom jobrunner.cli.main import cli\nassert cli(sys.argv[1:]) == 0\nprint('\\nMODULES', *sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JOBRUNNER_STATE": str(folder / "state")}
    ended = subprocess.run(
        [sys.executable, "-c", code, *args], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize(
    ("text", "absent"),
    [
        (COMMAND, ALWAYS | PARSING | PEOPLE | HEAVY | HOSTS | UNUSED | TYPES | UNASKED),
        (LIMITED, ALWAYS | PARSING | PEOPLE | HEAVY | HOSTS | UNUSED),
        (CALL, ALWAYS | PARSING | UNUSED | {"click", "orjson", "dataclasses", "inspect", "uuid", "jobrunner.template"}),
    ],
)
def test_a_run_of_an_unchanged_file_loads_only_what_it_uses(text: str, absent: set[str], tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(text)
    first = loaded(tmp_path, "job.yaml", "-q")
    assert {"pydantic", "yaml"} <= first
    assert loaded(tmp_path, "job.yaml", "-q") & absent == set()


@pytest.mark.parametrize(
    ("args", "text", "absent"),
    [
        (
            ["job.yaml", "-q"],
            COMMAND,
            ALWAYS | {"click", "orjson", "importlib.metadata"} | HOSTS - {"socket", "logging"} | UNUSED,
        ),
        (["validate", "job.yaml"], COMMAND, ALWAYS | UNUSED | {"orjson", "jobrunner.engine", "jobrunner.session"}),
        (
            ["--version"],
            COMMAND,
            ALWAYS | PARSING | PEOPLE | HEAVY | HOSTS | UNASKED | {"jobrunner.events", "json"},
        ),
        (["schema"], COMMAND, ALWAYS | UNUSED | {"orjson", "yaml", "jobrunner.engine"}),
    ],
)
def test_other_paths_load_only_what_they_use(args: list[str], text: str, absent: set[str], tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(text)
    assert loaded(tmp_path, *args) & absent == set()


def test_the_version_is_told_as_click_tells_it(tmp_path: Path) -> None:
    code = "import sys\nfrom jobrunner.cli.main import cli\ncli(sys.argv[1:])"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", code, "--version"], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout == CliRunner().invoke(jobrunner, ["--version"]).output


def test_a_number_of_workers_needs_no_reading(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(COMMAND)
    loaded(tmp_path, "job.yaml", "-q")
    assert loaded(tmp_path, "job.yaml", "-q", "-j", "3") & PARSING == set()


def test_a_serial_job_is_refused_more_workers_also_where_its_file_is_unchanged(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(f"mode: serial\n{COMMAND}")
    loaded(tmp_path, "job.yaml", "-q")
    with pytest.raises(AssertionError, match="mode serial runs one at a time"):
        loaded(tmp_path, "job.yaml", "-q", "-j", "3")
    loaded(tmp_path, "job.yaml", "-q", "-j", "1")


def test_a_host_has_what_calls_need(tmp_path: Path) -> None:
    """The counterpart of the tables above: it would notice if modules were told wrongly."""
    (tmp_path / "job.yaml").write_text(CALL)
    assert loaded(tmp_path, "job.yaml", "-q") >= {"jobrunner.executors.pool", "jobrunner.host"}


def test_modes_are_known_without_what_runs_them() -> None:
    assert set(kinds.MODES) == host.MODES.keys() - {"executor"}
    assert {name for name, mode in host.MODES.items() if mode.threads} == kinds.THREADED


# --- how modules are found ----------------------------------------------------------------------------------------------------


def told(code: str, *options: str, **env: str) -> str:
    """What `code` prints in a fresh interpreter in which modules are found as in a run."""
    began = f"import sys\nfrom jobrunner import finding\nfinding.install()\n{code}"
    ended = subprocess.run(
        [sys.executable, *options, "-c", began],
        cwd="/",  # else this folder is the first place to look
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


SPECS = """
import importlib, importlib.machinery, importlib.util, inspect
from importlib.machinery import PathFinder
for name in ("jobrunner.plan", "jobrunner.plan.node", "jobrunner.loop"):
    ours = importlib.import_module(name)
    usual = PathFinder.find_spec(name, importlib.import_module(name.rpartition(".")[0]).__path__)
    module = importlib.util.module_from_spec(usual)
    for each in ("__name__", "__file__", "__cached__", "__package__", "__path__"):
        assert getattr(ours, each, None) == getattr(module, each, None), (name, each)
    spec = ours.__spec__
    assert [spec.origin, spec.cached, spec.has_location, spec.submodule_search_locations, spec.parent] == [
        usual.origin, usual.cached, usual.has_location, usual.submodule_search_locations, usual.parent]
    assert isinstance(ours.__loader__, importlib.machinery.SourceFileLoader)
    assert ours.__loader__.get_code(name).co_filename == ours.__file__
    assert inspect.getsource(ours)
    importlib.reload(ours)
print(type(sys.modules["jobrunner.loop"].__loader__).__module__)
"""


def test_a_module_that_is_found_quickly_is_as_others_are() -> None:
    assert told(f"import jobrunner.plan.node, jobrunner.loop\n{SPECS}") == "jobrunner.finding"


@pytest.mark.parametrize(("options", "env"), [(["-O"], {}), ([], {"PYTHONPYCACHEPREFIX": "/nowhere"})])
def test_other_caches_are_left_to_python(options: list[str], env: dict[str, str]) -> None:
    code = "import jobrunner.loop\nprint(type(jobrunner.loop.__loader__).__module__.lstrip('_'))"
    assert told(code, *options, **env, PYTHONDONTWRITEBYTECODE="1") != "jobrunner.finding"


def test_a_source_that_has_changed_is_compiled_again(tmp_path: Path) -> None:
    """Of whatever size and time: what was compiled before is not executed."""
    package = tmp_path / "jobrunner"
    package.mkdir()
    for name in ("__init__", "finding", "typed", "errors"):
        (package / f"{name}.py").write_bytes((ROOT / "jobrunner" / f"{name}.py").read_bytes())
    new = package / "new.py"
    found = []
    for number, text in enumerate(("said = 1", "said = 2", "said = 33")):
        new.write_text(text)
        os.utime(new, (1e9 + number, 1e9 + number))
        env = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
        found += [told("import jobrunner.new\nprint(jobrunner.new.said)", **env) for _ in range(2)]
    assert found == ["1", "1", "2", "2", "33", "33"]


@pytest.mark.parametrize("head", [b"", b"\0" * 12, b"\0" * 16])
def test_a_damaged_cache_is_none(head: bytes, tmp_path: Path) -> None:
    package = tmp_path / "jobrunner"
    (package / "__pycache__").mkdir(parents=True)
    for name in ("__init__", "finding"):
        (package / f"{name}.py").write_bytes((ROOT / "jobrunner" / f"{name}.py").read_bytes())
    (package / "new.py").write_text("said = 1")
    (package / "__pycache__" / f"new.{sys.implementation.cache_tag}.pyc").write_bytes(head)
    assert told("import jobrunner.new\nprint(jobrunner.new.said)", PYTHONPATH=str(tmp_path)) == "1"


def test_a_module_that_is_not_there_is_not_found() -> None:
    code = "try:\n    import jobrunner.nothing\nexcept ModuleNotFoundError as error:\n    print(error)"
    assert told(code) == "No module named 'jobrunner.nothing'"


def test_paths_have_urls_though_what_makes_them_is_not_loaded() -> None:
    code = (
        "finding.load_paths()\nimport pathlib\nbefore = 'urllib.parse' in sys.modules\n"
        "print(before, pathlib.Path('/a b').as_uri())\nimport urllib.parse\nprint(urllib.parse.quote('c d'))"
    )
    assert told(code).split("\n") == ["False file:///a%20b", "c%20d"]


def test_plugins_of_pydantic_are_found_by_whoever_wants_them() -> None:
    code = (
        "from jobrunner.jobfile import parse\nparse(b'tasks: {a: {run: ls}}', 'x')\n"
        "before = 'importlib.metadata' in sys.modules\n"
        "import pydantic.plugin._loader as loader\nprint(before, loader.__file__.endswith('_loader.py'))"
    )
    assert told(code) == "False True"


# --- the words of a run -------------------------------------------------------------------------------------------------------

PIECES = (
    "job.yaml", "run", "-q", "--quiet", "-j", "4", "-j4", "-1", "--workers=3", "--mode", "thread", "--mode=nope", "--set", "a=1",
    "--set=b=2", "a", "=x", "--only", "--from=b", "--until", "--skip", "--force", "--fail-fast", "--keep-going", "--resume", "-n",
    "--durability", "disk", "process", "--log-format=json", "--log-format", "--log-level", "debug", "--log-file", "log", "--",
    "-", "--help", "-h", "--params-file", "p.json", "--forc", "--quiet=1", "", "./other.yml", "--log-file=/", "--set=",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=7))
def test_what_is_understood_without_click_is_what_click_understands(line: list[str]) -> None:
    understood = words.arguments(line)
    if understood is None:
        return
    context = command.make_context("run", line[line[0] == "run" :], help_option_names=["-h", "--help"])  # click keeps them
    assert context.params == {**understood, "dry_run": False}


@pytest.mark.parametrize(
    "line",
    [
        "job.yaml",
        "run job.yaml -q",
        "-q job.yaml --set a=b --set c=d=e",
        "job.yaml -j 4 --mode process --only a --only c --from b --fail-fast",
        "job.yaml --keep-going --log-file x.log --log-format=json --log-level debug --force --resume --durability process",
    ],
)
def test_the_usual_command_lines_need_no_click(line: str) -> None:
    assert words.arguments(line.split()) is not None


@pytest.mark.parametrize(
    "line",
    ["", "--help", "run --help", "validate job.yaml", "job.yaml -n", "job.yaml --bogus", "job.yaml --set x", "a.yaml b.yaml"],
)
def test_help_mistakes_and_other_commands_are_left_to_click(line: str) -> None:
    assert words.arguments(line.split()) is None


def test_every_option_of_the_table_is_one_of_the_command() -> None:
    told = CliRunner().invoke(jobrunner, ["run", "--help"]).output
    for row in (*words.DECIDING, words.RESUMING, words.DURABILITY, *words.SHOWING):
        assert all(word in told for word in row.words)


# --- the first values without orjson --------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_a_value_is_the_same_bytes_with_and_without_orjson(value: object) -> None:
    encoding._count = 0
    try:
        briefly, ordered = encoding._briefly(value, encoding._WRITE), encoding._briefly(value, encoding._SORT)
        if briefly is not None:
            assert briefly == orjson.dumps(value)
        if ordered is not None:
            assert ordered == orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    finally:
        encoding._count = 0


@pytest.mark.parametrize("value", [1e-5, 1e16, 5e-324, 1.5e300, 0.1, 1e15, 123456789.123, -0.0, 1e-4, [1e22], {"a": 0.00001}])
def test_numbers_are_the_same_bytes_with_and_without_orjson(value: object) -> None:
    encoding._count = 0
    first = encoding.dumps(value), encoding.sorted_dumps(value)
    encoding._count = 10_000
    assert first == (encoding.dumps(value), encoding.sorted_dumps(value)) == (orjson.dumps(value),) * 2
