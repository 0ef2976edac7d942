"""Runs jobs in processes that can be killed at any moment.

A process that imports grafeat takes seconds to start. So one is started for all tests, does nothing but import, and
forks a child for each job. Run as a program, this file is that process: it reads a job a line and answers with the
child's process id; an empty line asks for its exit status.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    status: int
    seconds: float

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL


class Driver:
    """Jobs in processes of their own: functions of importable modules, as "module:function"."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, job: str, **arguments: object) -> int:
        """Starts a job in a process of its own, and gives its id."""
        self._process.stdin.write(json.dumps([job, arguments]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def run(self, job: str, *, kill_after: float | None = None, **arguments: object) -> Ended:
        """Runs a job to its end, or kills it after so many seconds if it still runs."""
        process, start = self.start(job, **arguments), time.perf_counter()
        if kill_after is not None:
            time.sleep(kill_after)
            self.kill(process)
        return Ended(self.ended(), time.perf_counter() - start)

    def kill(self, process: int) -> None:
        """Kills a job, which cannot do anything about it. Until its end was asked for, its id is its own."""
        os.kill(process, signal.SIGKILL)

    def ended(self) -> int:
        """Waits for the job that runs, and gives its exit status."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def serve() -> None:
    """Reads jobs, forks a child for each, and says how it ended when asked."""
    import torch

    import grafeat  # noqa: F401, what takes long is done once

    torch.set_num_threads(1)
    child = 0
    for line in sys.stdin:
        if line.strip():
            child = os.fork()
            if not child:
                _work(*json.loads(line))
            answer = child
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    os._exit(0)  # taking torch down takes seconds


def _work(job: str, arguments: dict[str, object]) -> None:
    """Does the job, in the child, and ends it without looking back."""
    status = 1
    try:
        module, _, function = job.partition(":")
        getattr(importlib.import_module(module), function)(**arguments)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
