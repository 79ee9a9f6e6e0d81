"""The engine's side of everything that runs: hosts of Python callables, and commands."""
