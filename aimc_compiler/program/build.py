"""A program in the making: resources by name, tasks in order, and the moving of tensors between sites.

A tensor between operations is a tuple of parts. A part is an interval of the elements of every window, standing at a
site, and the task whose k-th event makes its k-th window.
"""

from dataclasses import replace
from fractions import Fraction

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.mapping.ir import Mapping, snake_site
from aimc_compiler.mapping.place import Site, unit_sites
from aimc_compiler.mapping.route import multicast_tree
from aimc_compiler.mapping.ticks import in_ticks, round_up
from aimc_compiler.program.ir import Need, Resource, ResourceKind, Task, TaskKind
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Access

SAME = Access(kind="same")


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
        return self.add(
            Task(
                name=name,
                kind=kind,
                op=op,
                events=events,
                uses=((resource, -1),),
                service_ticks=round_up(ticks),
                latency_ticks=round_up(ticks),
                rounding_ticks=float(round_up(ticks) - ticks),
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
        tree = multicast_tree(part.site, targets)
        here = Arrival(task=part.task)
        if not tree or not bits:
            return dict.fromkeys(targets, here)
        into = {link[1]: use for use, (link, _) in enumerate(tree)}
        hop, service = round_up(self.hop_ticks), Fraction(bits, self.chip.network.link_bits_per_tick)
        depth = tree[-1][1] + 1
        task = self.add(
            Task(
                name=name,
                kind="transfer",
                op=op,
                events=self.tasks[part.task].events,
                uses=tuple(
                    (self.resource(f"link {a[0]},{a[1]}>{b[0]},{b[1]}", "link"), into.get(a, -1)) for (a, b), _ in tree
                ),
                service_ticks=round_up(service),
                latency_ticks=hop + round_up(service),
                hop_ticks=hop,
                rounding_ticks=float(depth * (hop - self.hop_ticks) + round_up(service) - service),
                needs=(Need(task=part.task),),
                energy_j=(("network", bits * len(tree) * self.chip.network.energy_per_bit_j),),
                bits=bits,
            )
        )
        return {target: here if target == part.site else Arrival(task=task, use=into[target]) for target in targets}


def overlap(part: Part, first: int, last: int) -> int:
    """Elements of a part inside [first, last)."""
    return max(0, min(part.first + part.width, last) - max(part.first, first))
