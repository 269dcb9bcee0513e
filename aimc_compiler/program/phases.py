"""When the events of a very large program start, laid out phase by phase and task by task.

A *phase* is all tasks of the same number of windows with the same number of needs in front of them that are not event
by event: what is inside one phase waits event by event only. In a phase every event k starts ``k`` beats after event 0
(a modulo schedule: Rau, "Iterative modulo scheduling", MICRO-27, 1994), so what a resource does in one beat repeats
and no loop runs over windows. Each task takes the first gap in the beat of its resource, in the order of the program.
The beat is the load that one window puts on the busiest resource of the phase, and grows while gaps are too short.

What is needed of another phase, of whatever access, holds for all windows if it does at the ends of straight lines, or
is looked up in the table of the access. A resource serves phases one after another.

Steady state: samples enter every I ticks, the load of the busiest resource. Where no resource is in use by a sample for
longer than that, samples never meet. Otherwise the events of a stream stand back to back in gaps of the interval; on
resources where gaps are too short, places stand side by side instead.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from aimc_compiler.errors import NotBuiltError
from aimc_compiler.program.bounds import resource_loads
from aimc_compiler.program.events import EVENT_LIMIT, FEWER_EVENTS, last_needed
from aimc_compiler.program.ir import Program
from aimc_compiler.program.longest import find_longest
from aimc_compiler.program.streams import OTHER, Ints, Streams, flatten_streams
from aimc_compiler.records import record, without_collection
from aimc_compiler.workload.ir import Access

#: The beat of a phase of one window: longer than any schedule, so that nothing repeats.
_ONCE = 1 << 50
#: Of a phase that has none yet.
_LAYING = -1
#: Needs of nothing: before every start.
_NEVER = -(1 << 60)
#: How much longer a beat is tried where gaps were too short, in parts of its least; each time twice as much.
_STRETCH = 64


@record
class Phase:
    """tasks: (tasks,) numbers; windows of each; beat: ticks from event to event."""

    tasks: Any
    windows: int
    beat: int


@record
class PhaseSchedule:
    """Figures in ticks as in ``Schedule``. phases: in the order of service; first: (taken,), start of event 0 of every
    use that another task waits for. met: whether a sample among others may wait for them.
    """

    streams: Streams
    phases: tuple[Phase, ...]
    first: Any
    met: bool
    latency_bound_ticks: int
    latency_ticks: int
    interval_ticks: int
    periodic_latency_ticks: int
    loads: Any

    @property
    def interval_bound_ticks(self) -> int:
        """The load of the busiest resource."""
        return max(1, int(self.loads.max(initial=0)))


def schedule_phases(program: Program) -> PhaseSchedule:
    """The schedule of one sample and of the steady state.

    Raises NotBuiltError for loops, and where kernels slide in a program of more than ``EVENT_LIMIT`` events.
    """
    with without_collection():
        streams, accesses = flatten_streams(program)
    _refuse(program, streams)
    loads = resource_loads(program)
    interval = max(1, int(loads.max(initial=0)))
    longest = find_longest(streams, accesses)
    alone = _Alone(streams, accesses, len(loads), longest.first)
    alone.run()
    met = alone.longest_stay > interval
    return PhaseSchedule(
        streams=streams,
        phases=tuple(alone.phases),
        first=alone.at,
        met=met,
        latency_bound_ticks=longest.ticks,
        latency_ticks=alone.finish,
        interval_ticks=interval,
        periodic_latency_ticks=_steady(streams, accesses, loads, interval) if met else alone.finish,
        loads=loads,
    )


def _refuse(program: Program, streams: Streams) -> None:
    reader = np.repeat(np.arange(len(streams.events)), np.diff(streams.first_need))
    loops = bool((streams.need_task >= reader).any())
    if loops or (program.events > EVENT_LIMIT and (streams.need_kind == OTHER).any()):
        what = "loops" if loops else "kernels that slide over their inputs"
        simulated = sum(task.events * max(1, len(task.uses)) for task in program.tasks)
        raise NotBuiltError(
            f"{program.workload!r} on {program.chip!r} has {simulated} events a sample: timing of networks with {what} "
            f"is built for up to {EVENT_LIMIT}; {FEWER_EVENTS}"
        )


class _Alone:
    """One sample alone in the machine. first: (tasks,), contention-free starts of event 0."""

    def __init__(self, streams: Streams, accesses: tuple[Access, ...], resources: int, first: Ints) -> None:
        self.streams, self.accesses = streams, accesses
        self.phases: list[Phase] = []
        self.at = np.zeros(len(streams.taken_use), dtype=np.int64)
        self.finish = 0
        self._early = first
        self._beat = np.zeros(len(streams.events), dtype=np.int64)
        self._shift = np.zeros(len(streams.need_task), dtype=np.int64)
        self._free, self._first_slot, self._used, self._touched, self._load = (
            np.zeros(resources, dtype=np.int64) for _ in range(5)
        )
        self._entered = np.full(resources, _ONCE, dtype=np.int64)

    def run(self) -> None:
        for tasks in find_phases(self.streams, self._early):
            self._lay(tasks)

    @property
    def longest_stay(self) -> int:
        """Ticks from the first start to the last end on a resource, at most."""
        return int((self._free - self._entered).max(initial=0))

    def _lay(self, tasks: Ints) -> None:
        from aimc_compiler.program.slots import Circles, close_phase, lay_phase, open_circles

        streams, windows = self.streams, int(self.streams.events[tasks[0]])
        uses = int(np.diff(streams.first_use)[tasks].sum())
        circles = Circles(self._first_slot, self._used, *(np.empty(0, dtype=np.int64) for _ in range(2)))
        touched, least = open_circles(streams, tasks, circles, self._touched, self._load)
        room = uses + 2 * touched
        circles = circles._replace(begins=np.empty(room, dtype=np.int64), ends=np.empty(room, dtype=np.int64))
        start = np.empty(uses, dtype=np.int64)
        self._beat[tasks] = _LAYING
        needs = _rows(streams.first_need, tasks)
        needs = needs[self._beat[streams.need_task[needs]] != _LAYING]
        beat, more = (_ONCE if windows == 1 else int(least)), max(1, int(least) // _STRETCH)
        while True:
            self._couple(needs, windows, 0 if windows == 1 else beat)
            if lay_phase(streams, tasks, self._shift, beat, self._free, circles, start, self.at):
                break
            self._used[self._touched[:touched]] = 0
            beat, more = int(least) + more, 2 * more
        self._used[self._touched[:touched]] = 0
        self._beat[tasks] = beat
        finish = close_phase(streams, tasks, beat, start, self._free, self._entered)
        self.finish = max(self.finish, int(finish))
        self.phases.append(Phase(tasks=tasks, windows=windows, beat=beat))

    def _couple(self, needs: Ints, windows: int, beat: int) -> None:
        """Fills the shifts of needs of other phases."""
        streams = self.streams
        makers = streams.need_task[needs]
        keys = np.stack([streams.need_access[needs], streams.events[makers], self._beat[makers]], axis=1)
        for key, rows in _groups(keys):
            access, made, pace = key
            self._shift[needs[rows]] = line_shift(self.accesses[access], windows, made, pace, beat)


def find_phases(streams: Streams, early: Ints) -> list[Ints]:
    """Tasks by phase, phases in the order in which they are served: none in front of what it needs, and among those
    that do not need each other by their earliest start without contention, ``early``: (tasks,).
    """
    from aimc_compiler.program.sweep_tasks import find_levels

    level = np.zeros(len(streams.events), dtype=np.int64)
    find_levels(streams, level)
    _, phase = np.unique(np.stack([level, streams.events], axis=1), axis=0, return_inverse=True)
    phase = phase.reshape(-1)
    begin = np.full(int(phase.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(begin, phase, early)
    of_level = np.zeros_like(begin)
    of_level[phase] = level
    rank = np.empty_like(begin)
    rank[np.lexsort((begin, of_level))] = np.arange(len(begin))
    served = rank[phase]
    order = np.argsort(served, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(served[order])) + 1)


@lru_cache(maxsize=4096)
def line_shift(access: Access, windows: int, made: int, pace: int, beat: int) -> int:
    """Ticks by which event 0 of a task has to start after event 0 of its maker, at least, but for the latency: then
    event k, ``k * beat`` later, comes after event ``access.last_needed(k)``, at ``pace``, for all ``windows``.
    """
    if access.kind == "all":
        return pace * (made - 1)
    if access.kind == "same":
        # Two straight lines: what holds at their ends holds between them.
        ends = (0, min(windows, made) - 1, windows - 1)
        return max(pace * min(k, made - 1) - beat * k for k in ends)
    table = last_needed(access, windows, made)
    needed = np.flatnonzero(table >= 0)
    return int((pace * table[needed] - beat * needed).max(initial=_NEVER))


def _steady(streams: Streams, accesses: tuple[Access, ...], loads: Ints, interval: int) -> int:
    """Latency where samples enter every ``interval`` ticks, the load of the busiest resource."""
    from aimc_compiler.program.slots import Circles, lay_side_by_side

    pace = _paces(streams)
    shift = _steady_shifts(streams, accesses, pace)
    users = streams.resource[streams.resource >= 0]
    uses = np.bincount(users, minlength=len(loads)) + 2
    first = np.concatenate([[0], np.cumsum(uses)[:-1]])
    begins, ends = (np.empty(int(uses.sum()), dtype=np.int64) for _ in range(2))
    grid = _grid(streams, loads, interval)
    # First where gaps may be too short, with all others free; then everywhere.
    crowded = np.zeros(len(loads), dtype=np.bool_)
    for placed in (2 * loads > interval, np.ones(len(loads), dtype=np.bool_)):
        while True:
            circles = Circles(first, np.zeros(len(loads), dtype=np.int64), begins, ends)
            cursor, before = np.where(crowded, 0, -1), int(crowded.sum())
            at, line = np.zeros(len(streams.taken_use), dtype=np.int64), _scratch(streams)
            finish = lay_side_by_side(streams, shift, pace, interval, circles, placed, grid, cursor, crowded, line, at)
            if int(crowded.sum()) == before:
                break
    return int(finish)


def _grid(streams: Streams, loads: Ints, interval: int) -> Ints:
    """Where there is no time to lose, equal events stand on a grid: no gap is too short for one."""
    from aimc_compiler.program.sweep_tasks import find_services

    shortest, longest = np.full(len(loads), interval), np.zeros(len(loads), dtype=np.int64)
    find_services(streams, shortest, longest)
    return np.where((loads == interval) & (shortest == longest), longest, 1)


def _steady_shifts(streams: Streams, accesses: tuple[Access, ...], pace: Ints) -> Ints:
    """Shifts of all needs where the events of every stream stand back to back."""
    readers = np.repeat(np.arange(len(streams.events)), np.diff(streams.first_need))
    makers = streams.need_task
    columns = (streams.need_access, streams.events[readers], streams.events[makers], pace[makers], pace[readers])
    shift = np.zeros(len(makers), dtype=np.int64)
    for key, rows in _groups(np.stack(columns, axis=1)):
        shift[rows] = line_shift(accesses[key[0]], *key[1:])
    return shift


def _scratch(streams: Streams) -> Ints:
    """Room for a number a use of any one task."""
    return np.empty(int(np.diff(streams.first_use).max(initial=0)), dtype=np.int64)


def _paces(streams: Streams) -> Ints:
    from aimc_compiler.program.sweep_tasks import find_paces

    pace = np.zeros(len(streams.events), dtype=np.int64)
    find_paces(streams, pace)
    return pace


def _rows(first: Ints, rows: Ints) -> Ints:
    """Entries of some rows of a table of compressed rows."""
    counts = first[rows + 1] - first[rows]
    ends = np.cumsum(counts)
    return np.repeat(first[rows] - ends + counts, counts) + np.arange(int(counts.sum()))


def _groups(keys: Ints) -> Iterator[tuple[tuple[int, ...], Ints]]:
    """(key, rows that have it) of each distinct row of ``keys``."""
    code = np.zeros(len(keys), dtype=np.int64)
    for column in keys.T:
        _, number = np.unique(column, return_inverse=True)
        _, code = np.unique(code * (int(number.max(initial=0)) + 1) + number.reshape(-1), return_inverse=True)
        code = code.reshape(-1)
    order = np.argsort(code, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(code[order])) + 1):
        if len(rows):
            yield tuple(int(value) for value in keys[rows[0]]), rows
