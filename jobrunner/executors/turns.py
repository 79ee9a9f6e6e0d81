"""Whose output it is, where one process runs one call after the other without waiting for us.

text of call 1 ‖ mark 1 ‖ text of call 2 ‖ mark 2 ‖ …        on one pipe, in the order in which the calls were handed over
"""

from __future__ import annotations

from collections import deque

_LONGEST_MARK = 64


class Turns:
    """Splits what comes out of a host at the marks that it writes after each call. `mark` is known to nobody else."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._calls: deque[int] = deque()
        self._rest = b""

    def add(self, call_id: int) -> None:
        """It was handed over, behind the others."""
        self._calls.append(call_id)

    def remove(self, call_ids: list[int]) -> None:
        """They were taken back."""
        taken = frozenset(call_ids)
        self._calls = deque(call_id for call_id in self._calls if call_id not in taken)

    def is_open(self, call_id: int) -> bool:
        """Its mark has not come: there may be more of its output in the pipe."""
        return call_id in self._calls

    def split(self, data: bytes) -> list[tuple[int, bytes]]:
        """The pieces of `data` and whose they are; 0 where that cannot be told. Half a mark waits for its other half."""
        first, *others = (self._rest + data).split(self._mark)
        self._rest = b""
        pieces = [(self._current, first)]
        for number, each in enumerate(others, 1):
            name, end, text = each.partition(b"\n")
            if end:
                self._end(name)
                pieces.append((self._current, text))
            elif number == len(others) and len(each) < _LONGEST_MARK:
                self._rest = self._mark + each
        self._keep_half(pieces)
        return [(call_id, text) for call_id, text in pieces if text]

    def rest(self) -> bytes:
        """What has waited in vain."""
        rest, self._rest = self._rest, b""
        return rest

    @property
    def _current(self) -> int:
        return self._calls[0] if self._calls else 0

    def _end(self, name: bytes) -> None:
        if name.isdigit() and (call_id := int(name)) in self._calls:
            while self._calls.popleft() != call_id:
                pass

    def _keep_half(self, pieces: list[tuple[int, bytes]]) -> None:
        """A mark begins with a NUL, which text has not."""
        call_id, text = pieces[-1]
        at = text.rfind(self._mark[:1], -len(self._mark))
        if not self._rest and at >= 0 and self._mark.startswith(text[at:]):
            pieces[-1] = call_id, text[:at]
            self._rest = text[at:]
