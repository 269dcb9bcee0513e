"""A Program as flat integer arrays by task, for schedules that are laid out task by task (``phases.py``).

A task on one of its resources is a *use*. A large network has fifty million of them: nothing here is an object a use,
and nothing at all grows with the windows. Links that are entered from one other link alone are left out: what comes off
that one by one finds them free (``follow.py``).
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

    events, service, latency, hop: (tasks,), ticks. first_use: (tasks + 1,); resource: (uses,), -1 for none, of which a
    task without uses has one; before: (uses,), the use of the same task that a use follows, -1 for none, and hops: by
    how many hops; reach: (uses,), hops to the farthest use that is left out behind it. first_need: (tasks + 1,);
    need_task, need_taken, need_kind, need_access: (needs,), the maker, the use of it by number in ``taken``,
    ``JOINED``, ``ALL`` or ``OTHER``, and the number of the access. first_taken: (tasks + 1,); taken_use, taken_hops:
    (taken,), what others wait for: so many hops behind a use; taken_depth: (taken,), hops behind the task's entry.
    depth: (tasks,), hops to the farthest use of a task.
    """

    events: Any
    service: Any
    latency: Any
    hop: Any
    first_use: Any
    resource: Any
    before: Any
    hops: Any
    reach: Any
    first_need: Any
    need_task: Any
    need_taken: Any
    need_kind: Any
    need_access: Any
    first_taken: Any
    taken_use: Any
    taken_hops: Any
    taken_depth: Any
    depth: Any


class Uses(NamedTuple):
    """All uses of all tasks. first: (tasks + 1,); resource: (uses,); first_head: (tasks + 1,); head_use, head_before:
    (heads,), uses that do not follow the one in front of them, by number in their task, and what they follow, -1 for
    nothing. hop: (tasks,) ticks. first_taken: (tasks + 1,); taken_use: (taken,), uses that others wait for, rising.
    """

    first: Any
    resource: Any
    first_head: Any
    head_use: Any
    head_before: Any
    hop: Any
    first_taken: Any
    taken_use: Any


def flatten_streams(program: Program) -> tuple[Streams, tuple[Access, ...]]:
    """The tables, and the accesses that ``need_access`` numbers."""
    tasks = program.tasks
    events, service, latency, hop = (
        _ints((getattr(task, name) for task in tasks), len(tasks))
        for name in ("events", "service_ticks", "latency_ticks", "hop_ticks")
    )
    resources = [_resources(task) for task in tasks]
    first_use = starts(_ints(map(len, resources), len(tasks)))
    needs = [need for task in tasks for need in task.needs]
    first_need = starts(_ints((len(task.needs) for task in tasks), len(tasks)))
    need_task = _ints((need.task for need in needs), len(needs))
    numbers: dict[Access, int] = {}
    need_access = _ints((numbers.setdefault(need.access, len(numbers)) for need in needs), len(needs))
    reader = np.repeat(np.arange(len(tasks)), np.diff(first_need))
    stream = first_use[need_task] + _ints((need.use for need in needs), len(needs))
    taken, need_taken = np.unique(stream, return_inverse=True)
    owner = np.searchsorted(first_use, taken, side="right") - 1
    uses = Uses(
        first=first_use,
        resource=np.concatenate([_NO_USE[:0], *resources]),
        hop=hop,
        first_taken=starts(np.bincount(owner, minlength=len(tasks))),
        taken_use=taken - first_use[owner],
        **_heads(tasks),
    )
    streams = Streams(
        events=events,
        service=service,
        latency=latency,
        hop=hop,
        first_need=first_need,
        need_task=need_task,
        need_taken=need_taken.reshape(-1),
        need_kind=_kinds(tuple(numbers), need_access, events[reader], events[need_task]),
        need_access=need_access,
        first_taken=uses.first_taken,
        **_compress(uses, len(program.resources)),
    )
    return streams, tuple(numbers)


def _compress(uses: Uses, resources: int) -> dict[str, Any]:
    """The columns of ``Streams`` that are about uses, without those on resources that follow another one."""
    from aimc_compiler.program.compress import count_kept, find_followers, keep_uses

    follows, source, delay = (np.zeros(resources, dtype=kind) for kind in (np.bool_, np.int64, np.int64))
    line = [np.empty(int(np.diff(uses.first).max(initial=0)), dtype=np.int64) for _ in range(3)]
    find_followers(uses, source, delay, np.full(resources, -1, dtype=np.int64), follows)
    kept = np.zeros(len(uses.first) - 1, dtype=np.int64)
    count_kept(uses, follows, kept)
    first = starts(kept)
    resource, before, hops, reach = (np.zeros(int(first[-1]), dtype=np.int32) for _ in range(4))
    taken_use, taken_hops, taken_depth = (np.zeros(len(uses.taken_use), dtype=np.int64) for _ in range(3))
    depth = np.zeros(len(kept), dtype=np.int64)
    keep_uses(uses, follows, first, resource, before, hops, reach, taken_use, taken_hops, taken_depth, depth, *line)
    return {
        "first_use": first,
        "resource": resource,
        "before": before,
        "hops": hops,
        "reach": reach,
        "taken_use": taken_use,
        "taken_hops": taken_hops,
        "taken_depth": taken_depth,
        "depth": depth,
    }


def starts(counts: Any) -> Ints:
    """(rows + 1,): where each row begins, and the end."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts, dtype=np.int64)])


def _resources(task: Task) -> NDArray[np.int32]:
    if isinstance(task.uses, Links):
        return task.uses.resources
    return np.array([resource for resource, _ in task.uses], dtype=np.int32) if task.uses else _NO_USE


def _heads(tasks: Sequence[Task]) -> dict[str, Any]:
    """The columns of ``Uses`` that are about heads."""
    found = [_heads_of(task) for task in tasks]
    first = starts(_ints((len(uses) for uses, _ in found), len(tasks)))
    use, before = (
        np.fromiter((value for head in found for value in head[side]), dtype=np.int32, count=int(first[-1]))
        for side in (0, 1)
    )
    return {"first_head": first, "head_use": use, "head_before": before}


def _heads_of(task: Task) -> tuple[Sequence[int], Sequence[int]]:
    """(uses where a straight piece begins, what each of them follows)."""
    if isinstance(task.uses, Links):
        return task.uses.heads, task.uses.heads_before
    if len(task.uses) < 2:
        return _HEAD
    before = [before for _, before in task.uses]
    found = [use for use, follows in enumerate(before) if follows != use - 1 or use == 0]
    return found, [before[use] for use in found]


def _kinds(accesses: tuple[Access, ...], need_access: Ints, windows: Ints, made: Ints) -> NDArray[np.int8]:
    kinds = np.array([*(access.kind for access in accesses), ""])[need_access]
    joined = (kinds == "same") & (windows == made)
    return np.where(joined, JOINED, np.where(kinds == "all", ALL, OTHER)).astype(np.int8)


def _ints(values: Iterable[int], count: int) -> Ints:
    return np.fromiter(values, dtype=np.int64, count=count)
