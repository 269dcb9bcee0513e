"""A network that does not fit its chip, as a value: by how much, what takes the room, and what would help."""

from collections.abc import Mapping as Table

from aimc_compiler.chip.spec import ChipSpec, Tile
from aimc_compiler.mapping.pack import tiles_needed
from aimc_compiler.records import record
from aimc_compiler.workload.ir import Matrix

_LARGEST_TILE = 1 << 20


@record
class Demand:
    """Tiles that one matrix takes."""

    matrix: str
    tiles: int


@record
class DoesNotFit:
    """Why a workload does not fit a chip. ``str()`` is the message for people.

    demand, capacity, gap: in ``unit`` of ``tile_type``; breakdown: every matrix of that type, in execution order;
    smallest_count: tiles of this size that fit; smallest_tile: (rows, columns) of the smallest square tile of a power
    of two that fits in this number of tiles, None where no size does; levers: sentences, most useful first.
    """

    workload: str
    chip: str
    tile_type: str
    unit: str
    demand: int
    capacity: int
    breakdown: tuple[Demand, ...]
    smallest_count: int
    smallest_tile: tuple[int, int] | None
    levers: tuple[str, ...]

    @property
    def gap(self) -> int:
        return self.demand - self.capacity

    @property
    def smallest_chip(self) -> str:
        """The smallest chips that fit, in words."""
        if self.smallest_tile is None:
            return f"{self.smallest_count} tiles of this size; no tile size fits in {self.capacity}"
        rows, columns = self.smallest_tile
        return f"{self.smallest_count} tiles of this size, or {self.capacity} tiles of {rows} x {columns}"

    def __str__(self) -> str:
        largest = sorted(self.breakdown, key=lambda entry: -entry.tiles)[:8]
        lines = [
            f"{self.workload} does not fit {self.chip}: it needs {self.demand} {self.unit} of type "
            f"{self.tile_type!r}, the chip has {self.capacity} ({self.gap} too few)",
            "  largest: " + ", ".join(f"{entry.matrix} {entry.tiles}" for entry in largest),
            f"  smallest chip that fits: {self.smallest_chip}",
            *(f"  - {lever}" for lever in self.levers),
        ]
        return "\n".join(lines)


def explain(
    workload: str,
    chip: ChipSpec,
    tile_type: str,
    matrices: tuple[Matrix, ...],
    capacity: int,
    fixed_mesh: bool,
    group_limits: Table[str, int | None],
) -> DoesNotFit:
    """The reason why these matrices, all of this tile type, do not fit ``capacity`` tiles.

    fixed_mesh: the count is auto, and it is the shape of the mesh that limits it. group_limits: of each matrix, groups
    that may share a tile, None for as many as fit.
    """
    tile = chip.tile_types[tile_type]
    breakdown = _breakdown(matrices, tile.weight_rows, tile.weight_columns, group_limits)
    demand = sum(entry.tiles for entry in breakdown)
    size = _smallest_tile(tile, matrices, capacity, group_limits)
    key = "tile" if chip.tile is not None else f"tiles.{tile_type}"
    return DoesNotFit(
        workload=workload,
        chip=chip.name,
        tile_type=tile_type,
        unit="tiles",
        demand=demand,
        capacity=capacity,
        breakdown=breakdown,
        smallest_count=demand,
        smallest_tile=size,
        levers=(
            *_share_lever(tile, matrices, breakdown, group_limits),
            *_levers(key, breakdown, demand, capacity, size, fixed_mesh),
        ),
    )


def _breakdown(
    matrices: tuple[Matrix, ...], weight_rows: int, weight_columns: int, group_limits: Table[str, int | None]
) -> tuple[Demand, ...]:
    return tuple(
        Demand(matrix=matrix.name, tiles=tiles_needed(matrix, weight_rows, weight_columns, group_limits[matrix.name]))
        for matrix in matrices
    )


def _smallest_tile(
    tile: Tile, matrices: tuple[Matrix, ...], capacity: int, group_limits: Table[str, int | None]
) -> tuple[int, int] | None:
    at_most = {name: limit for name, limit in group_limits.items() if limit is not None}
    if sum(-(-matrix.groups // at_most.get(matrix.name, matrix.groups)) for matrix in matrices) > capacity:
        return None
    size = 1
    while size <= _LARGEST_TILE:
        rows, columns = size // tile.device.rows_per_weight, size // tile.device.slices
        if rows and columns:
            needed = _breakdown(matrices, rows, columns, group_limits)
            if sum(entry.tiles for entry in needed) <= capacity:
                return size, size
        size *= 2
    return None


def _share_lever(
    tile: Tile, matrices: tuple[Matrix, ...], breakdown: tuple[Demand, ...], group_limits: Table[str, int | None]
) -> tuple[str, ...]:
    """Where rules keep groups apart that could share tiles."""
    free = _breakdown(matrices, tile.weight_rows, tile.weight_columns, dict.fromkeys(group_limits))
    saved = {now.matrix: now.tiles - then.tiles for now, then in zip(breakdown, free, strict=True)}
    kept_apart = [name for name, tiles in saved.items() if tiles]
    if not kept_apart:
        return ()
    names = ", ".join(map(repr, kept_apart))
    return (f"more groups a tile: no groups_per_tile in the rules for {names} saves {sum(saved.values())} tiles",)


def _levers(
    key: str,
    breakdown: tuple[Demand, ...],
    demand: int,
    capacity: int,
    size: tuple[int, int] | None,
    fixed_mesh: bool,
) -> tuple[str, ...]:
    if fixed_mesh:
        levers = [f"a larger mesh: network.shape of at least {demand} sites, or none"]
    else:
        levers = [f"more tiles: --set {key}.count={demand}, or --set {key}.count=auto for as many as needed"]
    if size is not None:
        levers.append(f"larger tiles: --set {key}.rows={size[0]} --set {key}.columns={size[1]}")
    freed = _layers_to_free(breakdown, demand - capacity)
    rules = " ".join(f"--rule {entry.matrix}=digital" for entry in freed)
    tiles = sum(entry.tiles for entry in freed)
    levers.append(f"fewer analog layers: {rules} keeps {tiles} tiles' worth of weights digital")
    return tuple(levers)


def _layers_to_free(breakdown: tuple[Demand, ...], gap: int) -> tuple[Demand, ...]:
    """The smallest layer that alone closes the gap, else the largest ones until they do."""
    alone = [entry for entry in breakdown if entry.tiles >= gap]
    if alone:
        return (min(alone, key=lambda entry: entry.tiles),)
    freed: list[Demand] = []
    for entry in sorted(breakdown, key=lambda entry: -entry.tiles):
        if sum(other.tiles for other in freed) < gap:
            freed.append(entry)
    return tuple(freed)
