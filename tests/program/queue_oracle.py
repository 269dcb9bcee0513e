"""An independent event-queue simulator and an independent check of periodic schedules, both from the Program alone.

Events are (sample, task, use, number); each resource serves its events first come, first served in a given order. Far
slower than the engine, with another data structure and another traversal.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from heapq import heappop, heappush

import numpy as np

from aimc_compiler.program import Program, Schedule

Event = tuple[int, int, int, int]


def needs_of(program: Program, task: int, use: int, number: int) -> Iterator[tuple[tuple[int, int, int], int]]:
    """((task, use, number), delay) of everything one event waits for within its sample."""
    owner = program.tasks[task]
    if number:
        yield (task, use, number - 1), owner.service_ticks
    before = owner.uses[use][1] if owner.uses else -1
    if before >= 0:
        yield (task, before, number), owner.hop_ticks
        return
    for need in owner.needs:
        maker = program.tasks[need.task]
        needed = need.access.last_needed(number, maker.events)
        if needed >= 0:
            yield (need.task, need.use, needed), maker.latency_ticks


def starts_by_event(schedule: Schedule, program: Program, starts: list[int]) -> dict[tuple[int, int, int], int]:
    """The engine's array by (task, use, number)."""
    named, position = {}, 0
    every = schedule.events.every(starts)
    for task, owner in enumerate(program.tasks):
        for use in range(max(1, len(owner.uses))):
            for number in range(owner.events):
                named[task, use, number] = int(every[position])
                position += 1
    assert position == len(every)
    return named


def tie_ranks(schedule: Schedule, program: Program) -> dict[tuple[int, int, int], int]:
    """The order in which the engine serves what has the same key, of this sample or another."""
    events = schedule.events
    ranks = np.arange(events.count)
    if len(events.order):
        ranks[events.order] = np.arange(events.count)
    return starts_by_event(schedule, program, ranks)


def run_queue(
    program: Program,
    key: dict[tuple[int, int, int], int],
    ties: dict[tuple[int, int, int], int],
    samples: int,
    interval: int,
) -> dict[Event, int]:
    """Start times in ticks of all events of ``samples`` samples that enter every ``interval`` ticks.

    key: the service order of each resource is that of key + sample * interval, then of ties.
    """
    events = [(sample, *event) for sample in range(samples) for event in key]
    order: dict[int, list[Event]] = defaultdict(list)
    for event in sorted(events, key=lambda e: (key[e[1:]] + e[0] * interval, ties[e[1:]], e)):
        uses = program.tasks[event[1]].uses
        if uses:
            order[uses[event[2]][0]].append(event)
    waiting: dict[Event, int] = {}
    ready: dict[Event, int] = {}
    followers: dict[Event, list[tuple[Event, int]]] = defaultdict(list)
    for event in events:
        needs = list(needs_of(program, *event[1:]))
        waiting[event], ready[event] = len(needs), event[0] * interval
        for need, delay in needs:
            followers[event[0], *need].append((event, delay))
    heap = [(ready[event], event) for event in events if not waiting[event]]
    heap.sort()
    queue = _Queue(program, order, waiting, ready, followers, heap)
    while heap:
        queue.arrive(heappop(heap)[1])
    assert len(queue.start) == len(events), "the queue has come to a standstill"
    return queue.start


class _Queue:
    def __init__(
        self,
        program: Program,
        order: dict[int, list[Event]],
        waiting: dict[Event, int],
        ready: dict[Event, int],
        followers: dict[Event, list[tuple[Event, int]]],
        heap: list[tuple[int, Event]],
    ) -> None:
        self.program, self.order, self.waiting, self.ready = program, order, waiting, ready
        self.followers, self.heap = followers, heap
        self.start: dict[Event, int] = {}
        self.arrived: set[Event] = set()
        self.head: dict[int, int] = defaultdict(int)
        self.free: dict[int, int] = {}

    def arrive(self, event: Event) -> None:
        self.arrived.add(event)
        task = self.program.tasks[event[1]]
        if not task.uses:
            self._begin(event, self.ready[event])
            return
        resource = task.uses[event[2]][0]
        line = self.order[resource]
        while self.head[resource] < len(line) and line[self.head[resource]] in self.arrived:
            first = line[self.head[resource]]
            self.head[resource] += 1
            when = max(self.ready[first], self.free.get(resource, 0))
            self.free[resource] = when + self.program.tasks[first[1]].service_ticks
            self._begin(first, when)

    def _begin(self, event: Event, when: int) -> None:
        self.start[event] = when
        for follower, delay in self.followers[event]:
            self.ready[follower] = max(self.ready[follower], when + delay)
            self.waiting[follower] -= 1
            if not self.waiting[follower]:
                heappush(self.heap, (self.ready[follower], follower))


def check_periodic(program: Program, starts: dict[tuple[int, int, int], int], interval: int) -> None:
    """A pattern that repeats every ``interval`` ticks: nothing starts before what it needs, no resource does two
    things at once, whichever samples they belong to.
    """
    busy: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for (task, use, number), start in starts.items():
        assert start >= 0
        for need, delay in needs_of(program, task, use, number):
            assert start >= starts[need] + delay
        owner = program.tasks[task]
        if owner.uses and owner.service_ticks:
            busy[owner.uses[use][0]].append((start % interval, owner.service_ticks))
    for resource, spans in busy.items():
        spans.sort()
        following = [begin for begin, _ in spans[1:]] + [spans[0][0] + interval]
        for (begin, service), after in zip(spans, following, strict=True):
            assert begin + service <= after, f"{program.resources[resource].name} is asked for two things at once"


def engine_agrees(program: Program, schedule: Schedule, samples: Callable[[int], int]) -> None:
    """The oracle gives the engine's start times to the tick: alone, and in steady state."""
    alone = starts_by_event(schedule, program, schedule.alone)
    periodic = starts_by_event(schedule, program, schedule.periodic)
    interval = schedule.interval_ticks
    ties = tie_ranks(schedule, program)
    assert {event[1:]: when for event, when in run_queue(program, alone, ties, 1, 0).items()} == alone
    check_periodic(program, periodic, interval)
    count = samples(schedule.periodic_latency_ticks // interval + 1)
    starts = run_queue(program, starts_by_event(schedule, program, schedule.served), ties, count, interval)
    if schedule.settled:
        last = {event[1:]: when - event[0] * interval for event, when in starts.items() if event[0] == count // 2}
        assert last == periodic
    assert all(when - event[0] * interval <= periodic[event[1:]] for event, when in starts.items())
