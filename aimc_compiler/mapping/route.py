"""Routes on the mesh: first along the row, then along the column (XY), as directed links.

A multicast takes the union of the XY routes from its source, which is a tree: every link carries the data once.
"""

from collections.abc import Collection, Iterable
from itertools import pairwise

from aimc_compiler.mapping.place import Site
from aimc_compiler.records import record

Link = tuple[Site, Site]


@record
class Segment:
    """A straight piece of a multicast tree, from site ``start`` to site ``end``.

    first: number of its first link in the tree, whose links are numbered segment after segment; before: the link that
    enters ``start``, -1 at the source.
    """

    start: Site
    end: Site
    first: int
    before: int

    @property
    def length(self) -> int:
        """Links."""
        return abs(self.end[0] - self.start[0]) + abs(self.end[1] - self.start[1])

    def link_into(self, site: Site) -> int:
        """Number of the link that enters a site of the segment, ``before`` for its start."""
        hops = abs(site[0] - self.start[0]) + abs(site[1] - self.start[1])
        return self.first + hops - 1 if hops else self.before


def route_xy(source: Site, target: Site) -> tuple[Link, ...]:
    """Links from source to target: along the source's row to the target's column, then along that column."""
    corner = (source[0], target[1])
    sites = [*_line(source, corner), *_line(corner, target), target]
    return tuple(pairwise(sites))


def multicast_segments(source: Site, targets: Iterable[Site]) -> tuple[tuple[Segment, ...], dict[Site, int]]:
    """The union of the XY routes to all targets: (its straight pieces, the link that enters each target).

    Every link is in one piece, sources stand before leaves; -1 stands for the source itself.
    """
    rows_of: dict[int, list[int]] = {}
    for row, column in targets:
        rows_of.setdefault(column, []).append(row)
    if not rows_of:
        return (), {}
    segments: list[Segment] = []
    count = 0
    into: dict[Site, int] = {}
    for end in _ends(rows_of, source[1]):
        segments.append(Segment(start=source, end=(source[0], end), first=count, before=-1))
        count += segments[-1].length
    along_row = {segment.end[1] > source[1]: segment for segment in segments}
    for column in sorted(rows_of):
        corner = (source[0], column)
        before = -1 if column == source[1] else along_row[column > source[1]].link_into(corner)
        into[corner] = before
        for end in _ends(rows_of[column], source[0]):
            segment = Segment(start=corner, end=(end, column), first=count, before=before)
            count += segment.length
            segments.append(segment)
            below = end > source[0]
            into |= {
                (row, column): segment.link_into((row, column))
                for row in rows_of[column]
                if row != source[0] and (row > source[0]) == below
            }
    return tuple(segments), into


def multicast_tree(source: Site, targets: Iterable[Site]) -> tuple[tuple[Link, int], ...]:
    """(link, number of the link before it or -1) of the union of the XY routes to all targets; each link once."""
    tree: list[tuple[Link, int]] = []
    for segment in multicast_segments(source, targets)[0]:
        before = [segment.before, *range(segment.first, segment.first + segment.length - 1)]
        tree += zip(route_xy(segment.start, segment.end), before, strict=True)
    return tuple(tree)


def _ends(places: Collection[int], middle: int) -> tuple[int, ...]:
    """The farthest place before the middle and the farthest behind it, where there are any."""
    low, high = min(places), max(places)
    return (low,) * (low < middle) + (high,) * (high > middle)


def _line(start: Site, end: Site) -> list[Site]:
    """Sites from start, inclusive, to end, exclusive, along one row or one column."""
    steps = abs(end[0] - start[0]) + abs(end[1] - start[1])
    down = (end[0] > start[0]) - (end[0] < start[0])
    right = (end[1] > start[1]) - (end[1] < start[1])
    return [(start[0] + step * down, start[1] + step * right) for step in range(steps)]
