"""When every event of a program starts, exactly: one sample alone, and one sample after the other.

The service order of each resource is fixed at compile time, so times are a max-plus system (``sweep.py``).

- *Latency*: the makespan of one sample alone. The order is first that of the contention-free start times, then that
  of readiness in the schedule found so far; the best is kept.
- *Interval*: samples enter every I ticks; the machine repeats the same pattern every I ticks, each event of the
  pattern belonging to the sample that entered ``stage`` intervals ago. I is its bound, the load of the busiest
  resource, and that can always be kept up: samples do not depend on each other, so every event can own a place in
  the interval of its resource (places of one resource fit side by side, as their sum is at most I) and wait for its
  turn. First, though, events are served as they come: passes over the pattern are repeated until nothing changes.
  Then every constraint between samples holds with equality of times for ever, and samples wait less. Where they pile
  up, each event takes the first gap in the interval of its resource that it finds when it is ready, and where gaps
  are too short for one, its place side by side. Waiting takes room: buffers are unbounded here. Loops change nothing
  of this: what waits for the step before waits for its own sample.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aimc_compiler.program.bounds import resource_loads
from aimc_compiler.program.events import Events, Ints, flatten
from aimc_compiler.program.ir import Program
from aimc_compiler.program.sweep import rank_needs, sweep_alone, sweep_needs, sweep_pattern, sweep_places, sweep_slots
from aimc_compiler.records import record

#: Orders tried for one sample alone: the contention-free one and refinements.
_ORDERS = 4
#: Passes beyond those that information needs to run through all samples in the machine once.
_PATIENCE = 12
#: Steps of looking for gaps, at most: the squares of the events of each resource.
_SLOT_WORK = 1e10
_NONE = np.zeros(0, dtype=np.int64)


@record
class Schedule:
    """Start times in ticks, by event (``Events`` numbers them; ``events.every`` gives those of the program).

    unlimited: without contention between tasks; alone: one sample in the machine; periodic: ticks after its entry in
    steady state, where a sample enters every ``interval_ticks``; served: times whose order is that in which resources
    serve it; settled: whether ``periodic`` is as early as that order allows; loads: busy ticks a sample of a resource.
    """

    events: Events
    unlimited: Any
    alone: Any
    periodic: Any
    served: Any
    settled: bool
    latency_bound_ticks: int
    latency_ticks: int
    interval_ticks: int
    periodic_latency_ticks: int
    loads: Any

    @property
    def interval_bound_ticks(self) -> int:
        """The load of the busiest resource."""
        return max(1, int(self.loads.max(initial=0)))


def schedule_program(program: Program) -> Schedule:
    """The schedule of one sample and of the steady state. Raises NotBuiltError on more events than memory holds."""
    events = flatten(program)
    loads = resource_loads(program)
    unlimited = _wait_for_needs(events)
    alone = _schedule_alone(events, unlimited)
    interval = max(1, int(loads.max(initial=0)))
    periodic, served, settled = _schedule_periodic(events, unlimited, alone, loads, interval)
    return Schedule(
        events=events,
        unlimited=unlimited,
        alone=alone,
        periodic=periodic,
        served=served,
        settled=settled,
        latency_bound_ticks=_makespan(events, unlimited),
        latency_ticks=_makespan(events, alone),
        interval_ticks=interval,
        periodic_latency_ticks=_makespan(events, periodic),
        loads=loads,
    )


def _makespan(events: Events, start: Ints) -> int:
    """Ticks from the entry of a sample to the finish of its last event. The events of a stream start in order."""
    return int((start[events.first_event[1:] - 1] + events.tail).max(initial=0))


def _sorted(keys: Ints, payload: NDArray[np.integer[Any]]) -> Ints:
    """Payloads by key, equal keys by payload: several times as fast as sorting positions. Keys are not negative."""
    bits = int(payload.max(initial=0)).bit_length()
    if int(keys.max(initial=0)).bit_length() + bits > 62:
        return payload[np.lexsort((payload, keys))].astype(np.int64)
    packed = keys << bits
    packed |= payload
    packed.sort()
    packed &= (1 << bits) - 1
    return packed


def _by_event(events: Events, keys: Ints) -> Ints:
    """Events by key; equal keys in an order in which every event stands behind those it needs."""
    position = np.arange(events.count, dtype=np.int32)
    return events.order[_sorted(keys[events.order], position)] if len(events.order) else _sorted(keys, position)


def _by_stream(events: Events, keys: Ints) -> Ints:
    """The streams of ``_by_event``. The events of a stream are in order of number, as their keys never fall."""
    if len(events.order):
        streams: Ints = events.stream_of[_by_event(events, keys)]
        return streams
    return _sorted(keys, events.stream_of)


def _wait_for_needs(events: Events, place: Ints = _NONE, interval: int = 0) -> Ints:
    start = np.empty(events.count, dtype=np.int64)
    tables = (*events.needs, events.need_delay, events.service, events.resource)
    _compiled(sweep_needs)(events.order, events.stream_of, *tables, place, interval, start)
    return start


def _schedule_alone(events: Events, unlimited: Ints) -> Ints:
    """Start times of one sample alone, in the best of a few service orders."""
    tables = (*events.needs, events.need_delay, events.service, events.resource)
    keys, best = unlimited, None
    for _ in range(_ORDERS):
        start, ready = np.empty_like(unlimited), np.empty_like(unlimited)
        done, free = (np.zeros(count, dtype=np.int64) for count in (len(events.service), events.resources))
        _compiled(sweep_alone)(_by_stream(events, keys), *tables, done, free, start, ready)
        if best is None or _makespan(events, start) < _makespan(events, best):
            best = start
        if np.array_equal(ready, keys):
            break
        keys = ready
    assert best is not None
    return best


def _schedule_periodic(
    events: Events, unlimited: Ints, alone: Ints, loads: Ints, interval: int
) -> tuple[Ints, Ints, bool]:
    """(start times, times that give the service order, whether they are as early as that order allows).

    loads: of each resource; interval: at least each of them.
    """
    start, settled = _settle(events, alone, alone, interval)
    if settled:
        return start, alone, True
    served = _fit(events, unlimited, loads, interval)
    if served is None:
        served = _reserve(events, alone % interval, interval)
    start, settled = _settle(events, served, unlimited, interval)
    return (start if settled else served), served, settled


def _fit(events: Events, unlimited: Ints, loads: Ints, interval: int) -> Ints | None:
    """Start times where each event takes the first gap in its resource's interval; None if one found none.

    None as well for resources of very many events, where it would take too long to look.
    """
    users = np.flatnonzero(events.resource >= 0)
    counts, on = np.diff(events.first_event)[users], events.resource[users]
    slots = np.bincount(on, counts, events.resources).astype(np.int64)
    if (slots.astype(float) ** 2).sum() > _SLOT_WORK:
        return None
    first = np.concatenate([[0], np.cumsum(slots)])
    shortest, longest = np.full(events.resources, interval), np.zeros(events.resources, dtype=np.int64)
    np.minimum.at(shortest, on, events.service[users])
    np.maximum.at(longest, on, events.service[users])
    # Where there is no time to lose, equal events stand on a grid: no gap is too short for one.
    grid = np.where((loads == interval) & (shortest == longest), longest, 1)
    start = np.empty_like(unlimited)
    used, begins, ends = (np.zeros(size, dtype=np.int64) for size in (events.resources, first[-1], first[-1]))
    tables = (*events.needs, events.need_delay, events.service, events.resource)
    order, taken = _by_event(events, unlimited), (grid, first, used, begins, ends)
    fits = _compiled(sweep_slots)(order, events.stream_of, *tables, taken, interval, start)
    return start if fits else None


def _settle(events: Events, served: Ints, start: Ints, interval: int) -> tuple[Ints, bool]:
    """(start times, whether a pass left them as they were), serving each resource in the order of ``served``.

    start: times that no schedule of this order can be earlier than.
    """
    order = _by_event(events, served % interval)
    stage = (served // interval).astype(np.int32)[order]
    passes = 2 * (int(stage.max(initial=0)) + 1) + _PATIENCE
    ranked = start[order]
    waits = _rank(events, order)
    free = np.full(events.resources, np.iinfo(np.int64).min // 2, dtype=np.int64)
    tables = (events.first_need, events.need_delay, events.service, events.resource)
    sweep, settled = _compiled(sweep_pattern), False
    for number in range(passes):
        changed = sweep(*waits, stage, interval, *tables, free, ranked)
        free -= interval
        if not changed and number > 0:
            settled = True
            break
    found = np.empty_like(start)
    found[order] = ranked
    return found, settled


def _rank(events: Events, order: Ints) -> tuple[Any, Any, Any]:
    """(stream, rank of the event before it in its stream, ranks of what it needs) by rank in a service order."""
    per_stream = np.diff(events.first_event) * np.diff(events.first_need)
    rank, stream_at, before = (np.empty(events.count, dtype=np.int32) for _ in range(3))
    made = np.empty(int(per_stream.sum()), dtype=np.int32)
    _compiled(rank_needs)(order, events.stream_of, *events.needs, rank, stream_at, before, made)
    return stream_at, before, made


def _reserve(events: Events, phase: Ints, interval: int) -> Ints:
    """Start times where every event owns a place in the interval of its resource, and waits for its turn there."""
    order = _by_event(events, phase)
    free = np.full(events.resources, np.iinfo(np.int64).min // 2, dtype=np.int64)
    place = phase.copy()
    for _ in range(2):  # the second pass wraps what ran over the end of the interval round to its beginning
        _compiled(sweep_places)(order, phase, events.stream_of, events.service, events.resource, free, place)
        free -= interval
    return _wait_for_needs(events, place, interval)


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    import numba

    compiled: Callable[..., Any] = numba.njit(cache=True)(function)
    return compiled
