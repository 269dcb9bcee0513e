"""XY routes and multicast trees."""

from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.mapping import multicast_segments, multicast_tree, route_xy

SITES = st.tuples(st.integers(0, 7), st.integers(0, 7))


def test_route_goes_along_the_row_first() -> None:
    assert route_xy((1, 1), (0, 3)) == (((1, 1), (1, 2)), ((1, 2), (1, 3)), ((1, 3), (0, 3)))
    assert route_xy((2, 2), (2, 2)) == ()


@given(SITES, SITES)
def test_route_is_connected_and_shortest(source: tuple[int, int], target: tuple[int, int]) -> None:
    route = route_xy(source, target)
    assert len(route) == abs(source[0] - target[0]) + abs(source[1] - target[1])
    sites = [source, *(link[1] for link in route)]
    assert sites[-1] == target
    assert [link[0] for link in route] == sites[:-1]


@settings(max_examples=100, deadline=None)
@given(SITES, st.lists(SITES, max_size=12))
def test_tree_is_the_union_of_routes(source: tuple[int, int], targets: list[tuple[int, int]]) -> None:
    tree = multicast_tree(source, targets)
    union = {link for target in targets for link in route_xy(source, target)}
    assert {link for link, _ in tree} == union
    assert len(tree) == len(union)
    entered = {source}
    for number, ((start, end), before) in enumerate(tree):
        assert before < number
        assert start == (tree[before][0][1] if before >= 0 else source)
        assert end not in entered
        entered.add(end)


@settings(max_examples=100, deadline=None)
@given(SITES, st.lists(SITES, max_size=12))
def test_targets_are_entered_by_their_links(source: tuple[int, int], targets: list[tuple[int, int]]) -> None:
    tree, into = multicast_tree(source, targets), multicast_segments(source, targets)[1]
    for target in targets:
        assert into[target] == -1 if target == source else tree[into[target]][0][1] == target
