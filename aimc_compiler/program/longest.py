"""The longest path of dependencies through a program, the events of one stream in a row, as if no others were there."""

import numpy as np

from aimc_compiler.program.events import last_needed
from aimc_compiler.program.streams import ALL, JOINED, OTHER, Ints, Streams
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Access


@record
class Longest:
    """ticks: of the path. first: (tasks,), start of event 0 of each task on its first use."""

    ticks: int
    first: Ints


def find_longest(streams: Streams, accesses: tuple[Access, ...]) -> Longest:
    """Where every need is event by event or of everything, two numbers a task; otherwise start times of all events,
    each kept until the last that reads it. streams: without loops.
    """
    from aimc_compiler.program.sweep_tasks import sweep_free

    if (streams.need_kind == OTHER).any():
        return _by_window(streams, accesses)
    first, last = (np.zeros(len(streams.events), dtype=np.int64) for _ in range(2))
    return Longest(ticks=int(sweep_free(streams, first, last)), first=first)


def _by_window(streams: Streams, accesses: tuple[Access, ...]) -> Longest:
    tasks = len(streams.events)
    readers = np.bincount(streams.need_task, minlength=tasks).tolist()
    starts: dict[int, Ints] = {}
    first, finish = np.zeros(tasks, dtype=np.int64), 0
    for task in range(tasks):
        ready = np.zeros(streams.events[task], dtype=np.int64)
        for need in range(streams.first_need[task], streams.first_need[task + 1]):
            maker = int(streams.need_task[need])
            depth = streams.taken_depth[streams.need_taken[need]]
            delay = streams.latency[maker] + streams.hop[maker] * depth
            _wait(ready, starts[maker], delay, int(streams.need_kind[need]), accesses[streams.need_access[need]])
            readers[maker] -= 1
            if not readers[maker]:
                del starts[maker]
        pace = np.arange(len(ready)) * streams.service[task]
        start = np.maximum.accumulate(ready - pace) + pace
        first[task] = start[0]
        finish = max(finish, int(start[-1] + streams.hop[task] * streams.depth[task] + streams.latency[task]))
        if readers[task]:
            starts[task] = start
    return Longest(ticks=finish, first=first)


def _wait(ready: Ints, made: Ints, delay: int, kind: int, access: Access) -> None:
    """Raises ``ready``, (windows,), to what a need with this delay asks for; made: starts of the maker's events."""
    if kind == ALL:
        np.maximum(ready, made[-1] + delay, out=ready)
    elif kind == JOINED:
        np.maximum(ready, made + delay, out=ready)
    else:
        table = last_needed(access, len(ready), len(made))
        needed = table >= 0
        ready[needed] = np.maximum(ready[needed], made[table[needed]] + delay)
