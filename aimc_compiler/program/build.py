"""A program in the making: resources by name, tasks in order, and the moving of tensors between sites.

A tensor between operations is a tuple of parts. A part is an interval of the elements of every window, standing at a
site, and the task whose k-th event makes its k-th window.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.mapping.ir import Mapping, snake_site
from aimc_compiler.mapping.place import Site, unit_sites
from aimc_compiler.mapping.route import Segment, multicast_segments
from aimc_compiler.mapping.ticks import in_ticks, round_up
from aimc_compiler.program.ir import Need, Resource, ResourceKind, Task, TaskKind
from aimc_compiler.program.links import Links
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Access

SAME = Access(kind="same")
_UNUSED = -1
#: Uses up to here are plain tuples, which are smaller than arrays.
_FEW = 16


@record
class Part:
    """Elements [first, first + width) of every window of a tensor, at a site, made by a task."""

    site: Site
    first: int
    width: int
    task: int


@record
class Arrival:
    """Where a window is there once an event of this task has passed this use of its resources."""

    task: int
    use: int = 0

    def need(self, access: Access) -> Need:
        return Need(task=self.task, use=self.use, access=access)


class ProgramBuilder:
    """Collects tasks; every method that adds one returns its index."""

    def __init__(self, chip: ChipSpec, mapping: Mapping) -> None:
        self.chip = chip
        self.mapping = mapping
        self.tasks: list[Task] = []
        self.resources: list[Resource] = []
        self.hop_ticks = in_ticks(chip.network.hop_time_s, chip)
        self._index: dict[str, int] = {}
        self._unit_sites = unit_sites(chip.digital_units.count, mapping.mesh)
        #: Index of the link that leaves each site, row after row, by its direction.
        self._links: dict[int, NDArray[np.int32]] = {}
        #: Tasks of a MVM, as they are but for name, place and needs: by tile type, rows, columns and groups.
        self.mvms: dict[tuple[str, int, int, int], Task] = {}

    def tile_site(self, tile: int) -> Site:
        return snake_site(tile, self.mapping.mesh)

    def unit_site(self, unit: int) -> Site:
        return self._unit_sites[unit]

    def resource(self, name: str, kind: ResourceKind) -> int:
        """Index of the resource of that name."""
        if name not in self._index:
            self._index[name] = len(self.resources)
            self.resources.append(Resource(name=name, kind=kind))
        return self._index[name]

    def add(self, task: Task) -> int:
        self.tasks.append(task)
        return len(self.tasks) - 1

    def add_needs(self, task: int, needs: tuple[Need, ...]) -> None:
        """Lets a task wait for more: for what was not there yet when it was added."""
        self.tasks[task] = replace(self.tasks[task], needs=self.tasks[task].needs + needs)

    def add_work(
        self,
        name: str,
        kind: TaskKind,
        op: str,
        events: int,
        resource: int,
        ticks: Fraction,
        needs: tuple[Need, ...],
        energy_j: tuple[tuple[str, float], ...] = (),
        bits: int = 0,
    ) -> int:
        """A loop on one resource that it occupies for as long as it takes: ``ticks``, rounded up."""
        whole, rounding = _rounded(ticks)
        return self.add(
            Task(
                name=name,
                kind=kind,
                op=op,
                events=events,
                uses=((resource, -1),),
                service_ticks=whole,
                latency_ticks=whole,
                rounding_ticks=rounding,
                needs=needs,
                energy_j=energy_j,
                bits=bits,
            )
        )

    def move(self, name: str, op: str, part: Part, bits: int, targets: tuple[Site, ...]) -> dict[Site, Arrival]:
        """Sends every window of a part, ``bits`` each, to the targets in one multicast.

        Returns what to wait for, by target: the maker itself where the part stands there already. Routers cut
        through: the head goes on after a hop, a link is occupied while the bits pass.
        """
        segments, into = multicast_segments(part.site, targets)
        here = Arrival(task=part.task)
        if not segments or not bits:
            return dict.fromkeys(targets, here)
        uses = self._uses(segments)
        service, rounding = _rounded(Fraction(bits, self.chip.network.link_bits_per_tick))
        hop = round_up(self.hop_ticks)
        source = part.site
        depth = max(abs(row - source[0]) + abs(column - source[1]) for row, column in targets)
        task = self.add(
            Task(
                name=name,
                kind="transfer",
                op=op,
                events=self.tasks[part.task].events,
                uses=uses,
                service_ticks=service,
                latency_ticks=hop + service,
                hop_ticks=hop,
                rounding_ticks=float(depth * (hop - self.hop_ticks)) + rounding,
                needs=(Need(task=part.task),),
                energy_j=(("network", bits * len(uses) * self.chip.network.energy_per_bit_j),),
                bits=bits,
            )
        )
        return {target: here if target == source else Arrival(task=task, use=into[target]) for target in targets}

    def _uses(self, segments: tuple[Segment, ...]) -> Sequence[tuple[int, int]]:
        """(link, number of the link before it) along the pieces of a tree."""
        resources = np.concatenate([self._links_along(segment.start, segment.end) for segment in segments])
        uses = Links(resources, [each.first for each in segments], [each.before for each in segments])
        return uses if len(uses) > _FEW else tuple(uses)

    def _links_along(self, start: Site, end: Site) -> NDArray[np.int32]:
        """The links of a straight line. One slice of a table: a route over a large mesh is hundreds of links."""
        rows, columns = self.mapping.mesh
        down, right = (end[0] > start[0]) - (end[0] < start[0]), (end[1] > start[1]) - (end[1] < start[1])
        # Two for a row, one for a column: a mesh of one column has steps of one place both ways.
        step, key = (down * columns, down * 2) if down else (right, right)
        if key not in self._links:
            self._links[key] = np.full(rows * columns, _UNUSED, dtype=np.int32)
        table = self._links[key]
        places = slice(start[0] * columns + start[1], end[0] * columns + end[1], step)
        found = table[places]
        if found.min() == _UNUSED:
            for place in (places.start + step * np.flatnonzero(found == _UNUSED)).tolist():
                row, column = divmod(place, columns)
                table[place] = self.resource(f"link {row},{column}>{row + down},{column + right}", "link")
        return table[places].copy()


@lru_cache(maxsize=1024)
def _rounded(ticks: Fraction) -> tuple[int, float]:
    """(whole ticks, what rounding up added)."""
    return round_up(ticks), float(round_up(ticks) - ticks)


def overlap(part: Part, first: int, last: int) -> int:
    """Elements of a part inside [first, last)."""
    return max(0, min(part.first + part.width, last) - max(part.first, first))
