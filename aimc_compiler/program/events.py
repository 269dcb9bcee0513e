"""A Program as flat integer arrays: what the sweeps of the timing engine run over.

Events are numbered stream by stream; needs stand in compressed rows (``first_need[i]:first_need[i + 1]``). Streams that
follow another at a fixed distance (``follow.py``) are left out.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aimc_compiler.errors import NotBuiltError
from aimc_compiler.program.follow import Stream, Wait, find_leaders
from aimc_compiler.program.ir import Program, Task
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Access
from aimc_compiler.workload.loops import components

Ints = NDArray[np.int64]

#: More than this many simulated events a sample would not fit memory as arrays.
EVENT_LIMIT = 50_000_000
#: Each use of a resource by a task (a link of a transfer is one) is an object here at first: more would fill memory.
USE_LIMIT = 5_000_000
#: What refusals advise.
FEWER_EVENTS = (
    "larger tiles (--set tile.rows=..., --set tile.columns=...) make fewer, and so do rules that let more groups share "
    "a tile (groups_per_tile) or leave depthwise layers digital"
)


@lru_cache(maxsize=256)
def last_needed(access: Access, windows: int, input_windows: int) -> Ints:
    """``access.last_needed`` of every window: (windows,)."""
    window = np.arange(windows, dtype=np.int64)
    if access.kind == "previous":
        return np.minimum(window, input_windows) - 1
    if access.kind == "same":
        return np.minimum(window, input_windows - 1)
    if access.kind == "all":
        return np.full(windows, input_windows - 1, dtype=np.int64)
    if access.kind == "dealt":
        return -(-(window + 1) * access.input_size[0] // access.output_size[0]) - 1
    repeat, window = np.divmod(window, prod(access.output_size))
    last = np.zeros(windows, dtype=np.int64)
    for axis, size in enumerate(access.output_size):
        place = window // prod(access.output_size[axis + 1 :]) % size
        if access.kind == "stretched":
            reach = (place + access.padding[axis]) // access.stride[axis]
        else:
            far = access.dilation[axis] * (access.kernel[axis] - 1)
            reach = place * access.stride[axis] - access.padding[axis] + far
        last = last * access.input_size[axis] + np.clip(reach, 0, access.input_size[axis] - 1)
    return repeat * prod(access.input_size) + last


@record
class Events:
    """The arrays. A *stream* is a task on one of its resources: the links of a transfer are streams of their own.

    leader, behind: (streams of the program,), the stream here that each is or follows, and at how many ticks' distance.
    stream_of: (events,) int32; service, tail: (streams,) ticks, tail from the start of an event until it and all that
    follows it are finished; resource: (streams,), -1 for none. first_event, first_need: (streams + 1,); need_stream,
    need_delay, need_table: (needs,): event k waits until ``need_delay`` ticks after the start of event
    ``table[need_table + k]`` of stream ``need_stream``, for nothing where that is -1; ``need_table`` of -1 stands for
    event k. order: every event behind those it needs; empty where their own order is such a one, as it is without
    loops.
    """

    count: int
    resources: int
    leader: Any
    behind: Any
    stream_of: Any
    first_event: Any
    service: Any
    tail: Any
    resource: Any
    first_need: Any
    need_stream: Any
    need_delay: Any
    need_table: Any
    table: Any
    order: Any

    @property
    def needs(self) -> tuple[Any, ...]:
        """What the sweeps read of them, in their order."""
        return (self.first_event, self.first_need, self.need_stream, self.need_table, self.table)

    def every(self, start: Ints) -> Ints:
        """Start times of all events of the program, followers too, stream by stream, from those of the events here."""
        own = [start[self.first_event[lead] : self.first_event[lead + 1]] for lead in self.leader]
        return np.concatenate([times + late for times, late in zip(own, self.behind, strict=True)])


def flatten(program: Program) -> Events:
    """Raises NotBuiltError above ``EVENT_LIMIT`` events a sample."""
    _check_links(program)
    streams = _streams(program)
    leader, behind = find_leaders(streams)
    number = {old: new for new, old in enumerate(old for old, lead in enumerate(leader) if lead == old)}
    kept = [streams[old] for old in number]
    counts = np.array([stream.events for stream in kept], dtype=np.int64)
    _check_count(program, int(counts.sum()))
    tail = np.zeros(len(kept), dtype=np.int64)
    np.maximum.at(tail, [number[lead] for lead in leader], np.array(behind) + [stream.latency for stream in streams])
    waits = [wait for stream in kept for wait in stream.waits]
    tables = _Tables()
    return Events(
        count=int(counts.sum()),
        resources=len(program.resources),
        leader=np.array([number[lead] for lead in leader], dtype=np.int64),
        behind=np.array(behind, dtype=np.int64),
        stream_of=np.repeat(np.arange(len(kept), dtype=np.int32), counts),
        first_event=_starts(counts),
        service=np.array([stream.service for stream in kept], dtype=np.int64),
        tail=tail,
        resource=np.array([stream.resource for stream in kept], dtype=np.int64),
        first_need=_starts(np.array([len(stream.waits) for stream in kept], dtype=np.int64)),
        need_stream=np.array([number[leader[wait.stream]] for wait in waits], dtype=np.int64),
        need_delay=np.array([wait.delay + behind[wait.stream] for wait in waits], dtype=np.int64),
        need_table=np.array([tables.find(wait, stream) for stream in kept for wait in stream.waits], dtype=np.int64),
        table=np.concatenate([np.zeros(0, dtype=np.int64), *tables.values]),
        order=_loop_order(program, kept, _starts(counts)),
    )


def _check_count(program: Program, count: int) -> None:
    if count > EVENT_LIMIT:
        raise NotBuiltError(
            f"{program.workload!r} on {program.chip!r} has {count} events a sample: timing is built for up "
            f"to {EVENT_LIMIT}; {FEWER_EVENTS}"
        )


def _check_links(program: Program) -> None:
    uses = sum(len(task.uses) for task in program.tasks)
    if uses > USE_LIMIT:
        raise NotBuiltError(
            f"{program.workload!r} on {program.chip!r} uses {uses} links, tiles and units, those of each task "
            f"counted: timing event by event is built for up to {USE_LIMIT}. Mapping and program are complete; time "
            f"fewer layers. Otherwise, {FEWER_EVENTS}"
        )


def _streams(program: Program) -> list[Stream]:
    """Every task on each of its resources, in order."""
    uses = [max(1, len(task.uses)) for task in program.tasks]
    first = _starts(np.array(uses, dtype=np.int64)).tolist()
    return [
        Stream(
            task=number,
            resource=task.uses[use][0] if task.uses else -1,
            events=task.events,
            service=task.service_ticks,
            latency=task.latency_ticks,
            waits=tuple(_waits(program, number, task, use, first)),
        )
        for number, task in enumerate(program.tasks)
        for use in range(uses[number])
    ]


def _waits(program: Program, number: int, task: Task, use: int, first: list[int]) -> Iterator[Wait]:
    """What a stream waits for: the task's needs on its first uses, the use before it on the others."""
    before = task.uses[use][1] if task.uses else -1
    if before >= 0:
        same = Access(kind="same")
        yield Wait(stream=first[number] + before, delay=task.hop_ticks, access=same, events=task.events)
        return
    for need in task.needs:
        maker = program.tasks[need.task]
        stream = first[need.task] + need.use
        yield Wait(stream=stream, delay=maker.latency_ticks, access=need.access, events=maker.events)


class _Tables:
    """Which event is needed, for every event: one table for all needs that agree, none for "event by event"."""

    def __init__(self) -> None:
        self.values: list[Ints] = []
        self._where: dict[tuple[Access, int, int], int] = {}
        self._length = 0

    def find(self, wait: Wait, stream: Stream) -> int:
        """Where the table of a need begins; -1 for none."""
        if wait.access.kind == "same" and wait.events >= stream.events:
            return -1
        key = (wait.access, stream.events, wait.events)
        if key not in self._where:
            self._where[key] = self._length
            self.values.append(last_needed(*key))
            self._length += stream.events
        return self._where[key]


def task_loops(program: Program) -> list[list[int]]:
    """Tasks that need each other, loop by loop."""
    return [loop for loop in _task_components(program) if len(loop) > 1]


def _task_components(program: Program) -> list[list[int]]:
    """Components of the tasks by what they need, each behind those it needs; none where no need points forward."""
    needs = [[need.task for need in task.needs] for task in program.tasks]
    if all(maker < task for task, makers in enumerate(needs) for maker in makers):
        return []
    return components(needs)


def _loop_order(program: Program, streams: list[Stream], first_event: Ints) -> Ints:
    """An order in which every event stands behind those it needs: loops window by window, the rest task by task.

    In a loop event k of a task needs at most event k of the tasks in front and event k - 1 of those behind it.
    """
    of_task: dict[int, list[int]] = defaultdict(list)
    for number, stream in enumerate(streams):
        of_task[stream.task].append(number)
    parts = [np.zeros(0, dtype=np.int64)]
    for loop in _task_components(program):
        members = [number for task in loop for number in of_task[task]]
        if members:
            events = [np.arange(first_event[number], first_event[number + 1]) for number in members]
            windows = np.concatenate([np.arange(len(own)) for own in events])
            parts.append(np.concatenate(events)[np.argsort(windows, kind="stable")])
    return np.concatenate(parts)


def _starts(counts: Ints) -> Ints:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
