"""The least that a script with the same libraries does: read a job file, check it, log, spawn its one command, wait for it."""

from __future__ import annotations

import os
import sys

import pydantic
import structlog
import yaml


class Task(pydantic.BaseModel):
    argv: list[str]


class Job(pydantic.BaseModel):
    name: str
    tasks: dict[str, Task]


def main(job_file: str, log_file: str) -> int:
    with open(job_file, encoding="utf-8") as text:
        job = Job.model_validate(yaml.load(text, yaml.CSafeLoader))
    with open(log_file, "w", encoding="utf-8") as lines:
        structlog.configure(
            processors=[structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.JSONRenderer()],
            logger_factory=structlog.WriteLoggerFactory(lines),
        )
        log = structlog.get_logger().bind(job=job.name)
        (task,) = job.tasks.values()
        log.info("task.started")
        pid = os.posix_spawnp(task.argv[0], task.argv, os.environ)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        log.info("task.finished", exit_code=code)
    return code


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
