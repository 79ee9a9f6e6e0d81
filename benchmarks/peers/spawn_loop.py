"""The limit where there is no C compiler: `true` N times, two at a time. Prints how many ended with success."""

from __future__ import annotations

import os
import sys


def main(wanted: int) -> int:
    started = ended = succeeded = 0
    while ended < wanted:
        while started < wanted and started - ended < 2:
            os.posix_spawnp("true", ["true"], os.environ)
            started += 1
        _, status = os.wait()
        ended += 1
        succeeded += os.waitstatus_to_exitcode(status) == 0
    return succeeded


if __name__ == "__main__":
    print(main(int(sys.argv[1])))
