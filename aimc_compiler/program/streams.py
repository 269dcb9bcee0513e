"""A Program as flat integer arrays by task, for schedules that are laid out task by task (``phases.py``).

A *stream* is a task on one of its resources. A large network has ten million of them: nothing here is an object a
stream, and nothing at all grows with the windows.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aimc_compiler.program.ir import Program, Task
from aimc_compiler.program.links import Links
from aimc_compiler.workload.ir import Access

Ints = NDArray[np.int64]

#: What a need is, for the compiled loops: event by event of as many, all of it, or anything else.
JOINED, ALL, OTHER = 0, 1, 2
_NO_USE = np.full(1, -1, dtype=np.int32)
_HEAD = ([0], [-1])


class Streams(NamedTuple):
    """Tables that compiled loops read.

    events, service, latency, hop: (tasks,), ticks. first_use: (tasks + 1,); resource: (streams,), -1 for none, of
    which a task without uses has one. first_head: (tasks + 1,); head_use, head_before: (heads,), uses that do not
    follow the one in front of them, and what they follow, -1 for nothing. first_need: (tasks + 1,); need_task,
    need_taken, need_kind, need_access: (needs,), the maker, the use of it by number in ``taken``, ``JOINED``, ``ALL``
    or ``OTHER``, and the number of the access. first_taken: (tasks + 1,); taken_use, taken_depth: (taken,), uses
    of a task that others wait for, and how many hops behind its entry. depth: (tasks,), hops to its farthest use.
    """

    events: Any
    service: Any
    latency: Any
    hop: Any
    first_use: Any
    resource: Any
    first_head: Any
    head_use: Any
    head_before: Any
    first_need: Any
    need_task: Any
    need_taken: Any
    need_kind: Any
    need_access: Any
    first_taken: Any
    taken_use: Any
    taken_depth: Any
    depth: Any


def flatten_streams(program: Program) -> tuple[Streams, tuple[Access, ...]]:
    """The tables, and the accesses that ``need_access`` numbers."""
    tasks = program.tasks
    resources = [_resources(task) for task in tasks]
    first_use = starts(_ints(map(len, resources), len(tasks)))
    heads = [_heads(task) for task in tasks]
    first_head = starts(_ints((len(uses) for uses, _ in heads), len(tasks)))
    head_use, head_before = (
        np.fromiter((value for head in heads for value in head[side]), dtype=np.int32, count=int(first_head[-1]))
        for side in (0, 1)
    )
    events = _ints((task.events for task in tasks), len(tasks))
    needs = [need for task in tasks for need in task.needs]
    first_need = starts(_ints((len(task.needs) for task in tasks), len(tasks)))
    need_task = _ints((need.task for need in needs), len(needs))
    numbers: dict[Access, int] = {}
    need_access = _ints((numbers.setdefault(need.access, len(numbers)) for need in needs), len(needs))
    reader = np.repeat(np.arange(len(tasks)), np.diff(first_need))
    stream = first_use[need_task] + _ints((need.use for need in needs), len(needs))
    taken, need_taken = np.unique(stream, return_inverse=True)
    owner = np.searchsorted(first_use, taken, side="right") - 1
    streams = Streams(
        events=events,
        service=_ints((task.service_ticks for task in tasks), len(tasks)),
        latency=_ints((task.latency_ticks for task in tasks), len(tasks)),
        hop=_ints((task.hop_ticks for task in tasks), len(tasks)),
        first_use=first_use,
        resource=np.concatenate([_NO_USE[:0], *resources]),
        first_head=first_head,
        head_use=head_use,
        head_before=head_before,
        first_need=first_need,
        need_task=need_task,
        need_taken=need_taken.reshape(-1),
        need_kind=_kinds(tuple(numbers), need_access, events[reader], events[need_task]),
        need_access=need_access,
        first_taken=starts(np.bincount(owner, minlength=len(tasks))),
        taken_use=taken - first_use[owner],
        taken_depth=np.zeros(len(taken), dtype=np.int64),
        depth=np.zeros(len(tasks), dtype=np.int64),
    )
    return streams, tuple(numbers)


def starts(counts: Any) -> Ints:
    """(rows + 1,): where each row begins, and the end."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])


def _resources(task: Task) -> NDArray[np.int32]:
    if isinstance(task.uses, Links):
        return task.uses.resources
    return np.array([resource for resource, _ in task.uses], dtype=np.int32) if task.uses else _NO_USE


def _heads(task: Task) -> tuple[Sequence[int], Sequence[int]]:
    """(uses where a straight piece begins, what each of them follows)."""
    if isinstance(task.uses, Links):
        return task.uses.heads, task.uses.heads_before
    if len(task.uses) < 2:
        return _HEAD
    before = [before for _, before in task.uses]
    found = [use for use, follows in enumerate(before) if follows != use - 1 or use == 0]
    return found, [before[use] for use in found]


def _kinds(accesses: tuple[Access, ...], need_access: Ints, windows: Ints, made: Ints) -> NDArray[np.int8]:
    kinds = np.array([access.kind for access in accesses] or [""])[need_access]
    joined = (kinds == "same") & (windows == made)
    return np.where(joined, JOINED, np.where(kinds == "all", ALL, OTHER)).astype(np.int8)


def _ints(values: Iterable[int], count: int) -> Ints:
    return np.fromiter(values, dtype=np.int64, count=count)
