"""When every event of a program starts, exactly: one sample alone, and one sample after the other.

The service order of each resource is fixed at compile time, so times are a max-plus system (``sweep.py``).

- *Latency*: the makespan of one sample alone. The order is first that of the contention-free start times, then that
  of readiness in the schedule found so far; the best is kept.
- *Interval*: samples enter every I ticks; the machine repeats the same pattern every I ticks, each event of the
  pattern belonging to the sample that entered ``stage`` intervals ago. I is its bound, the load of the busiest
  resource, and that can always be kept up: samples do not depend on each other, so every event can own a place in
  the interval of its resource (places of one resource fit side by side, as their sum is at most I) and wait for its
  turn. First, though, events are served as they come: passes over the pattern are repeated until nothing changes.
  Then every constraint between samples holds with equality of times for ever, and samples wait less. Places are
  the fallback. Waiting takes room: buffers are unbounded here.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from aimc_compiler.program.bounds import resource_loads
from aimc_compiler.program.events import Events, Ints, flatten
from aimc_compiler.program.ir import Program
from aimc_compiler.program.sweep import sweep_needs, sweep_order, sweep_places
from aimc_compiler.records import record

#: Orders tried for one sample alone: the contention-free one and refinements.
_ORDERS = 4
#: Passes beyond those that information needs to run through all samples in the machine once.
_PATIENCE = 12


@record
class Schedule:
    """Start times in ticks, by event (``Events`` numbers them).

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
    unlimited = np.zeros(events.count, dtype=np.int64)
    _compiled(sweep_needs)(*events.arrays, unlimited, 0, unlimited)
    alone = _schedule_alone(events, unlimited)
    interval = max(1, int(loads.max(initial=0)))
    periodic, served, settled = _schedule_periodic(events, unlimited, alone, interval)
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
    """Ticks from the entry of a sample to the finish of its last event."""
    return int((start + events.latency[events.stream_of]).max(initial=0))


def _schedule_alone(events: Events, unlimited: Ints) -> Ints:
    """Start times of one sample alone, in the best of a few service orders."""
    stage = np.zeros(events.count, dtype=np.int32)
    keys, best = unlimited, None
    for _ in range(_ORDERS):
        start, ready = np.zeros_like(unlimited), np.zeros_like(unlimited)
        free = np.zeros(events.resources, dtype=np.int64)
        order = np.argsort(keys, kind="stable")
        _compiled(sweep_order)(order, stage, 0, *events.arrays, free, start, ready)
        if best is None or _makespan(events, start) < _makespan(events, best):
            best = start
        if np.array_equal(ready, keys):
            break
        keys = ready
    assert best is not None
    return best


def _schedule_periodic(events: Events, unlimited: Ints, alone: Ints, interval: int) -> tuple[Ints, Ints, bool]:
    """(start times, times that give the service order, whether they are as early as that order allows).

    interval: at least the load of every resource.
    """
    start, settled = _settle(events, alone, alone, interval)
    if settled:
        return start, alone, True
    reserved = _reserve(events, alone % interval, interval)
    start, settled = _settle(events, reserved, unlimited, interval)
    return (start if settled else reserved), reserved, settled


def _settle(events: Events, served: Ints, start: Ints, interval: int) -> tuple[Ints, bool]:
    """(start times, whether a pass left them as they were), serving each resource in the order of ``served``.

    start: times that no schedule of this order can be earlier than.
    """
    stage, phase = np.divmod(served, interval)
    order = np.argsort(phase, kind="stable")
    passes = 2 * (int(stage.max(initial=0)) + 1) + _PATIENCE
    stage = stage.astype(np.int32)
    start, ready = start.copy(), np.empty_like(start)
    free = np.full(events.resources, np.iinfo(np.int64).min // 2, dtype=np.int64)
    sweep = _compiled(sweep_order)
    for number in range(passes):
        changed = sweep(order, stage, interval, *events.arrays, free, start, ready)
        free -= interval
        if not changed and number > 0:
            return start, True
    return start, False


def _reserve(events: Events, phase: Ints, interval: int) -> Ints:
    """Start times where every event owns a place in the interval of its resource, and waits for its turn there."""
    order = np.argsort(phase, kind="stable")
    free = np.full(events.resources, np.iinfo(np.int64).min // 2, dtype=np.int64)
    place, start = phase.copy(), np.empty_like(phase)
    for _ in range(2):  # the second pass wraps what ran over the end of the interval round to its beginning
        _compiled(sweep_places)(order, phase, events.stream_of, events.service, events.resource, free, place)
        free -= interval
    _compiled(sweep_needs)(*events.arrays, place, interval, start)
    return start


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    import numba

    compiled: Callable[..., Any] = numba.njit(cache=True)(function)
    return compiled
