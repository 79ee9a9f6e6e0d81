"""Binds a task to its values: expressions become the items of a fan-out, a Call or a Command."""

from __future__ import annotations

from jobrunner.bind.binder import Binder, Run, data_references
from jobrunner.bind.lines import needs_shell

__all__ = ["Binder", "Run", "data_references", "needs_shell"]
