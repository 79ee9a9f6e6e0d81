"""`cold_script.py` as lean as such a script gets: no collector while it imports, no tear-down at the end."""

from __future__ import annotations

import gc
import os
import runpy
import sys
from pathlib import Path

gc.disable()

if __name__ == "__main__":
    script = runpy.run_path(str(Path(__file__).with_name("cold_script.py")))
    print(script["main"](*sys.argv[1:]), flush=True)
    os._exit(0)
