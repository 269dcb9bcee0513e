"""Streams that need no simulation: their events start a fixed time after those of another stream.

A link that is entered from one other link alone never makes a transfer wait: what comes off a resource one by one, no
closer than it will be served, finds the next resource free. The same holds behind a tile whose digital unit does
nothing else. So a resource *follows* if every stream on it waits for a stream of its own, event by event, if those
streams are all served by one resource, at least as long, and if the delay between the two is the same for all.
"""

from collections import defaultdict

from aimc_compiler.records import record
from aimc_compiler.workload.ir import Access


@record
class Wait:
    """Event k of a stream starts at least ``delay`` ticks after event ``access.last_needed(k)`` of ``stream``."""

    stream: int
    delay: int
    access: Access
    events: int


@record
class Stream:
    """A task on one of its resources (-1 for none): ``events`` times ``service`` ticks."""

    task: int
    resource: int
    events: int
    service: int
    latency: int
    waits: tuple[Wait, ...]


def find_leaders(streams: list[Stream]) -> tuple[list[int], list[int]]:
    """(leader, ticks behind it) of every stream; its own leader, and 0, where it has to be simulated."""
    single = [_only_maker(number, stream) for number, stream in enumerate(streams)]
    # Without a resource nothing is waited for, whatever the others do.
    follows = [stream.resource < 0 and stream.service == 0 for stream in streams]
    leader, behind = _resolve(single, follows)
    members: dict[int, list[int]] = defaultdict(list)
    for number, stream in enumerate(streams):
        if stream.resource >= 0:
            members[stream.resource].append(number)
    for numbers in members.values():
        if _one_by_one(streams, [single[number] for number in numbers], numbers, leader, behind):
            for number in numbers:
                follows[number] = True
    return _resolve(single, follows)


def _one_by_one(
    streams: list[Stream], waits: list[Wait | None], numbers: list[int], leader: list[int], behind: list[int]
) -> bool:
    """Whether the events of all streams on a resource come off one other resource, none before it can be served."""
    sources, makers = set(), set()
    for number, wait in zip(numbers, waits, strict=True):
        if wait is None:
            return False
        maker = leader[wait.stream]
        if streams[maker].resource < 0 or streams[maker].service < streams[number].service or maker in makers:
            return False
        makers.add(maker)
        sources.add((streams[maker].resource, wait.delay + behind[wait.stream]))
    return len(sources) == 1


def _only_maker(number: int, stream: Stream) -> Wait | None:
    """What a stream waits for, event by event, if that is one stream in front of it."""
    if len(stream.waits) != 1:
        return None
    wait = stream.waits[0]
    event_by_event = wait.access.kind == "same" and wait.events == stream.events
    return wait if event_by_event and wait.stream < number else None


def _resolve(single: list[Wait | None], follows: list[bool]) -> tuple[list[int], list[int]]:
    leader, behind = list(range(len(single))), [0] * len(single)
    for number, wait in enumerate(single):
        if follows[number] and wait is not None:
            leader[number] = leader[wait.stream]
            behind[number] = wait.delay + behind[wait.stream]
    return leader, behind
