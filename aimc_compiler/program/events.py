"""A Program as flat integer arrays: what the sweeps of the timing engine run over.

Events are numbered stream by stream; needs stand in compressed rows (``first_need[i]:first_need[i + 1]``).
"""

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aimc_compiler.errors import NotBuiltError
from aimc_compiler.program.ir import Need, Program
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Access

Ints = NDArray[np.int64]

#: More than this many events a sample would not fit memory as arrays.
EVENT_LIMIT = 50_000_000


@lru_cache(maxsize=256)
def last_needed(access: Access, windows: int, input_windows: int) -> Ints:
    """``access.last_needed`` of every window: (windows,)."""
    window = np.arange(windows, dtype=np.int64)
    if access.kind == "same":
        return np.minimum(window, input_windows - 1)
    if access.kind == "all":
        return np.full(windows, input_windows - 1, dtype=np.int64)
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

    stream_task: (streams,), the task of each; first_event: (streams + 1,); stream_of: (events,) int32; service,
    latency: (streams,) ticks; resource: (streams,), -1 for none. first_need: (streams + 1,); need_stream, need_delay,
    need_table: (needs,): event k waits until ``need_delay`` ticks after the start of event ``table[need_table + k]``
    of stream ``need_stream``.
    """

    count: int
    resources: int
    stream_task: Any
    stream_of: Any
    first_event: Any
    service: Any
    latency: Any
    resource: Any
    first_need: Any
    need_stream: Any
    need_delay: Any
    need_table: Any
    table: Any

    @property
    def arrays(self) -> tuple[Any, ...]:
        """In the order the sweeps take them."""
        return (
            self.stream_of,
            self.first_event,
            self.service,
            self.resource,
            self.first_need,
            self.need_stream,
            self.need_delay,
            self.need_table,
            self.table,
        )


def flatten(program: Program) -> Events:
    """Raises NotBuiltError above ``EVENT_LIMIT`` events a sample."""
    tasks = program.tasks
    streams = [(task, use) for task in range(len(tasks)) for use in range(max(1, len(tasks[task].uses)))]
    owners = [tasks[task] for task, _ in streams]
    counts = np.array([owner.events for owner in owners], dtype=np.int64)
    if counts.sum() > EVENT_LIMIT:
        raise NotBuiltError(
            f"{program.workload!r} on {program.chip!r} has {counts.sum()} events a sample: timing is built for up "
            f"to {EVENT_LIMIT}; larger tiles (--set tile.rows=..., --set tile.columns=...) make fewer, and so does a "
            "rule that leaves depthwise layers digital"
        )
    rows = _Needs(program, streams)
    return Events(
        count=int(counts.sum()),
        resources=len(program.resources),
        stream_task=np.array([task for task, _ in streams], dtype=np.int64),
        stream_of=np.repeat(np.arange(len(streams), dtype=np.int32), counts),
        first_event=_starts(counts),
        service=np.array([owner.service_ticks for owner in owners], dtype=np.int64),
        latency=np.array([owner.latency_ticks for owner in owners], dtype=np.int64),
        resource=np.array(
            [tasks[task].uses[use][0] if tasks[task].uses else -1 for task, use in streams], dtype=np.int64
        ),
        first_need=_starts(np.array(rows.counts, dtype=np.int64)),
        need_stream=np.array(rows.streams, dtype=np.int64),
        need_delay=np.array(rows.delays, dtype=np.int64),
        need_table=np.array(rows.tables, dtype=np.int64),
        table=np.concatenate([np.zeros(0, dtype=np.int64), *rows.values]),
    )


class _Needs:
    """What every stream waits for: the task's needs on its first uses, the use before it on the others."""

    def __init__(self, program: Program, streams: list[tuple[int, int]]) -> None:
        self.counts: list[int] = []
        self.streams: list[int] = []
        self.delays: list[int] = []
        self.tables: list[int] = []
        self.values: list[Ints] = []
        self._where: dict[tuple[Access, int, int], int] = {}
        self._length = 0
        number = {stream: index for index, stream in enumerate(streams)}
        for task, use in streams:
            owner = program.tasks[task]
            before = owner.uses[use][1] if owner.uses else -1
            if before >= 0:
                self._add(number[task, before], owner.hop_ticks, Need(task=task), owner.events, owner.events)
            else:
                for need in owner.needs:
                    maker = program.tasks[need.task]
                    self._add(number[need.task, need.use], maker.latency_ticks, need, owner.events, maker.events)
            self.counts.append(1 if before >= 0 else len(owner.needs))

    def _add(self, stream: int, delay: int, need: Need, events: int, input_events: int) -> None:
        key = (need.access, events, input_events)
        if key not in self._where:
            self._where[key] = self._length
            self.values.append(last_needed(*key))
            self._length += events
        self.streams.append(stream)
        self.delays.append(delay)
        self.tables.append(self._where[key])


def _starts(counts: Ints) -> Ints:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
