"""The command line: load → prepare → run → summary → exit code."""
