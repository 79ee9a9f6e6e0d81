"""Which failures are tried again, and when."""

from __future__ import annotations

from jobrunner.typed import TYPE_CHECKING
from jobrunner.work import Result

if TYPE_CHECKING:
    import random

    from jobrunner.spec import Retry


def is_worth_it(retry: Retry, result: Result) -> bool:
    """Whether a failure is one of those that are tried again."""
    if retry.exit_codes is None and retry.exceptions is None:
        return True
    if retry.exit_codes is not None and result.exit_code in retry.exit_codes:
        return True
    kinds = result.error.kinds if result.error is not None else ()
    return any(kind == name or kind.endswith(f".{name}") for name in retry.exceptions or () for kind in kinds)


def delay(retry: Retry, counted: int, rng: random.Random) -> float:
    """Seconds from the end of attempt `counted` to the next: exponential, with jitter to both sides, within `max_delay`."""
    try:
        found = min(retry.delay * retry.backoff ** (counted - 1), retry.max_delay)
    except OverflowError:
        found = retry.max_delay if retry.delay else 0.0
    return min(found * (1 + retry.jitter * rng.uniform(-1, 1)), retry.max_delay)
