"""The inner loops of the timing engine, in the subset of Python that numba compiles (see ``engine.py``).

With the service order of every resource fixed, the start times of a task graph are a max-plus system (Baccelli,
Cohen, Olsder, Quadrat, "Synchronization and Linearity", Wiley 1992): an event starts when the events it needs are
finished, the event before it in its task has passed, and its resources are free. Arrays are those of ``Events``.
"""

from typing import Any


def sweep_order(
    order: Any,
    stage: Any,
    interval: int,
    stream_of: Any,
    first_event: Any,
    service: Any,
    resource: Any,
    first_need: Any,
    need_stream: Any,
    need_delay: Any,
    need_table: Any,
    table: Any,
    free: Any,
    start: Any,
    ready_at: Any,
) -> bool:
    """One pass over all events in a fixed order; returns whether any start time changed.

    order: (events,) event numbers. stage: (events,), how many intervals before this pass the event's sample entered;
    start: (events,), ticks after the entry of the event's sample, updated; ready_at: the same without waiting for
    the resource, filled. free: (resources,), when a resource is free, in ticks after the beginning of this pass.
    With stage 0 throughout and ``free`` zero the pass is one sample alone in the machine. Else it is what the machine
    does in one interval: every event once, of different samples.
    """
    changed = False
    for event in order:
        stream = stream_of[event]
        place = event - first_event[stream]
        ready = start[event - 1] + service[stream] if place > 0 else 0
        for need in range(first_need[stream], first_need[stream + 1]):
            made = start[first_event[need_stream[need]] + table[need_table[need] + place]] + need_delay[need]
            ready = max(ready, made)
        ready_at[event] = ready
        if resource[stream] >= 0:
            entered = stage[event] * interval
            ready = max(ready, free[resource[stream]] + entered)
            free[resource[stream]] = ready - entered + service[stream]
        if ready != start[event]:
            changed = True
            start[event] = ready
    return changed


def sweep_places(order: Any, phase: Any, stream_of: Any, service: Any, resource: Any, free: Any, place: Any) -> None:
    """Places in the interval, side by side on each resource: at an event's phase, or behind the place before it.

    order: (events,), by phase; phase: (events,) wished-for place; free: (resources,), end of the place before the
    first one, updated; place: (events,), filled; it may run over the end of the interval.
    """
    for event in order:
        stream = stream_of[event]
        on = resource[stream]
        if on >= 0:
            place[event] = max(phase[event], free[on])
            free[on] = place[event] + service[stream]


def sweep_needs(
    stream_of: Any,
    first_event: Any,
    service: Any,
    resource: Any,
    first_need: Any,
    need_stream: Any,
    need_delay: Any,
    need_table: Any,
    table: Any,
    place: Any,
    interval: int,
    start: Any,
) -> None:
    """Start times by dependencies, and the events of one stream in a row, as if streams never met on a resource.

    With an interval, every event on a resource also waits for its place there, ``place`` modulo ``interval``; with 0
    ``place`` is not read. start: (events,), filled. Streams stand behind those they need, so one pass in order of the
    events is enough.
    """
    for event in range(len(stream_of)):
        stream = stream_of[event]
        index = event - first_event[stream]
        ready = start[event - 1] + service[stream] if index > 0 else 0
        for need in range(first_need[stream], first_need[stream + 1]):
            made = start[first_event[need_stream[need]] + table[need_table[need] + index]] + need_delay[need]
            ready = max(ready, made)
        if interval > 0 and resource[stream] >= 0:
            ready += (place[event] - ready) % interval
        start[event] = ready
