"""What a host says between the lines that its calls print: which call has ended, and which begins.

text of call 1 ‖ mark: 1 has ended so, 2 begins ‖ text of call 2 ‖ mark: 2 has ended so, 3 begins ‖ …        all on one pipe

So it is known whose each piece of text is, and one write tells it all.
"""

from __future__ import annotations

_LONGEST = 1 << 12
"""Bytes of what stands at a mark; a pipe takes as many in one piece."""


class Turns:
    """Splits what comes out of a host at its marks. `mark` is known to nobody else."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._rest = b""

    def split(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """What stands at each mark, and the text behind it; the first text has no mark. Half a mark waits for its other half."""
        first, *others = (self._rest + data).split(self._mark)
        self._rest = b""
        pieces = [(b"", first)]
        for number, each in enumerate(others, 1):
            line, end, text = each.partition(b"\n")
            if end:
                pieces.append((line, text))
            elif number == len(others) and len(each) < _LONGEST:
                self._rest = self._mark + each
        if not self._rest:
            self._keep_half(pieces)
        return pieces

    def alone(self, data: bytes) -> list[bytes]:
        """What stands at the marks, where `data` is whole marks and nothing else: of calls that print nothing. Else nothing."""
        if self._rest or not (data.startswith(self._mark) and data.endswith(b"\n")):
            return []
        marks = data[len(self._mark) : -1].split(b"\n" + self._mark)
        return marks if data.count(b"\n") == len(marks) else []

    def rest(self) -> bytes:
        """What has waited in vain."""
        rest, self._rest = self._rest, b""
        return rest

    def _keep_half(self, pieces: list[tuple[bytes, bytes]]) -> None:
        """A mark begins with a NUL, which text has not."""
        line, text = pieces[-1]
        at = text.rfind(self._mark[:1], -len(self._mark))
        if at >= 0 and self._mark.startswith(text[at:]):
            pieces[-1] = line, text[:at]
            self._rest = text[at:]
