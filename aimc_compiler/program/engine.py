"""When every event of a program starts, exactly: one sample alone, and one sample after the other.

The service order of each resource is fixed at compile time, so times are a max-plus system (``sweep.py``).

- *Latency*: the makespan of one sample alone. The order is first that of the contention-free start times, then that
  of readiness in the schedule found so far; the best is kept.
- *Interval*: samples enter every I ticks; the machine repeats the same pattern every I ticks, each event of the
  pattern belonging to the sample that entered ``stage`` intervals ago. Passes over the pattern are repeated until
  nothing changes: then every constraint between samples holds with equality of times for ever, which proves that I
  can be kept up. I begins at its bound, the load of the busiest resource, and is raised by the measured drift until
  a pattern is found. An interval of one whole sample always has one.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from aimc_compiler.errors import InternalError
from aimc_compiler.program.bounds import resource_loads
from aimc_compiler.program.events import Events, Ints, flatten
from aimc_compiler.program.ir import Program
from aimc_compiler.program.sweep import sweep_order, sweep_unlimited
from aimc_compiler.records import record

#: Orders tried for one sample alone: the contention-free one and refinements.
_ORDERS = 4
#: Passes beyond those that information needs to run through all samples in the machine once.
_PATIENCE = 12


@record
class Schedule:
    """Start times in ticks, by event (``Events`` numbers them).

    unlimited: without contention between tasks; alone: one sample in the machine; periodic: ticks after its entry in
    steady state, where a sample enters every ``interval_ticks``; loads: busy ticks a sample of each resource.
    """

    events: Events
    unlimited: Any
    alone: Any
    periodic: Any
    latency_bound_ticks: int
    latency_ticks: int
    interval_bound_ticks: int
    interval_ticks: int
    periodic_latency_ticks: int
    loads: Any


def schedule_program(program: Program) -> Schedule:
    """The schedule of one sample and of the steady state. Raises NotBuiltError on more events than memory holds."""
    events = flatten(program)
    loads = resource_loads(program)
    unlimited = np.zeros(events.count, dtype=np.int64)
    _compiled(sweep_unlimited)(*events.arrays, unlimited)
    alone = _schedule_alone(events, unlimited)
    bound = max(1, int(loads.max(initial=0)))
    interval, periodic = _schedule_periodic(events, alone, bound)
    return Schedule(
        events=events,
        unlimited=unlimited,
        alone=alone,
        periodic=periodic,
        latency_bound_ticks=_makespan(events, unlimited),
        latency_ticks=_makespan(events, alone),
        interval_bound_ticks=bound,
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


def _schedule_periodic(events: Events, alone: Ints, bound: int) -> tuple[int, Ints]:
    """The first interval, from the bound upwards, with a pattern that repeats; and its start times."""
    span = int((alone + np.maximum(events.latency, events.service)[events.stream_of]).max(initial=0))
    interval, attempt = bound, 0
    while interval < span:
        start, drift = _repeat_pattern(events, alone, interval)
        if drift == 0:
            return interval, start
        attempt += 1
        # Later attempts take larger steps: the gap to the bound is reported, compile time is not wasted.
        interval += max(drift, (interval * max(0, attempt - 4)) >> 10)
    interval = max(span, bound)
    start, drift = _repeat_pattern(events, alone, interval)
    if drift:
        raise InternalError("an interval of one whole sample has no periodic schedule")
    return interval, start


def _repeat_pattern(events: Events, alone: Ints, interval: int) -> tuple[Ints, int]:
    """(start times, 0) where the pattern of this interval settles; else the ticks a pass by which it runs late."""
    stage, phase = np.divmod(alone, interval)
    order = np.argsort(phase, kind="stable")
    stage = stage.astype(np.int32)
    passes = 2 * (int(stage.max(initial=0)) + 1) + _PATIENCE
    start, ready = alone.copy(), np.empty_like(alone)
    free = np.full(events.resources, np.iinfo(np.int64).min // 2, dtype=np.int64)
    sweep = _compiled(sweep_order)
    halfway = start
    for number in range(passes):
        changed = sweep(order, stage, interval, *events.arrays, free, start, ready)
        free -= interval
        if not changed and number > 0:
            return start, 0
        if number == passes // 2:
            halfway = start.copy()
    drift = int((start - halfway).max())
    return start, max(1, -(-drift // (passes - 1 - passes // 2)))


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    import numba

    compiled: Callable[..., Any] = numba.njit(cache=True)(function)
    return compiled
