"""Compiled passes that leave out uses which nothing can hold up. Arrays are those of ``Uses`` and ``Streams``.

A resource follows another if every use of it comes directly behind a use of that one by the same task, always as many
ticks later. The events of a task take as long on both: what is served one by one there can be served here as it comes.
"""

from typing import Any

from aimc_compiler.program.streams import Uses
from aimc_compiler.program.sweep_tasks import compiled

_UNKNOWN, _NONE = 0, -1


@compiled
def find_followers(uses: Uses, source: Any, delay: Any, user: Any, follows: Any) -> None:
    """source: (resources,) zeros, filled with 1 + the resource that each follows, or -1; delay: (resources,), filled
    with the ticks between them; user: (resources,), -1, filled with the last task there; follows: (resources,), filled.
    """
    for task in range(len(uses.hop)):
        head, first = uses.first_head[task], uses.first[task]
        for use in range(uses.first[task + 1] - first):
            before = use - 1
            if head < uses.first_head[task + 1] and uses.head_use[head] == use:
                before = uses.head_before[head]
                head += 1
            on = uses.resource[first + use]
            if on < 0 or source[on] == _NONE:
                continue
            maker = 1 + uses.resource[first + before] if before >= 0 else _NONE
            if source[on] == _UNKNOWN:
                source[on], delay[on] = maker, uses.hop[task]
            elif source[on] != maker or delay[on] != uses.hop[task] or user[on] == task:
                source[on] = _NONE
            user[on] = task
    for on in range(len(source)):
        follows[on] = source[on] > 0


@compiled
def count_kept(uses: Uses, follows: Any, kept: Any) -> None:
    """How many uses of each task do not follow: (tasks,), filled."""
    for task in range(len(uses.hop)):
        for use in range(uses.first[task], uses.first[task + 1]):
            on = uses.resource[use]
            if on < 0 or not follows[on]:
                kept[task] += 1


@compiled
def keep_uses(
    uses: Uses,
    follows: Any,
    first_kept: Any,
    resource: Any,
    before: Any,
    hops: Any,
    reach: Any,
    taken_use: Any,
    taken_hops: Any,
    taken_depth: Any,
    deepest: Any,
    root: Any,
    away: Any,
    depth: Any,
) -> None:
    """Fills the columns of ``Streams``. root, away, depth: (uses of any task,), overwritten: the use that is kept on
    the way to each, hops from there, and from the task's entry.
    """
    for task in range(len(uses.hop)):
        head, first, taken, kept = uses.first_head[task], uses.first[task], uses.first_taken[task], 0
        for use in range(uses.first[task + 1] - first):
            maker = use - 1
            if head < uses.first_head[task + 1] and uses.head_use[head] == use:
                maker = uses.head_before[head]
                head += 1
            depth[use] = depth[maker] + 1 if maker >= 0 else 0
            deepest[task] = max(deepest[task], depth[use])
            on = uses.resource[first + use]
            if on >= 0 and follows[on]:
                root[use], away[use] = root[maker], away[maker] + 1
            else:
                at = first_kept[task] + kept
                resource[at], before[at], hops[at] = on, -1, 0
                if maker >= 0:
                    before[at], hops[at] = root[maker], away[maker] + 1
                root[use], away[use] = kept, 0
                kept += 1
            reach[first_kept[task] + root[use]] = max(reach[first_kept[task] + root[use]], away[use])
            if taken < uses.first_taken[task + 1] and uses.taken_use[taken] == use:
                taken_use[taken], taken_hops[taken], taken_depth[taken] = root[use], away[use], depth[use]
                taken += 1
