"""What is wrong with `if`, matrix, glob, finally, limits, cache, schedule, steps, retry rules: where, why, and what to write."""

from __future__ import annotations

import pytest

from jobrunner import jobfile, spec
from jobrunner.errors import JobFileError, Problem
from jobrunner.expressions import parse
from jobrunner.jobfile import checks, instances, references
from jobrunner.jobfile.salvage import Unsure


def problems(text: str) -> tuple[Problem, ...]:
    try:
        jobfile.parse(text.encode(), "a.yaml")
    except JobFileError as error:
        return error.problems
    return ()


def marked(problem: Problem) -> str:
    """What the carets stand under."""
    return problem.source[problem.column - 1 : problem.column - 1 + problem.length]


def said(text: str) -> list[tuple[str, str, str]]:
    """Line and column, what is marked, and the message with its hint."""
    return [(f"{found.line}:{found.column}", marked(found), f"{found.message} {found.hint}".strip()) for found in problems(text)]


Row = tuple[str, list[tuple[str, str, str]]]


# --- if ----------------------------------------------------------------------------------------------------------------------

PROSE = "A condition is an expression, like params.full or failure()."
CONDITIONS: list[Row] = [
    ("tasks: {a: {run: x, if: yes}}", [("1:25", "yes", "the name 'yes' is not known here. Write true.")]),
    ("tasks: {a: {run: x, if: Off}}", [("1:25", "Off", "the name 'Off' is not known here. Write false.")]),
    ("tasks: {a: {run: x, if: failure}}", [("1:25", "failure", "the name 'failure' is not known here. Write failure().")]),
    ("params: {n: 1}\ntasks: {a: {run: x, if: n > 1}}", [("2:25", "n", "the name 'n' is not known here. Write params.n.")]),
    (
        "tasks: {a: {run: x, if: yes please}}",
        [("1:29", "p", f"`yes please` is not an expression: invalid syntax. {PROSE}")],
    ),
    (
        "tasks: {a: {run: x, if: failure() && true}}",
        [("1:36", "&", "`failure() && true` is not an expression: invalid syntax. Write `and`.")],
    ),
    (
        "tasks: {a: {run: x, if: \"'yes'\"}}",
        [("1:26", "'yes'", "a condition is true or false; this is always the same text. Write a comparison.")],
    ),
    (
        "tasks: {a: {run: x, if: '3'}}",
        [("1:26", "3", "a condition is true or false; this is always the same number. Write a comparison.")],
    ),
    ("tasks: {a: {run: x, if: 3}}", [("1:25", "3", "a condition is an expression, like ${{ params.full }} or failure()")]),
    (
        "tasks: {a: {run: x, if: 'a ${{ true }}'}}",
        [("1:26", "a ${{ true }}", "a condition is one expression. Write all of it in one ${{ }}.")],
    ),
    (
        "params: {full: true}\ntasks:\n  a:\n    if: success() and params.ful\n    run: x\n",
        [("4:23", "params.ful", "the job has no parameter 'ful'. Did you mean 'full'?")],
    ),
    (
        "params: {full: true}\ntasks:\n  a:\n    if: ${{ success() and params.ful }}\n    run: x\n",
        [("4:27", "params.ful", "the job has no parameter 'ful'. Did you mean 'full'?")],
    ),
    (
        "tasks:\n  a: {run: x}\n  b: {run: x, if: tasks.a.exit_code == 3}\n",
        [
            (
                "3:19",
                "tasks.a.exit_code",
                "'a' is not among the needs of 'b', so it may not have run yet. Add a to needs: [a].",
            )
        ],
    ),
    (
        "secrets: {t: {env: T}}\ntasks: {a: {run: x, if: \"secrets.t != ''\"}}",
        [("2:26", "secrets.t", "a secret never stands in if, only in env. Write secrets: [t]; the task itself can test it.")],
    ),
    (
        "tasks: {a: {run: 'x ${{ failure() }}'}}",
        [("1:25", "failure()", "failure() is known only in `if`. tasks.NAME.outcome is how a task has ended.")],
    ),
    ("env: {X: '${{ always() }}'}\ntasks: {a: {run: x}}", [("1:15", "always()", "always() is known only in `if`")]),
    (
        "tasks: {a: {run: x, foreach: '${{ success() }}'}}",
        [("1:35", "success()", "success() is known only in `if`. tasks.NAME.outcome is how a task has ended.")],
    ),
    (
        "tasks: {a: {run: x, if: item > 1}}",
        [("1:25", "item", "'item' is known only in a task with foreach")],
    ),
    (
        "tasks: {a: {run: x, if: index > 1}}",
        [("1:25", "index", "'index' is known only in a task with foreach or matrix")],
    ),
]


# --- matrix ------------------------------------------------------------------------------------------------------------------

MATRICES: list[Row] = [
    (
        "tasks: {a: {run: x, foreach: [1], matrix: {os: [1]}}}",
        [
            (
                "1:35",
                "matrix",
                "foreach and matrix exclude each other. Make the items one more name of the matrix, or leave one of them out.",
            )
        ],
    ),
    (
        "tasks: {a: {run: 'x ${{ matrix.os }}', foreach: [1]}}",
        [("1:25", "matrix.os", "'matrix' is known only in a task with matrix. Write item.")],
    ),
    (
        "tasks: {a: {run: 'x ${{ item }}', matrix: {os: [1]}}}",
        [("1:25", "item", "'item' is known only in a task with foreach. Write matrix.os.")],
    ),
    (
        "tasks: {a: {run: 'x ${{ matrix.pyton }}', matrix: {os: [1], include: [{python: 3}]}}}",
        [("1:25", "matrix.pyton", "matrix has no 'pyton'. Did you mean 'python'?")],
    ),
    (
        "tasks: {a: {run: 'x ${{ matrix.zzz }}', matrix: {os: [1], cpu: [1]}}}",
        [("1:25", "matrix.zzz", "matrix has no 'zzz'. There are os, cpu.")],
    ),
    (
        "env: {X: '${{ matrix.os }}'}\ntasks: {a: {run: x}}",
        [("1:15", "matrix.os", "'matrix' is not known in the env of the job. Write it in the env of the task.")],
    ),
    (
        "tasks: {a: {run: x, matrix: {os: ['${{ matrix.b }}']}}}",
        [("1:40", "matrix.b", "'matrix' is not known in matrix, which says what the combinations are")],
    ),
    (
        "tasks: {a: {run: x, matrix: {os: [1], include: [{b: '${{ item }}'}]}}}",
        [("1:58", "item", "'item' is not known in matrix, which says what the combinations are")],
    ),
    (
        "tasks: {a: {run: x, matrix: {os: linux}}}",
        [
            (
                "1:34",
                "linux",
                "a name of a matrix is a list, or one expression that gives a list; this is text. Write os: [linux].",
            )
        ],
    ),
    (
        "tasks: {a: {run: x, matrix: {n: 5}}}",
        [("1:33", "5", "each name of a matrix has a list, or an expression that gives one. Write [5].")],
    ),
    (
        "params: {n: 5}\ntasks: {a: {run: x, matrix: {n: '${{ params.n }}'}}}",
        [("2:38", "params.n", "the parameter 'n' is a whole number, not a list")],
    ),
    (
        "tasks: {a: {run: x, matrix: [1, 2]}}",
        [("1:29", "[", "expected a map (key: value), found a list. Give each name its list: matrix: {name: [a, b]}.")],
    ),
    (
        "tasks: {a: {run: x, matrix: {os: [a], include: [b]}}}",
        [("1:49", "b", "include of a matrix is a list of maps. Write include: [{name: value}].")],
    ),
    (
        "params: {n: 3}\ntasks: {a: {run: x, matrix: {os: [a], include: '${{ params.n }}'}}}",
        [("2:53", "params.n", "the parameter 'n' is a whole number, not a list")],
    ),
    (
        "tasks: {a: {run: x, matrix: {os: [a], exclude: a}}}",
        [("1:48", "a", "exclude of a matrix is a list of maps. Write exclude: [{name: value}].")],
    ),
    (
        "tasks: {a: {run: x, matrix: {os: [a], include: [{}], exclude: [{}]}}}",
        [
            ("1:49", "{", "nothing is added by an empty map. Leave it out."),
            ("1:64", "{", "every combination is dropped by an empty map. Leave it out."),
        ],
    ),
    (
        "tasks: {a: {run: x, matrix: {exclude: [{os: a}]}}}",
        [
            (
                "1:30",
                "exclude",
                "exclude drops combinations, and this matrix has no names that make some. Write name: [a, b] beside it.",
            )
        ],
    ),
    (
        "tasks: {a: {run: x, matrix: {arch: [a], exclude: [{arhc: a}, {zzz: a}]}}}",
        [
            ("1:52", "arhc", "no list of the matrix is called 'arhc'. Did you mean 'arch'?"),
            ("1:63", "zzz", "no list of the matrix is called 'zzz'. There is arch."),
        ],
    ),
    (
        "tasks: {a: {run: x, matrix: {os: [linux], exclude: [{os: linus}, {os: [linux]}]}}}",
        [
            ("1:58", "linus", "'os' has no such value, so nothing is dropped. Did you mean 'linux'?"),
            ("1:71", "[", "exclude compares one value. Write a map for each of them."),
        ],
    ),
    (
        "tasks:\n  a: {target: 'm:f', matrix: {n: [1]}}\n  b: {run: 'x ${{ tasks.a.result }}', needs: [a]}",
        [("3:19", "tasks.a.result", "'a' has a matrix: it has a list of results. Write tasks.a.results.")],
    ),
    (
        "tasks:\n  a: {run: x, matrix: {n: [1]}}\n  b: {run: 'x ${{ tasks.a.stdout }}', needs: [a]}",
        [
            (
                "3:19",
                "tasks.a.stdout",
                (
                    "'a' is a command with a matrix: it has no stdout of its own, each combination has. "
                    "Write tasks.a.results: a list of maps with item, outcome, exit_code, stdout and outputs."
                ),
            )
        ],
    ),
    (
        "tasks:\n  a: {target: 'm:f'}\n  b: {run: x, matrix: {n: '${{ tasks.a.result }}'}}",
        [("3:32", "tasks.a.result", "'a' is not among the needs of 'b', so it may not have run yet. Add a to needs: [a].")],
    ),
]


# --- finally -----------------------------------------------------------------------------------------------------------------

FINALS: list[Row] = [
    (
        "tasks: {a: {run: x, needs: [n]}}\nfinally: {n: {run: x}}",
        [
            (
                "1:29",
                "n",
                "'n' is a finally task: it starts when all tasks have ended. Leave it out, or move 'a' to finally.",
            )
        ],
    ),
    (
        "tasks: {a: {run: 'x ${{ tasks.n.exit_code }}'}}\nfinally: {n: {run: x}}",
        [
            (
                "1:25",
                "tasks.n.exit_code",
                "'n' is a finally task: it starts when all tasks have ended. Move 'a' to finally.",
            )
        ],
    ),
    (
        "tasks: {a: {run: x}}\nfinally: {n: {run: x, needs: [a]}}",
        [("2:31", "a", "a finally task waits for all tasks anyway. Leave it out.")],
    ),
    (
        "tasks: {a: {run: x, needs: [n]}}\nfinally: {n: {run: x, needs: [a]}}",
        [
            (
                "1:29",
                "n",
                "'n' is a finally task: it starts when all tasks have ended. Leave it out, or move 'a' to finally.",
            ),
            ("2:31", "a", "a finally task waits for all tasks anyway. Leave it out."),
        ],
    ),
    (
        "tasks: {a: {run: x}}\nfinally: {n: {run: x, needs: [mm]}, m: {run: x}}",
        [("2:31", "mm", "no task is called 'mm'. Did you mean 'm'?")],
    ),
    (
        "tasks: {a: {run: x}}\nfinally:\n  n: {run: x, needs: [m]}\n  m: {run: x, needs: [n]}",
        [("3:23", "m", "tasks need each other in a circle: n needs m (line 3), m needs n (line 4)")],
    ),
    (
        "tasks: {a: {run: x}}\nfinally: {n: {run: x}, m: {run: 'x ${{ tasks.n.outcome }}'}}",
        [
            (
                "2:40",
                "tasks.n.outcome",
                "'n' is not among the needs of 'm', so it may not have run yet. Add n to needs: [n].",
            )
        ],
    ),
    (
        "tasks: {a: {run: x}}\nfinally: {n: {run: x, if: tasks.a.result}}",
        [
            (
                "2:27",
                "tasks.a.result",
                "'a' is a command: it has no result. Write tasks.a.stdout or tasks.a.outputs.KEY or tasks.a.exit_code.",
            )
        ],
    ),
    (
        "tasks: {a: {run: x}}\nfinally: {n: {run: x, if: tasks.b.outcome}}",
        [("2:27", "tasks.b.outcome", "no task is called 'b'. The only other task is a.")],
    ),
    ("tasks: {a: {run: x}}\nfinally: {A: {run: x}}", [("2:11", "A", "'A' differs from 'a' only in case")]),
    (
        "tasks: {a: {run: x}}\nfinally: {n: {}}",
        [
            (
                "2:11",
                "n",
                (
                    "a task has exactly one of target, run and argv; this one has none of them. "
                    "Write one of target: module:function, run: command, argv: [command, argument]."
                ),
            )
        ],
    ),
]


# --- limits ------------------------------------------------------------------------------------------------------------------

LIMITS: list[Row] = [
    ("tasks: {a: {run: x, limits: [api]}}", [("1:30", "api", "the job has no limit 'api'. Declare it: limits: {api: 4}.")]),
    ("tasks: {a: {run: x, limits: {api: 9}}}", [("1:30", "api", "the job has no limit 'api'. Declare it: limits: {api: 9}.")]),
    (
        "limits: {api: 2}\ntasks: {a: {run: x, limits: [apy]}}",
        [("2:30", "apy", "the job has no limit 'apy'. Did you mean 'api'?")],
    ),
    (
        "limits: {api: {slots: 2}}\ntasks: {a: {run: x, limits: {api: 3}}}",
        [("2:35", "3", "'api' has 2 slots, so a task that takes 3 could never start. Take fewer, or raise the limit: {api: 3}.")],
    ),
    (
        "limits: {api: 2}\ntasks: {a: {run: x, limits: [api, api]}}",
        [("2:35", "api", "'api' is listed twice. Leave one out; two slots are limits: {api: 2}.")],
    ),
    (
        "defaults: {limits: [api]}\ntasks: {a: {run: x}, b: {run: x}}",
        [("1:21", "api", "the job has no limit 'api'. Declare it: limits: {api: 4}.")],
    ),
    (
        "tasks: {a: {run: x, limits: api}}",
        [
            (
                "1:29",
                "api",
                "limits of a task are a list of names, or a map from name to how many slots it takes. Write [api].",
            )
        ],
    ),
    ("limits: {api: 0}\ntasks: {a: {run: x}}", [("1:15", "0", "expected 1 or more")]),
    ("limits: {api: {scope: host}}\ntasks: {a: {run: x}}", [("1:10", "api", "'slots' is missing. Write {slots: 4}.")]),
    (
        "limits: {api: '${{ params.n }}'}\ntasks: {a: {run: x}}",
        [
            (
                "1:15",
                "'${{ params.n }}'",
                "a limit is a whole number of slots, or {slots, scope}. There is no ${{ }} here: write the value itself.",
            )
        ],
    ),
    ("limits: {api: 2, API: 3}\ntasks: {a: {run: x}}", [("1:18", "API", "'API' differs from 'api' only in case")]),
]


# --- cache, retry, steps -----------------------------------------------------------------------------------------------------

TASKS: list[Row] = [
    ("tasks: {a: {run: x, cache: {inputs: [' ']}}}", [("1:38", "' '", "this path is empty. Leave it out.")]),
    ("tasks: {a: {run: x, cache: {outputs: ['']}}}", [("1:39", "''", "expected text, found none")]),
    ('tasks: {a: {run: x, cache: {inputs: ["a\\0b"]}}}', [("1:38", '"a\\0b"', "a path cannot hold a NUL character")]),
    (
        "tasks: {a: {run: x, cache: {outputs: ['${{ item }}.csv']}}}",
        [("1:44", "item", "'item' is known only in a task with foreach")],
    ),
    (
        "tasks: {a: {run: x, cache: true}}",
        [("1:28", "true", "expected a map (key: value), found true. Write cache: {inputs: [path], outputs: [path]}.")],
    ),
    (
        "tasks: {a: {run: x, retry: {max: 2, exceptions: [ValueError]}}}",
        [("1:37", "exceptions", "a command has an exit code, no exception. Write exit_codes: [1].")],
    ),
    (
        "tasks: {a: {target: 'm:f', retry: {max: 2, exceptions: [m.E, m.E], exit_codes: [1, 2, 1]}}}",
        [("1:62", "m.E", "'m.E' is listed twice. Leave one out."), ("1:87", "1", "1 is listed twice. Leave one out.")],
    ),
    (
        "tasks: {a: {target: 'm:f', retry: {max: 2, exceptions: ['a b'], exit_codes: [256]}}}",
        [
            (
                "1:57",
                "'a b'",
                "'a b' is not the name of an exception: ConnectionError, or with its module requests.Timeout",
            ),
            ("1:78", "256", "expected 255 or less"),
        ],
    ),
    (
        "tasks: {a: {run: [tar, -czf, x]}}",
        [
            (
                "1:24",
                "-czf",
                "a list is run step by step, and no command begins with '-'. Write argv: […] for one command with its arguments.",
            )
        ],
    ),
    (
        "tasks:\n  a:\n    run:\n      - make\n      - ''\n      - ' '\n      - 3\n",
        [
            ("5:9", "''", "this step is empty. Leave it out."),
            ("6:9", "' '", "this step is empty. Leave it out."),
            ("7:9", "3", 'expected text, found a number. Write "3".'),
        ],
    ),
    (
        "tasks:\n  a:\n    run:\n      - echo ${{ parms.x }}\n      - |\n        cat <<E\n        ${{ run.id }}\n        E\n",
        [
            ("4:18", "parms.x", "the name 'parms' is not known here. Did you mean 'params'?"),
            (
                "7:13",
                "run.id",
                (
                    "`run.id` cannot be quoted safely in a here-document, where a shell expands it. "
                    'Put the value in `env` and write "$NAME" in the command; raw() pastes it unquoted.'
                ),
            ),
        ],
    ),
    ("tasks: {a: {run: []}}", [("1:18", "[", "expected at least one entry, found none")]),
]


# --- schedule ----------------------------------------------------------------------------------------------------------------

FIVE = "a schedule has five fields (minute, hour, day of the month, month, day of the week); this one has"
SCHEDULES: list[Row] = [
    ("schedule: '@Daily'\n", [("1:11", "'@Daily'", 'a schedule is written in five fields. Write "0 0 * * *".')]),
    ("schedule: '@dayly'\n", [("1:11", "'@dayly'", "a schedule is written in five fields. Did you mean '@daily'?")]),
    ("schedule: 0 2 * *\n", [("1:11", "0 2 * *", f'{FIVE} 4. Every night at half past two is "30 2 * * *".')]),
    (
        "schedule: 0 0 2 * * *\n",
        [("1:11", "0 0 2 * * *", f"{FIVE} 6. There are no seconds here: leave the first field out.")],
    ),
    (
        "schedule: {cron: CRON_TZ=UTC 0 2 * * *}\n",
        [("1:18", "CRON_TZ=UTC 0 2 * * *", f"{FIVE} 6. Write schedule: {{cron: …, timezone: …}}.")],
    ),
    ("schedule: 0 25 * * *\n", [("1:13", "25", "'25' is no hour: 0 to 23")]),
    (
        "schedule: '61 5-3 ? JANU FRY'\n",
        [
            ("1:12", "61", "'61' is no minute: 0 to 59"),
            ("1:15", "5-3", "'5-3' is no hour: 0 to 23. A range runs upwards."),
            ("1:19", "?", "'?' is no day of the month: 1 to 31. Write *."),
            ("1:21", "JANU", "'JANU' is no month: 1 to 12, or JAN to DEC"),
            ("1:26", "FRY", "'FRY' is no day of the week: 0 to 7 (0 and 7 are Sunday), or SUN to SAT"),
        ],
    ),
    ("schedule: 0 0 31 4 *\n", [("1:15", "31", "no month of this schedule has that day, so it would never start")]),
    (f"schedule: '{'9' * 50} * * * *'\n", [("1:12", "9" * 50, f"'{'9' * 50}' is no minute: 0 to 59")]),
    ("schedule: ${{ params.when }}\n", [("1:11", "${{ params.when }}", "no ${{ }} is evaluated here. Write the value itself.")]),
    (
        "schedule: {cron: 0 2 * * *, timezone: Europe/Berln}\n",
        [("1:39", "Europe/Berln", "no time zone is called 'Europe/Berln'. Did you mean 'Europe/Berlin'?")],
    ),
    (
        "schedule: {cron: 0 2 * * *, timezone: berlin}\n",
        [("1:39", "berlin", "no time zone is called 'berlin'. Did you mean 'Europe/Berlin'?")],
    ),
    (
        "schedule: {cron: 0 2 * * *, timezone: ../etc}\n",
        [("1:39", "../etc", "no time zone is called '../etc'. Write one like Europe/Berlin, or UTC.")],
    ),
    ("schedule: {timezone: UTC}\n", [("1:1", "schedule", "'cron' is missing. Write schedule: {cron: \"30 2 * * *\"}.")]),
]

_BRACES = "braces are not a pattern here."
GLOBS: list[Row] = [
    (f"tasks: {{a: {{run: x, foreach: {keys}}}}}", [(at, marks, told)])
    for keys, at, marks, told in (
        ('{glob: "*.{jpg,png}"}', "1:40", "{jpg,png}", f'{_BRACES} Write a list: ["*.jpg", "*.png"].'),
        ('{glob: ["*.{a,b,}", b]}', "1:41", "{a,b,}", f'{_BRACES} Write one for each: "*.a", "*.b", "*.".'),
        ('{glob: "{a,{b,c}}"}', "1:41", "{b,c}", f"{_BRACES} Write a list: [a, b, a, c]."),
        ("{glob: 'log.{1..9}'}", "1:42", "{1..9}", f"{_BRACES} Write a list of patterns, one for each."),
        ('{glob: "{a,b}{c,d}{e,f}{g,h}"}', "1:38", "{a,b}", f"{_BRACES} Write a list of patterns, one for each."),
        (
            '{glob: "[{,}].{${{ join([1, 2], run.id) }},x}"}',
            "1:44",
            "{${{ join([1, 2], run.id) }},x}",
            f'{_BRACES} Write a list: ["[{{,}}].${{{{ join([1, 2], run.id) }}}}", "[{{,}}].x"].',
        ),
        ("{glob: x, at_lest: 1}", "1:40", "at_lest", "unknown key. Did you mean 'at_least'?"),
        ("{glob: x, minimum: 1}", "1:40", "minimum", "unknown key. Write 'at_least'."),
        ("{range: 3, at_least: 1}", "1:41", "at_least", "unknown key. at_least stands beside glob, and nowhere else."),
        ("{lines: x, at_least: 1}", "1:41", "at_least", "unknown key. at_least stands beside glob, and nowhere else."),
        ("{glob: x, at_least: -1}", "1:50", "-1", "expected 0 or more"),
        (
            "{glob: x, at_least: '${{ run.attempt }}'}",
            "1:50",
            "'${{ run.attempt }}'",
            "expected a whole number, found text. There is no ${{ }} here: write the value itself.",
        ),
        ("{glob: 3}", "1:37", "3", 'glob is a pattern of paths, or a list of patterns. Write "3".'),
        ("{glob: {a: 1}}", "1:37", "{", "glob is a pattern of paths, or a list of patterns"),
        ("{glob: []}", "1:37", "[", "expected at least one entry, found none"),
        ("{glob: [a, '']}", "1:41", "''", "expected text, found none"),
        ("{glob: ['${{ item }}']}", "1:43", "item", "'item' is not known in foreach, which says what the items are"),
        (
            "'*.csv'",
            "1:30",
            "'*.csv'",
            'foreach is a list, or one expression that gives a list; this is text. Write foreach: {glob: "*.csv"}.',
        ),
    )
]


ALL = [
    *CONDITIONS,
    *GLOBS,
    *MATRICES,
    *FINALS,
    *LIMITS,
    *TASKS,
    *((f"{text}tasks: {{a: {{run: x}}}}\n", rows) for text, rows in SCHEDULES),
]


@pytest.mark.parametrize(("text", "rows"), ALL, ids=[text[:70] for text, _ in ALL])
def test_a_mistake_is_marked_where_it_stands_and_answered_with_what_to_write(text: str, rows: list[tuple[str, str, str]]) -> None:
    assert said(text) == rows


# --- what is right -----------------------------------------------------------------------------------------------------------

RIGHT = """\
tasks: {a: {run: x, if: false}, b: {run: x, if: true}}
--
params: {n: 1}
tasks: {a: {run: x, if: params.n == 1 or always()}}
--
tasks: {a: {run: x}, b: {run: x, needs: [a], if: failure() and tasks.a.outcome == 'failed'}}
--
tasks: {a: {run: x, foreach: [1], if: item > index}, b: {run: x, matrix: {n: [1]}, if: "${{ matrix.n > index }}"}}
--
tasks: {a: {run: "x ${{ matrix.os }}", matrix: {include: [{os: a}, {os: b, py: 3}]}}}
--
params: {n: n}
tasks: {a: {run: "x ${{ matrix[params.n] }}", matrix: {n: [], os: [a, "${{ params.n }}"], exclude: [{os: z}]}}}
--
tasks:
  a: {target: "m:f"}
  b: {target: "m:f", needs: [a], kwargs: {m: "${{ matrix }}"}, matrix: {n: "${{ tasks.a.result }}"}}
--
tasks:
  a: {target: "m:f"}
  b: {run: "x ${{ matrix.any }}", needs: [a], matrix: {include: "${{ tasks.a.result }}"}}
--
tasks:
  a: {target: "m:f", matrix: {n: [1]}}
  b: {target: "m:f", needs: [a], args: ["${{ tasks.a.results }}"]}
--
tasks: {a: {run: x}}
finally:
  n: {run: "x ${{ tasks.a.stdout }}", if: failure()}
  m: {run: "x ${{ tasks.n.outcome }}", needs: [n]}
--
limits: {api: 2, db: {slots: 3, scope: host}, unused: 1}
tasks: {a: {run: x, limits: {api: 2, db: 1}}, b: {run: x, limits: [db]}}
--
tasks: {a: {run: "x ${{ item }}", foreach: [1], cache: {inputs: ["${{ item }}"], outputs: [/out], ttl: 1d}}}
--
tasks: {a: {run: x, cache: {}, at_most_once: true}, b: {target: "m:f", retry: {max: 1, exit_codes: [3]}}}
--
defaults: {retry: {max: 1, exceptions: [OSError]}}
tasks: {a: {run: x}, b: {target: "m:f"}}
--
tasks: {a: {run: [make, make test, . ./env]}}
--
params: {l: [a], braces: "{a,b}"}
tasks:
  a: {run: x, foreach: {glob: ["*.csv", "${{ params.l }}", "${{ params.braces }}"], at_least: 1}}
  b: {run: x, foreach: {glob: "[{]a,b}/{one}/[!]{,}]*"}}
--
schedule: 30 2 * * MON-FRI
tasks: {a: {run: x}}
--
schedule: {cron: "*/15 0-6,12 1,15 1-12/2 0", timezone: Europe/Berlin, jitter: 5m, catchup: true}
tasks: {a: {run: x}}
"""


@pytest.mark.parametrize("text", RIGHT.split("--\n"))
def test_what_is_right_is_let_through(text: str) -> None:
    assert said(text) == []


def test_without_a_database_of_time_zones_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoneinfo.available_timezones", set)
    assert said("schedule: {cron: 0 2 * * *, timezone: Mars/Olympus}\ntasks: {a: {run: x}}") == []


# --- where a condition stands in the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scalar", "place"),
    [
        ("failure() and params.b", "4:23"),
        ("'failure() and params.b'", "4:24"),
        ('"failure()   and params.b"', "4:26"),
        ("'''x'' == params.c and params.b'", "4:32"),
        ('"\\"x\\" == params.c and params.b"', "4:32"),
        ("failure()\n      and params.b", "5:11"),
        (">-\n      failure() and\n      params.b", "6:7"),
        ("|\n      failure() and params.b", "5:21"),
        ("${{ failure() and params.b }}", "4:27"),
        ("params.b == 'params.b'", "4:9"),
    ],
)
def test_a_name_in_a_condition_is_marked_in_every_style_of_text(scalar: str, place: str) -> None:
    found = problems(f"params: {{c: x}}\ntasks:\n  a:\n    if: {scalar}\n    run: x\n")
    assert [(f"{each.line}:{each.column}", marked(each)) for each in found] == [(place, "params.b")]


# --- jobs that were not read from a file -------------------------------------------------------------------------------------


def built(tasks: dict[str, dict[str, object]], finals: dict[str, dict[str, object]]) -> spec.Job:
    """A job with its final tasks among the others, as the loader merges it."""
    job = spec.Job.model_validate({"tasks": tasks, "finally": finals})
    job.tasks.update(job.finals)
    return job


def test_a_final_task_may_use_what_every_task_has_come_to() -> None:
    tasks: dict[str, dict[str, object]] = {f"t{n}": {"run": "x"} for n in range(50)}
    text = " ".join(f"${{{{ tasks.{name}.outcome }}}}" for name in tasks)
    job = built(tasks, {"end": {"run": f"echo {text}"}})
    assert list(checks.find(job, lambda path: "")) == []
    assert list(references.find(job, Unsure())) == []


def test_what_is_found_of_a_final_task_stands_at_its_row_among_the_tasks() -> None:
    job = built({"a": {"run": "x"}}, {"end": {"run": "x", "needs": ["a"], "if": "params.x"}})
    found = [*checks.find(job, lambda path: ""), *references.find(job, Unsure())]
    assert [finding.path for finding in found] == [("tasks", "end", "needs", 0), ("tasks", "end", "if")]


def test_combinations_are_bounded_before_they_are_made() -> None:
    axes: dict[str, object] = {f"n{n}": list(range(1000)) for n in range(3)}
    job = built({"a": {"run": "x", "matrix": axes}}, {})
    (finding,) = checks.find(job, lambda path: "")
    assert finding.message == f"more than {instances.MOST_ITEMS:,} combinations"


# --- what rests on another mistake -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("tasks: {a: {run: 'x ${{ matrix.os }}', matrix: 5}}", ["expected a map (key: value), found a number."]),
        ("tasks: {a: {run: 'x ${{ item }}', foreach: 5}}", ["foreach is a list"]),
        (
            "tasks: {a: {run: 'x ${{ matrix.os }} ${{ matrix.n }}', matrix: {os: 5, n: [1]}}}",
            ["each name of a matrix has a list"],
        ),
        ("limits: 4\ntasks: {a: {run: x, limits: [api]}}", ["expected a map (key: value), found a number."]),
        ("limits: {api: x}\ntasks: {a: {run: x, limits: {api: 9}}}", ["a limit is a whole number"]),
        ("tasks: {a: {run: x, limits: [3], needs: [b]}}", ["expected text", "no task is called 'b'"]),
        ("defaults: {limits: [3]}\ntasks: {a: {run: x}, b: {run: x}}", ["expected text"]),
        ("include: common.yaml\ntasks: {a: {run: x, needs: [b], limits: [c], secrets: [d]}}", ["expected a list"]),
        (
            "tasks: {a: {run: [x, 3, 'y ${{ parms.x }}']}, b: {run: 'x ${{ tasks.a.exit_code }}', needs: [a]}}",
            ["expected text", "the name 'parms'"],
        ),
        (
            "tasks: {a: {run: x}}\nfinally: {n: {needs: [m], if: tasks.zz.outcome}, m: {run: x, zz: 1}}",
            ["a task has exactly one", "no task is called 'zz'.", "unknown key"],
        ),
        ("tasks: {a: {run: x, schedule: '@daily'}}\nfinally: 5", ["unknown key", "expected a map (key: value), found a number."]),
    ],
)
def test_nothing_is_said_that_only_follows_from_another_mistake(text: str, messages: list[str]) -> None:
    found = [problem.message for problem in problems(text)]
    assert len(found) == len(messages), found
    assert all(message.startswith(start) for message, start in zip(found, messages, strict=True)), found


def test_no_name_of_a_union_member_is_shown() -> None:
    shown = "\n".join(str(problem) for text, _ in ALL for problem in problems(text))
    assert not any(
        tag in shown for tag in ("<command>", "<steps>", "<list>", "<names>", "<counts>", "<slots>", "<limit>", "<rule>")
    )


def test_a_template_knows_the_status_functions_in_it() -> None:
    found = parse("a ${{ failure() or always() }}")
    assert found is not None
    assert found.status == (("failure", 6, 9), ("always", 19, 8))
