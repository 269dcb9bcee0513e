"""Compiled passes over the tasks of a program, each behind those it needs: levels, paces, the longest path.

Numba is imported with this module, and this module with the first schedule that is laid out phase by phase. Arrays are
those of ``Streams``.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

from aimc_compiler.program.streams import ALL, JOINED, Streams

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    return cast(F, numba.njit(cache=True, error_model="numpy", boundscheck=False)(function))


@compiled
def find_levels(streams: Streams, level: Any) -> None:
    """How many needs that are not ``JOINED`` lie in front of each task, at most: (tasks,), filled."""
    for task in range(len(streams.events)):
        for need in range(streams.first_need[task], streams.first_need[task + 1]):
            step = 0 if streams.need_kind[need] == JOINED else 1
            level[task] = max(level[task], level[streams.need_task[need]] + step)


@compiled
def sweep_free(streams: Streams, first: Any, last: Any) -> int:
    """The longest path of dependencies in ticks, the events of one stream in a row.

    Start times are the greatest of lines in k, the window, where needs are ``JOINED`` or ``ALL``: of which the values
    at both ends follow from those in front. first, last: (tasks,), filled with the starts of event 0 and of the last
    one on the first use.
    """
    finish = 0
    for task in range(len(streams.events)):
        early, late = 0, 0
        for need in range(streams.first_need[task], streams.first_need[task + 1]):
            maker = streams.need_task[need]
            delay = streams.latency[maker] + streams.hop[maker] * streams.taken_depth[streams.need_taken[need]]
            early = max(early, delay + (last[maker] if streams.need_kind[need] == ALL else first[maker]))
            late = max(late, delay + last[maker])
        first[task] = early
        last[task] = max(late, early + (streams.events[task] - 1) * streams.service[task])
        depth = streams.hop[task] * streams.depth[task]
        finish = max(finish, last[task] + depth + streams.latency[task])
    return finish


@compiled
def find_paces(streams: Streams, pace: Any) -> None:
    """Ticks between events that stand back to back: (tasks,), filled; without resources, those of what is needed."""
    for task in range(len(streams.events)):
        pace[task] = streams.service[task]
        if streams.resource[streams.first_use[task]] >= 0:
            continue
        for need in range(streams.first_need[task], streams.first_need[task + 1]):
            maker = streams.need_task[need]
            if streams.need_kind[need] != ALL:
                pace[task] = max(pace[task], pace[maker] * streams.events[maker] // streams.events[task])


@compiled
def find_services(streams: Streams, shortest: Any, longest: Any) -> None:
    """The shortest and the longest event on each resource: (resources,), lowered and raised."""
    for task in range(len(streams.events)):
        for use in range(streams.first_use[task], streams.first_use[task + 1]):
            on = streams.resource[use]
            if on >= 0:
                shortest[on] = min(shortest[on], streams.service[task])
                longest[on] = max(longest[on], streams.service[task])
