"""Routes on the mesh: first along the row, then along the column (XY), as directed links.

A multicast takes the union of the XY routes from its source, which is a tree: every link carries the data once.
"""

from collections.abc import Collection, Iterable
from itertools import pairwise

from aimc_compiler.mapping.place import Site

Link = tuple[Site, Site]


def route_xy(source: Site, target: Site) -> tuple[Link, ...]:
    """Links from source to target: along the source's row to the target's column, then along that column."""
    corner = (source[0], target[1])
    sites = [*_line(source, corner), *_line(corner, target), target]
    return tuple(pairwise(sites))


def multicast_tree(source: Site, targets: Iterable[Site]) -> tuple[tuple[Link, int], ...]:
    """(link, hops before it) of the union of the XY routes to all targets; each link once, sources before leaves."""
    rows_of: dict[int, list[int]] = {}
    for row, column in targets:
        rows_of.setdefault(column, []).append(row)
    if not rows_of:
        return ()
    tree: list[tuple[Link, int]] = []
    for end in _ends(rows_of, source[1]):
        tree += _branch(source, (source[0], end), 0)
    for column in sorted(rows_of):
        for end in _ends(rows_of[column], source[0]):
            tree += _branch((source[0], column), (end, column), abs(column - source[1]))
    return tuple(sorted(tree, key=lambda entry: (entry[1], entry[0])))


def _ends(places: Collection[int], middle: int) -> tuple[int, ...]:
    """The farthest place before the middle and the farthest behind it, where there are any."""
    low, high = min(places), max(places)
    return (low,) * (low < middle) + (high,) * (high > middle)


def _branch(start: Site, end: Site, before: int) -> list[tuple[Link, int]]:
    return [(link, before + hop) for hop, link in enumerate(route_xy(start, end))]


def _line(start: Site, end: Site) -> list[Site]:
    """Sites from start, inclusive, to end, exclusive, along one row or one column."""
    steps = abs(end[0] - start[0]) + abs(end[1] - start[1])
    down = (end[0] > start[0]) - (end[0] < start[0])
    right = (end[1] > start[1]) - (end[1] < start[1])
    return [(start[0] + step * down, start[1] + step * right) for step in range(steps)]
