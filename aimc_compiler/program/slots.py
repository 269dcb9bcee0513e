"""The compiled loops of a schedule that is laid out task by task: places on resources whose pattern repeats.

What a resource does repeats every ``period`` ticks, so its time is a circle; on it stand the slots that are taken, by
begin, the last one perhaps over the end. A task takes the first gaps it finds from the time it is ready on. Arrays are
those of ``Streams``.
"""

from typing import Any, NamedTuple

from aimc_compiler.program.streams import Streams
from aimc_compiler.program.sweep_tasks import compiled


class Circles(NamedTuple):
    """first: (resources,), where the slots of each begin; used: (resources,), how many it has; begins, ends: (slots,).

    There is room for as many slots as there are uses, and two more a resource.
    """

    first: Any
    used: Any
    begins: Any
    ends: Any


@compiled
def count_up_to(values: Any, low: int, high: int, limit: int) -> int:
    """How many of ``values[low:high]``, which rise, are at most ``limit``."""
    first = low
    while low < high:
        middle = (low + high) // 2
        if values[middle] <= limit:
            low = middle + 1
        else:
            high = middle
    return low - first


@compiled
def find_gap(circles: Circles, on: int, ready: int, service: int, period: int) -> tuple[int, int]:
    """(the first time from ``ready`` on at which ``service`` ticks are free, ticks free from then), else (-1, 0)."""
    count, low = circles.used[on], circles.first[on]
    if count == 0:
        return ready, period
    begins, ends = circles.begins, circles.ends
    phase = ready % period
    slot = count_up_to(begins, low, low + count, phase)
    begin = max(phase, ends[low + slot - 1] if slot > 0 else ends[low + count - 1] - period)
    turn = 0
    # The gap behind which the search began is looked at again one period later: all of it.
    for _ in range(count + 1):
        if slot == count:
            slot, turn = 0, turn + period
        room = begins[low + slot] + turn - begin
        if room >= service:
            return ready - phase + begin, room
        begin = max(begin, ends[low + slot] + turn)
        slot += 1
    return -1, 0


@compiled
def take_slot(circles: Circles, on: int, begin: int, length: int) -> None:
    """Adds a slot. begin: inside the period."""
    count, low = circles.used[on], circles.first[on]
    begins, ends = circles.begins, circles.ends
    place = low + count_up_to(begins, low, low + count, begin)
    behind = place > low and ends[place - 1] == begin
    before = place < low + count and begins[place] == begin + length
    if behind and before:
        ends[place - 1] = ends[place]
        for at in range(place, low + count - 1):
            begins[at], ends[at] = begins[at + 1], ends[at + 1]
        circles.used[on] = count - 1
    elif behind:
        ends[place - 1] = begin + length
    elif before:
        begins[place] = begin
    else:
        for at in range(low + count, place, -1):
            begins[at], ends[at] = begins[at - 1], ends[at - 1]
        begins[place], ends[place] = begin, begin + length
        circles.used[on] = count + 1


@compiled
def open_circles(streams: Streams, tasks: Any, circles: Circles, touched: Any, load: Any) -> tuple[int, int]:
    """Room on each resource of some tasks; returns (how many there are, the greatest load of one window).

    touched: (resources,), filled with them; load: (resources,) zeros, filled with their ticks a window.
    """
    count = 0
    for task in tasks:
        for use in range(streams.first_use[task], streams.first_use[task + 1]):
            on = streams.resource[use]
            if on >= 0:
                if circles.used[on] == 0:
                    touched[count] = on
                    count += 1
                circles.used[on] += 1
                load[on] += streams.service[task]
    room, most = 0, 0
    for number in range(count):
        on = touched[number]
        circles.first[on] = room
        room += circles.used[on] + 2
        circles.used[on] = 0
        most = max(most, load[on])
        load[on] = 0
    return count, most


@compiled
def ready_at(streams: Streams, task: int, at: Any, shift: Any) -> int:
    """When event 0 of a task can start for what it needs. at: (taken,); shift: (needs,), ticks beside the latency."""
    ready = 0
    for need in range(streams.first_need[task], streams.first_need[task + 1]):
        maker = streams.need_task[need]
        ready = max(ready, at[streams.need_taken[need]] + streams.latency[maker] + shift[need])
    return ready


@compiled
def enter(streams: Streams, task: int, use: int, entry: int, start: Any, origin: int) -> int:
    """When event 0 of a task reaches a use. start: its uses' starts from ``origin`` on."""
    before = streams.before[use]
    return entry if before < 0 else start[origin + before] + streams.hops[use] * streams.hop[task]


@compiled
def pass_on(streams: Streams, task: int, start: Any, origin: int, at: Any) -> None:
    """Fills ``at``, (taken,), for what others need of a task."""
    for taken in range(streams.first_taken[task], streams.first_taken[task + 1]):
        at[taken] = start[origin + streams.taken_use[taken]] + streams.taken_hops[taken] * streams.hop[task]


@compiled
def lay_phase(
    streams: Streams, tasks: Any, shift: Any, beat: int, free: Any, circles: Circles, start: Any, at: Any
) -> bool:
    """Starts of event 0 where event k starts ``k * beat`` later; whether every task found its gap.

    tasks: those of a phase. free: (resources,), from when on each is; circles: empty, filled. start: (uses of the
    phase,), filled, task by task; at: (taken,), filled for these tasks.
    """
    origin = 0
    for task in tasks:
        entry = ready_at(streams, task, at, shift)
        first, service = streams.first_use[task], streams.service[task]
        for use in range(first, streams.first_use[task + 1]):
            ready = enter(streams, task, use, entry, start, origin)
            on = streams.resource[use]
            if on >= 0:
                ready = max(ready, free[on])
                if service > 0:
                    ready, room = find_gap(circles, on, ready, service, beat)
                    if room == 0:
                        return False
                    take_slot(circles, on, ready % beat, service)
            start[origin + use - first] = ready
        pass_on(streams, task, start, origin, at)
        origin += streams.first_use[task + 1] - first
    return True


@compiled
def close_phase(streams: Streams, tasks: Any, beat: int, start: Any, free: Any, entered: Any) -> int:
    """When the last of a phase is finished. free: (resources,), updated to where its use of them ends.

    entered: (resources,), updated to the first start on each.
    """
    stream, finish = 0, 0
    for task in tasks:
        through = (streams.events[task] - 1) * beat
        for use in range(streams.first_use[task], streams.first_use[task + 1]):
            last = start[stream] + through
            finish = max(finish, last + streams.reach[use] * streams.hop[task] + streams.latency[task])
            on = streams.resource[use]
            if on >= 0:
                free[on] = max(free[on], last + streams.service[task])
                entered[on] = min(entered[on], start[stream])
            stream += 1
    return finish


@compiled
def lay_side_by_side(
    streams: Streams,
    shift: Any,
    pace: Any,
    interval: int,
    circles: Circles,
    placed: Any,
    grid: Any,
    cursor: Any,
    crowded: Any,
    line: Any,
    at: Any,
) -> int:
    """When a sample is finished where its events take places in an interval that repeats for every sample.

    The events of a task stand back to back, or fill one gap after another; others see them as if all were as late as
    the last one makes them. pace: (tasks,), ticks from one to the next. placed: (resources,), whether they need places
    on a resource, or pass as they come. grid: (resources,), of which the distance of two events is a multiple. cursor:
    (resources,), where the next place begins on those of which the places stand side by side, in the order of tasks,
    whatever the time; -1 where gaps are looked for. crowded: (resources,), set where there were none: then the time
    holds for nothing. line: (uses of any task,), overwritten; at: (taken,), filled.
    """
    finish = 0
    for task in range(len(streams.events)):
        entry = ready_at(streams, task, at, shift)
        first, events, service = streams.first_use[task], streams.events[task], streams.service[task]
        behind = (events - 1) * pace[task] + streams.latency[task]
        for use in range(first, streams.first_use[task + 1]):
            ready = enter(streams, task, use, entry, line, 0)
            on = streams.resource[use]
            if on >= 0 and service > 0 and placed[on]:
                place = reserve_side(cursor, on, ready, events * service, interval)
                if place < 0:
                    place = fill_gaps(circles, on, ready, events, service, grid[on], interval)
                if place < 0:
                    crowded[on] = True
                else:
                    ready = place
            line[use - first] = ready
            finish = max(finish, ready + behind + streams.reach[use] * streams.hop[task])
        pass_on(streams, task, line, 0, at)
    return finish


@compiled
def reserve_side(cursor: Any, on: int, ready: int, length: int, interval: int) -> int:
    """The first time from ``ready`` on at the next place side by side; -1 where the resource has none."""
    if cursor[on] < 0:
        return -1
    place = cursor[on]
    cursor[on] += length
    found: int = ready + (place - ready) % interval
    return found


@compiled
def fill_gaps(circles: Circles, on: int, ready: int, events: int, service: int, grid: int, interval: int) -> int:
    """Fills gaps with events; returns the latest time of event 0 that none is later than, at ``service`` ticks each.

    grid: of which the distance to other events is a multiple. -1 where the gaps are too short.
    """
    left, last = events, 0
    if circles.used[on] > 0:
        ready += (circles.begins[circles.first[on]] - ready) % grid
    while left > 0:
        begin, room = find_gap(circles, on, ready, service, interval)
        if room == 0:
            return -1
        count = min(left, room // service)
        take_slot(circles, on, begin % interval, count * service)
        ready = begin + count * service
        last = ready - service
        left -= count
    first: int = last - (events - 1) * service
    return first
