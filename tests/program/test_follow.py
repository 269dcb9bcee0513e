"""Which streams are left out of the sweeps, and that nothing else changes by it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.program.engine import _sorted
from aimc_compiler.program.follow import Stream, Wait, find_leaders
from aimc_compiler.workload.ir import Access


def stream(resource: int, *waits: tuple[int, int], service: int = 2, events: int = 4, kind: str = "same") -> Stream:
    """A stream that waits for others: (stream, delay)."""
    needs = tuple(Wait(stream=on, delay=delay, access=Access(kind=kind), events=4) for on, delay in waits)
    return Stream(task=0, resource=resource, events=events, service=service, latency=service, waits=needs)


@pytest.mark.parametrize(
    ("streams", "leader", "behind"),
    [
        # A chain of links, each entered from the one before.
        ([stream(0), stream(1, (0, 5)), stream(2, (1, 5))], [0, 0, 0], [0, 5, 10]),
        # Two streams that come off one link one by one, and go on together.
        ([stream(0), stream(0), stream(1, (0, 5)), stream(1, (1, 5))], [0, 1, 0, 1], [0, 0, 5, 5]),
        # A link that is entered from two others.
        ([stream(0), stream(1), stream(2, (0, 5)), stream(2, (1, 5))], [0, 1, 2, 3], [0, 0, 0, 0]),
        # The same from one, at different times.
        ([stream(0), stream(0), stream(1, (0, 5)), stream(1, (1, 6))], [0, 1, 2, 3], [0, 0, 0, 0]),
        # Two copies of one stream meet on the next link.
        ([stream(0), stream(1, (0, 5)), stream(1, (0, 5))], [0, 1, 2], [0, 0, 0]),
        # What takes longer than the one before can be late.
        ([stream(0), stream(1, (0, 5), service=3)], [0, 1], [0, 0]),
        # Waiting for two, for all, for the step before, or for another number of events.
        ([stream(0), stream(1), stream(2, (0, 1), (1, 1))], [0, 1, 2], [0, 0, 0]),
        ([stream(0), stream(1, (0, 5), kind="all")], [0, 1], [0, 0]),
        ([stream(0), stream(1, (0, 5), kind="previous")], [0, 1], [0, 0]),
        ([stream(0), stream(1, (0, 5), events=3)], [0, 1], [0, 0]),
        # A view follows whatever it reads, and what is behind it follows that.
        ([stream(0), stream(-1, (0, 5), service=0), stream(1, (1, 0))], [0, 0, 0], [0, 5, 5]),
    ],
)
def test_what_follows(streams: list[Stream], leader: list[int], behind: list[int]) -> None:
    assert find_leaders(streams) == (leader, behind)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5)), min_size=1), st.sampled_from([1, 2**40, 2**59]))
def test_sorting_by_key_and_payload(pairs: list[tuple[int, int]], scale: int) -> None:
    """Also where key and payload do not fit into one number together."""
    keys, payload = np.array([key for key, _ in pairs]) * scale, np.array([value for _, value in pairs], dtype=np.int32)
    assert _sorted(keys, payload).tolist() == [value for _, value in sorted(pairs)]
