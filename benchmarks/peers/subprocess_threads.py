"""What a script does: a program N times by `subprocess.run` in W threads, output captured. Prints how many ended with success."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor


def main(wanted: int, workers: int, *command: str) -> int:
    def one(_: int) -> bool:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    with ThreadPoolExecutor(workers) as executor:
        return sum(executor.map(one, range(wanted)))


if __name__ == "__main__":
    print(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
