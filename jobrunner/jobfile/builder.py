"""Events of a YAML parser → plain values with their marks, in one pass; what multiplies or nests without end is refused.

What a mapping waits for, in `key` (a sequence always waits for an _ITEM):

    _AWAIT_KEY ─a key─→ its text ─value─→ _AWAIT_KEY
               ─<<────→ _MERGE   ─map(s)→ _AWAIT_KEY   merged when the mapping ends: its own keys win
               ─refused→ _DROPPED ─value→ _AWAIT_KEY   the value is read, and kept out
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, NoReturn

import yaml

from jobrunner.errors import Problem
from jobrunner.jobfile import scalars
from jobrunner.jobfile.document import MOST_PROBLEMS, Document, Path, dotted, problem_at, shortened, word_at
from jobrunner.structs import struct

DEEPEST = 64
"""How deep lists and maps may be nested, aliases followed."""

FREE_COPIES = 100_000
"""So many values, plus one a byte of the file, may come from aliases and merge keys: the work stays linear in the file."""

_TOO_DEEP: Final = f"lists and maps are nested more than {DEEPEST} deep"


@struct(kw_only=False)
class _State:
    """What a container waits for, where that is not simply the value of a key."""

    name: str


_AWAIT_KEY: Final = _State("the next key of a mapping")
_ITEM: Final = _State("the next item of a sequence")
_MERGE: Final = _State("the value of <<")
_DROPPED: Final = _State("the value of a key that was refused")


class Refused(Exception):
    """The rest of the file cannot be read, or is not worth it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@struct
class _Anchored:
    """What an alias stands for: how many values, how deep, and a number as it is written."""

    value: object
    weight: int
    height: int
    raw: str | None = None


class Builder:
    """Puts values together from events, iteratively. What is open is on `stack`; the innermost container is in the fields."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self.problems: list[Problem] = []
        self.marks: dict[int, list[yaml.Mark]] = {}
        self.raws: dict[int, dict[str | int, str]] = {}
        self.anchors: dict[str, _Anchored | None] = {}
        self.dropped: list[object] = []  # keeps what was refused alive: identities must not be used again
        self.merge_lines: dict[int, int] = {}  # by container, for a second <<
        self.nodes = 0  # values so far, aliases expanded
        self.copies = 0  # those of them that aliases and merges made
        self.most_copies = FREE_COPIES + len(text)
        self.root: list[Any] = []
        self.container: Any = self.root
        self.here: list[yaml.Mark] = []  # marks of the container
        self.key: str | _State = _ITEM
        self.height = 0  # of the highest value in the container
        self.merge: Any = None  # maps that << named
        self.stack: list[tuple[Any, list[yaml.Mark], str | _State, int, Any, str | None, int]] = []
        self.has_document = False

    def run(self, parser: Any) -> None:
        """Take all events of the stream."""
        act: dict[type[Any], Callable[[Any], None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._open_mapping,
            yaml.MappingEndEvent: self._close,
            yaml.SequenceStartEvent: self._open_sequence,
            yaml.SequenceEndEvent: self._close,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._document,
        }
        get, end = parser.get_event, yaml.StreamEndEvent
        while (kind := type(event := get())) is not end:
            if (action := act.get(kind)) is not None:  # stream start and document end say nothing
                action(event)

    def document(self) -> Document:
        """What was built. Only after `run`."""
        return Document(
            file=self.file,
            text=self.text,
            value=self.root[0] if self.root else None,
            problems=tuple(self.problems),
            start=self.here[0] if self.here else None,
            marks=self.marks,
            raws=self.raws,
        )

    def _document(self, event: Any) -> None:
        if self.has_document:
            self._refuse(event.start_mark, "a second YAML document begins here; a job file holds one", length=3)
        self.has_document = True

    def _scalar(self, event: Any) -> None:
        """The hot path: a key, or a value put where it belongs."""
        text = event.value
        key = self.key
        self.nodes += 1
        if key is _AWAIT_KEY:
            if event.tag is None and event.anchor is None and text not in self.container and text != "<<":
                self.key = text
                self.here.append(event.start_mark)
                return
            self._odd_key(event)
            return
        value = text
        if event.implicit[0]:
            value = scalars.WORDS.get(text, text)
            if value is text and text[0] in scalars.NUMBER_STARTS:
                value = self._number(event)
        if event.tag is not None or event.anchor is not None:
            self._tag_or_anchor(event, value)
        if key is _ITEM:
            self.container.append(value)
            self.here.append(event.start_mark)
        elif type(key) is str:
            self.container[key] = value
            self.here.append(event.start_mark)
            self.key = _AWAIT_KEY
        else:
            self._put_aside(value, event.start_mark)

    def _number(self, event: Any) -> object:
        """The number that a plain scalar is, or its text. How it is written is kept where printing would change it."""
        text: str = event.value
        if scalars.is_too_long(text):
            self._say(event.start_mark, f"a number of {len(text)} characters; quote it if it is text", length=len(text))
            return 0
        value = scalars.number(text)
        if value is not text and str(value) != text:
            self._keep_raw(text)
        return value

    def _keep_raw(self, raw: str) -> None:
        place = len(self.container) if self.key is _ITEM else self.key
        if not isinstance(place, _State):
            self.raws.setdefault(id(self.container), {})[place] = raw

    def _odd_key(self, event: Any) -> None:
        """A key with a tag or an anchor, one that is there already, or `<<`."""
        text = event.value
        self._tag_or_anchor(event, text)
        is_merge = text == "<<" and event.implicit[0]
        if is_merge and self.merge is None:
            self.key, self.merge = _MERGE, ()
            self.merge_lines[id(self.container)] = event.start_mark.line
        elif is_merge or text in self.container:
            self._duplicate(event, text)
            self.key = _DROPPED
        else:
            self.key = text
            self.here.append(event.start_mark)

    def _duplicate(self, event: Any, text: str) -> None:
        first = (
            self.here[2 * list(self.container).index(text)].line
            if text in self.container
            else self.merge_lines[id(self.container)]
        )
        message = f"duplicate key in line {event.start_mark.line + 1}; {shortened(text)!r} stands already in line {first + 1}"
        length = len(text) if self.text.startswith(text, event.start_mark.index) else 1
        self._say(event.start_mark, message, key=text, length=length)

    def _tag_or_anchor(self, event: Any, value: object) -> None:
        if event.tag is not None:
            self._refuse_tag(event)
        if event.anchor is not None:
            raw = event.value if not isinstance(value, str) and value is not None else None
            self.anchors[event.anchor] = _Anchored(value=value, weight=1, height=0, raw=raw)

    def _refuse_tag(self, event: Any) -> None:
        index = self.text.find("!", event.start_mark.index)  # an anchor may stand before it
        message = "tags are not allowed; leave it out (and quote the value if it is to be text)"
        from jobrunner.jobfile import unquoted  # only for who made a mistake

        hint = unquoted.of_tag(self.text, index)
        self._say(event.start_mark, message, hint=hint, index=index, length=len(word_at(self.text, index)))

    def _open_mapping(self, event: Any) -> None:
        self._open(event, {}, _AWAIT_KEY)

    def _open_sequence(self, event: Any) -> None:
        self._open(event, [], _ITEM)

    def _open(self, event: Any, container: Any, state: _State) -> None:
        mark = event.start_mark
        if event.tag is not None:
            self._refuse_tag(event)
        if len(self.stack) >= DEEPEST:
            self._refuse(mark, _TOO_DEEP)
        key = self.key
        if type(key) is str:
            self.container[key] = container
            self.here.append(mark)
            key = _AWAIT_KEY
        elif key is _ITEM:
            self.container.append(container)
            self.here.append(mark)
        else:
            self.dropped.append(container)
            if key is _AWAIT_KEY:
                self._refuse_key(mark)
                key = _DROPPED  # what follows is the value of this key
            elif key is _DROPPED:
                key = _AWAIT_KEY
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.stack.append((self.container, self.here, key, self.height, self.merge, event.anchor, self.nodes))
        self.nodes += 1
        self.container, self.key, self.height, self.merge = container, state, 0, None
        self.here = self.marks[id(container)] = []

    def _refuse_key(self, mark: yaml.Mark) -> None:
        if self.text.startswith(("{{", "{ {"), mark.index - 1) or self.text.startswith("{{", mark.index):
            message, hint = "{{ … }} is a map as a key", 'An expression is written "${{ … }}".'
        else:
            message, hint = "a key is text, not a list or a map", ""
        self._say(mark, message, hint=hint)

    def _close(self, event: Any) -> None:
        if self.merge:
            self._apply_merge()
        container, height = self.container, self.height + 1
        self.container, self.here, self.key, above, self.merge, anchor, nodes = self.stack.pop()
        self.height = max(above, height)
        if anchor is not None:
            self.anchors[anchor] = _Anchored(value=container, weight=self.nodes - nodes, height=height)
        if self.key is _MERGE:
            self._take_merge(container, event.start_mark)

    def _alias(self, event: Any) -> None:
        mark, name = event.start_mark, event.anchor
        if name not in self.anchors:
            self._refuse(mark, f"nothing is anchored as '&{name}' above this line", length=len(name) + 1)
        if (anchored := self.anchors[name]) is None:
            self._refuse(mark, f"'*{name}' stands inside of what it refers to", length=len(name) + 1)
        if len(self.stack) + anchored.height > DEEPEST:
            self._refuse(mark, _TOO_DEEP)
        self._count(anchored.weight, mark)
        self.height = max(self.height, anchored.height)
        if self.key is _AWAIT_KEY:
            self._alias_key(anchored, mark)
            return
        if anchored.raw is not None:
            self._keep_raw(anchored.raw)
        self._put(anchored.value, mark)
        if self.key is _MERGE:
            self._take_merge(anchored.value, mark)

    def _alias_key(self, anchored: _Anchored, mark: yaml.Mark) -> None:
        text = anchored.value
        if isinstance(text, str) and text not in self.container:
            self.key = text
            self.here.append(mark)
            return
        self._say(mark, "an alias as a key has to be text that is not a key already")
        self.key = _DROPPED

    def _count(self, weight: int, mark: yaml.Mark) -> None:
        """Aliases and merges multiply: what they stand for is counted, not what they take to write."""
        self.nodes += weight
        self.copies += weight
        if self.copies > self.most_copies:
            self._refuse(mark, f"aliases and merge keys expand to more than {self.most_copies:,} values")

    def _put(self, value: object, mark: yaml.Mark) -> None:
        if self.key is _ITEM:
            self.container.append(value)
        elif isinstance(self.key, str):
            self.container[self.key] = value
            self.key = _AWAIT_KEY
        else:
            if self.key is _DROPPED:
                self._put_aside(value, mark)
            return
        self.here.append(mark)

    def _put_aside(self, value: object, mark: yaml.Mark) -> None:
        """A scalar under `<<`, or a value whose key was refused."""
        if self.key is _MERGE:
            self._take_merge(value, mark)
        else:
            self.dropped.append(value)
            self.key = _AWAIT_KEY

    def _take_merge(self, value: object, mark: yaml.Mark) -> None:
        sources = value if isinstance(value, list) else [value]
        if all(isinstance(source, dict) for source in sources):
            self.merge = tuple(sources)
        else:
            self._say(mark, "<< takes a map or a list of maps", hint="Write <<: *anchor.")
        self.dropped.append(value)
        self.key = _AWAIT_KEY

    def _apply_merge(self) -> None:
        """Keys of the merged maps that the mapping does not hold itself; the first map that has a key gives it."""
        for source in self.merge:
            marks = self.marks[id(source)]
            self._count(len(source), self.here[0] if self.here else marks[0] if marks else self._any_mark())
            raws = self.raws.get(id(source), {})
            for position, (key, value) in enumerate(source.items()):
                if key not in self.container:
                    self.container[key] = value
                    self.here += marks[2 * position : 2 * position + 2]
                    if key in raws:
                        self.raws.setdefault(id(self.container), {})[key] = raws[key]

    def _any_mark(self) -> yaml.Mark:
        return self.stack[-1][1][-1]

    def _path(self) -> Path:
        """The keys and positions that lead to where the next value goes."""
        open_ones = [*(level[0] for level in self.stack[1:]), self.container] if self.stack else []
        path: list[str | int] = [_place_of(inner, outer) for outer, inner in pairwise(open_ones)]
        if isinstance(self.key, str):
            path.append(self.key)
        elif self.key is _ITEM and self.stack:
            path.append(len(self.container))
        return tuple(path)

    def _say(self, mark: yaml.Mark, message: str, **where: Any) -> None:
        """Note a problem after which reading goes on; but not for ever."""
        self.problems.append(self._problem(mark, message, **where))
        if len(self.problems) >= MOST_PROBLEMS:
            self._refuse(mark, f"{MOST_PROBLEMS} problems up to here; the rest of the file is not read")

    def _refuse(self, mark: yaml.Mark, message: str, *, length: int = 1) -> NoReturn:
        raise Refused(self._problem(mark, message, length=length))

    def _problem(
        self, mark: yaml.Mark, message: str, *, hint: str = "", key: str | None = None, length: int = 1, index: int | None = None
    ) -> Problem:
        path = self._path() if key is None else (*self._path(), key)
        place = min(mark.index, len(self.text)) if index is None else index
        return problem_at(self.file, self.text, place, message, hint=hint, path=dotted(path), length=length)


def _place_of(inner: object, container: Any) -> str | int:
    """The key or position at which the innermost open container hangs in the one around it: it was put there last."""
    if isinstance(container, list):
        return max(0, len(container) - 1)
    return next((key for key in reversed(container) if container[key] is inner), "?")
