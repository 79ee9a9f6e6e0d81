"""The far side: a process that runs the callables of one pool, and nothing of the engine. Standard library only.

        engine ──Call──▶ socket ──▶ lane ──▶ work.run ──Began, Said, Result, Joined──▶ socket ──▶ engine

Every frame is one line of JSON; the value of a result follows its frame as a line of its own, so that the engine can
pass it on unread. A lane is what a mode does with a Call. To add a mode: one small class here, and one row in MODES.
"""

from __future__ import annotations

from jobrunner.host.begin import STACK_SIGNAL, cloned, forked, main, prefer_modules_in, prepare, rehearsed, spawned
from jobrunner.host.frames import BACK, CHANNEL, MARK, RING, RINGS, WHERE
from jobrunner.host.lane import Settings
from jobrunner.host.modes import MODES, Hosts
from jobrunner.host.port import Port
from jobrunner.host.resources import MAX_RSS_UNIT

__all__ = [
    "BACK", "CHANNEL", "MARK", "MAX_RSS_UNIT", "MODES", "RING", "RINGS", "STACK_SIGNAL", "WHERE", "Hosts", "Port", "Settings",
    "cloned", "forked", "main", "prefer_modules_in", "prepare", "rehearsed", "spawned",
]  # fmt: skip
