"""The limit where there is no C compiler: a program N times, W at a time. Prints how many ended with success."""

from __future__ import annotations

import os
import sys


def main(wanted: int, workers: int, *command: str) -> int:
    started = ended = succeeded = 0
    while ended < wanted:
        while started < wanted and started - ended < workers:
            os.posix_spawnp(command[0], command, os.environ)
            started += 1
        _, status = os.wait()
        ended += 1
        succeeded += os.waitstatus_to_exitcode(status) == 0
    return succeeded


if __name__ == "__main__":
    print(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
