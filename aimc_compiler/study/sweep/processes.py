"""Cells on several processes of this machine. One that dies costs its cell a try; another takes its place."""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Self

from aimc_compiler.errors import SweepError
from aimc_compiler.study.sweep.cell import Task
from aimc_compiler.study.sweep.runners import Outcome, as_outcome

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from aimc_compiler.study.sweep.worker import main; main()"
)
_THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
_BLOCK = 1 << 16


class _Worker:
    """One process and the task that it has."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_THREADS},
        )
        self.task: Task | None = None
        self._read = b""

    def give(self, task: Task) -> None:
        """Send a task. One that has died meanwhile is found so when its output ends."""
        self.task = task
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(task.plain()).encode() + b"\n")
            self.process.stdin.flush()

    def answers(self) -> list[dict[str, Any]] | None:
        """What it has said since, whole lines; None: it has ended."""
        assert self.process.stdout is not None
        block = os.read(self.process.stdout.fileno(), _BLOCK)
        if not block:
            return None
        *lines, self._read = (self._read + block).split(b"\n")
        return [json.loads(line) for line in lines]

    def end(self) -> str:
        """End it, and say how it ended."""
        self.process.kill()
        code = self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        if code >= 0:
            return f"exit code {code}"
        hint = ", as when memory runs out" if code == -signal.SIGKILL else ""
        return f"signal {-code}, {signal.strsignal(-code)}{hint}"


class Processes:
    """Workers, and the cells that are still open.

    most: workers at once; retries: times that a cell is tried again whose worker died. Leaving it ends all workers.
    """

    def __init__(self, most: int, retries: int) -> None:
        self._most, self._started = most, 0
        self._open = 0  # cells that are neither done nor given up
        self._waiting: deque[Task] = deque()
        self.retries = retries
        self._deaths: Counter[str] = Counter()
        self._unborn = 0
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.end()
        self._selector.close()

    def begin(self, cells: int) -> None:
        """Start workers for so many cells, which may come later: a worker takes seconds until it is ready."""
        while self._started < min(self._most, cells):
            self._start()

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """Raises SweepError where workers die before they can take a cell."""
        self.begin(len(tasks))
        self._open = len(tasks)
        self._waiting.extend(tasks)
        while self._open:
            yield from self._wait()

    def _start(self) -> None:
        """One more worker."""
        self._started += 1
        worker = _Worker()
        self._selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]

    def _wait(self) -> Iterator[Outcome]:
        """What has happened next."""
        for key, _ in self._selector.select():
            worker: _Worker = key.data
            said = worker.answers()
            if said is None:
                self._selector.unregister(key.fileobj)
                yield from self._bury(worker, self._ending(worker))
                continue
            for message in said:
                if "cell" in message:
                    self._open -= 1
                    worker.task = None
                    yield as_outcome(message)
                if self._waiting:
                    worker.give(self._waiting.popleft())

    @staticmethod
    def _ending(worker: _Worker) -> str:
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(timeout=5)  # its output has ended: it is about to
        return worker.end()

    def _bury(self, worker: _Worker, ending: str) -> Iterator[Outcome]:
        task = worker.task
        if task is None:
            self._unborn += 1
            if self._unborn > self.retries:
                raise SweepError(
                    f"workers end before they take a cell: {ending}. What they print stands above; --workers 1 runs in "
                    "one process"
                )
        elif self._deaths[task.cell] >= self.retries:
            self._open -= 1
            tries = self.retries + 1
            yield Outcome(cell=task.cell, error=f"its worker died {tries} times, last by: {ending}")
        else:
            self._deaths[task.cell] += 1
            self._waiting.appendleft(task)
            yield Outcome(cell=task.cell, died=ending)
        if self._waiting:
            self._start()
