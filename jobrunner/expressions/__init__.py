"""The `${{ … }}` language: checked when a job file is read, evaluated once an item."""

from __future__ import annotations

from jobrunner.expressions.code import DEEPEST, LONGEST, ROOTS, STATUS, Reference
from jobrunner.expressions.template import Expression, Template, compiled, condition, is_constant, parse
from jobrunner.expressions.values import JsonValue, Scope, text_of

__all__ = [
    "DEEPEST", "LONGEST", "ROOTS", "STATUS", "Expression", "JsonValue", "Reference", "Scope", "Template",
    "compiled", "condition", "is_constant", "parse", "text_of",
]  # fmt: skip
