"""The inner loops of the timing engine, in the subset of Python that numba compiles (see ``engine.py``).

With the service order of every resource fixed, the start times of a task graph are a max-plus system (Baccelli,
Cohen, Olsder, Quadrat, "Synchronization and Linearity", Wiley 1992): an event starts when the events it needs are
finished, the event before it in its task has passed, and its resources are free. Arrays are those of ``Events``.
"""

from typing import Any

import numpy as np


def sweep_alone(
    order: Any,
    first_event: Any,
    first_need: Any,
    need_stream: Any,
    need_table: Any,
    table: Any,
    need_delay: Any,
    service: Any,
    resource: Any,
    done: Any,
    free: Any,
    start: Any,
    ready_at: Any,
) -> None:
    """One sample alone in the machine.

    order: (events,) streams, one event each. done: (streams,) zeros; free: (resources,) zeros. start: (events,),
    filled; ready_at: the same without waiting for the resource.
    """
    for stream in order:
        place = done[stream]
        done[stream] = place + 1
        event = first_event[stream] + place
        ready = start[event - 1] + service[stream] if place > 0 else 0
        for need in range(first_need[stream], first_need[stream + 1]):
            at = table[need_table[need] + place] if need_table[need] >= 0 else place
            if at >= 0:
                ready = max(ready, start[first_event[need_stream[need]] + at] + need_delay[need])
        ready_at[event] = ready
        on = resource[stream]
        if on >= 0:
            ready = max(ready, free[on])
            free[on] = ready + service[stream]
        start[event] = ready


def sweep_needs(
    order: Any,
    stream_of: Any,
    first_event: Any,
    first_need: Any,
    need_stream: Any,
    need_table: Any,
    table: Any,
    need_delay: Any,
    service: Any,
    resource: Any,
    place: Any,
    interval: int,
    start: Any,
) -> None:
    """Start times by dependencies, and the events of one stream in a row, as if streams never met on a resource.

    With an interval, every event on a resource also waits for its place there, ``place`` modulo ``interval``; with 0
    ``place`` is not read. order: of ``Events``, in which one pass is enough. start: (events,), filled.
    """
    for position in range(len(stream_of)):
        event = order[position] if len(order) > 0 else position
        stream = stream_of[event]
        index = event - first_event[stream]
        ready = start[event - 1] + service[stream] if index > 0 else 0
        for need in range(first_need[stream], first_need[stream + 1]):
            at = table[need_table[need] + index] if need_table[need] >= 0 else index
            if at >= 0:
                ready = max(ready, start[first_event[need_stream[need]] + at] + need_delay[need])
        if interval > 0 and resource[stream] >= 0:
            ready += (place[event] - ready) % interval
        start[event] = ready


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


def sweep_slots(
    order: Any,
    stream_of: Any,
    first_event: Any,
    first_need: Any,
    need_stream: Any,
    need_table: Any,
    table: Any,
    need_delay: Any,
    service: Any,
    resource: Any,
    slots: tuple[Any, ...],
    interval: int,
    start: Any,
) -> bool:
    """Start times where each event takes the first gap that is long enough, once it is ready; whether all found one.

    order: (events,), every event behind those it needs. slots: grid: (resources,), of which the distance of two slots
    is a multiple; first: (resources + 1,); used: (resources,) zeros; begins, ends: (slots,), those that are taken in
    the interval of each resource, by begin, filled. start: (events,), filled.
    """
    grid, first, used, begins, ends = slots
    for event in order:
        stream = stream_of[event]
        index = event - first_event[stream]
        ready = start[event - 1] + service[stream] if index > 0 else 0
        for need in range(first_need[stream], first_need[stream + 1]):
            at = table[need_table[need] + index] if need_table[need] >= 0 else index
            if at >= 0:
                ready = max(ready, start[first_event[need_stream[need]] + at] + need_delay[need])
        on = resource[stream]
        if on < 0:
            start[event] = ready
            continue
        low, count = first[on], used[on]
        if count > 0:
            ready += (begins[low] - ready) % grid[on]
        phase = ready % interval
        slot = np.searchsorted(begins[low : low + count], phase)
        begin, last = phase, slot + count
        if count > 0:
            begin = max(begin, ends[low + slot - 1] if slot > 0 else ends[low + count - 1] - interval)
            while begin + service[stream] > begins[low + slot % count] + slot // count * interval:
                if slot == last:
                    return False
                begin = max(begin, ends[low + slot % count] + slot // count * interval)
                slot += 1
        start[event] = ready - phase + begin
        begin = begin % interval
        place = low + count
        while place > low and begins[place - 1] > begin:
            begins[place], ends[place] = begins[place - 1], ends[place - 1]
            place -= 1
        begins[place], ends[place] = begin, begin + service[stream]
        used[on] = count + 1
    return True


def rank_needs(
    order: Any,
    stream_of: Any,
    first_event: Any,
    first_need: Any,
    need_stream: Any,
    need_table: Any,
    table: Any,
    rank: Any,
    stream_at: Any,
    before: Any,
    made: Any,
) -> None:
    """Ranks in a service order of what each event waits for: passes over the pattern then read memory in a row.

    order: (events,). Filled: rank: (events,), of an event; by rank stream_at: (events,), its stream, before: (events,),
    the rank of the event before it in its stream, and, need after need, made: (needs of all events,), the rank of what
    it needs; -1 for none.
    """
    for position in range(len(order)):
        rank[order[position]] = position
    row = 0
    for position in range(len(order)):
        event = order[position]
        stream = stream_of[event]
        index = event - first_event[stream]
        stream_at[position] = stream
        before[position] = rank[event - 1] if index > 0 else -1
        for need in range(first_need[stream], first_need[stream + 1]):
            at = table[need_table[need] + index] if need_table[need] >= 0 else index
            made[row] = rank[first_event[need_stream[need]] + at] if at >= 0 else -1
            row += 1


def sweep_pattern(
    stream_at: Any,
    before: Any,
    made: Any,
    stage: Any,
    interval: int,
    first_need: Any,
    need_delay: Any,
    service: Any,
    resource: Any,
    free: Any,
    start: Any,
) -> bool:
    """What the machine does in one interval, every event once, of different samples; whether any start time changed.

    All by rank: stage: (events,), how many intervals before this pass the event's sample entered; start: (events,),
    ticks after the entry of the event's sample, updated. free: (resources,), when a resource is free, in ticks after
    the beginning of this pass.
    """
    changed = False
    row = 0
    for position in range(len(stream_at)):
        stream = stream_at[position]
        ready = start[before[position]] + service[stream] if before[position] >= 0 else 0
        for need in range(first_need[stream], first_need[stream + 1]):
            if made[row] >= 0:
                ready = max(ready, start[made[row]] + need_delay[need])
            row += 1
        on = resource[stream]
        if on >= 0:
            entered = stage[position] * interval
            ready = max(ready, free[on] + entered)
            free[on] = ready - entered + service[stream]
        if ready != start[position]:
            changed = True
            start[position] = ready
    return changed
