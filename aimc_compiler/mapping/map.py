"""From a Workload to a Mapping: cut every analog matrix, put its pieces on tiles, each digital operation on a unit.

The way is cut, place, assign. Groups of one matrix share tiles (``pack``). Passes that replicate, pack pieces of
several matrices on a tile or move tiles on the mesh belong between placing and assigning: each takes pieces and gives
pieces.
"""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import accumulate, product

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.errors import NotBuiltError, RuleError
from aimc_compiler.mapping.assign import assign_units
from aimc_compiler.mapping.cut import cut_columns, cut_rows
from aimc_compiler.mapping.fit import DoesNotFit, explain
from aimc_compiler.mapping.ir import Mapping, Piece
from aimc_compiler.mapping.pack import groups_on_tiles, tiles_needed
from aimc_compiler.mapping.place import first_tiles, mesh_shape, tile_counts
from aimc_compiler.workload.ir import Matrix, Workload
from aimc_compiler.workload.joint import MatrixUses, join_matrices

OBJECTIVES = ("tiles",)


def map_workload(
    workload: Workload, chip: ChipSpec, objective: str = "tiles", limits: object = None
) -> Mapping | DoesNotFit:
    """Pieces of all analog matrices, one a tile but for groups of one matrix, which share tiles, and units for the
    digital operations; or why that does not fit.

    Tiles are numbered in execution order (type after type where there are several) and stand in snake order over the
    mesh. objective: "tiles"; limits: None. Raises NotBuiltError for others, RuleError for a tile type that the chip
    lacks and uses of one matrix that disagree, SpecError for a price that the spec lacks.
    """
    found = map_entries((workload,), chip, objective, limits)
    return found if isinstance(found, DoesNotFit) else found[0]


def map_entries(
    workloads: Sequence[Workload], chip: ChipSpec, objective: str = "tiles", limits: object = None
) -> tuple[Mapping, ...] | DoesNotFit:
    """The same of the workloads of several entries of one network, which share their tiles: of each its Mapping.

    All of them hold the pieces of all matrices, placed once, in the order of the entries; each has units of its own, as
    one entry runs at a time.
    """
    if objective not in OBJECTIVES:
        raise NotBuiltError(f"objective {objective!r} is not built: give one of {', '.join(OBJECTIVES)}")
    if limits is not None:
        raise NotBuiltError(f"limits={limits!r}: limits are not built yet: leave them out; the chip's tile count holds")
    uses = join_matrices(workloads)
    types, group_limits = tile_types_of(uses, chip), group_limits_of(uses)
    demand = _demand(uses, chip, types, group_limits)
    refusal = _find_misfit(uses, chip, types, group_limits, demand)
    if refusal is not None:
        return refusal
    pieces = _place(uses, chip, types, group_limits, demand)
    counts = tile_counts(chip, demand)
    auto = any(tile.count == "auto" for tile in chip.tile_types.values())
    row_blocks = {piece.matrix: 0 for piece in pieces}
    for piece in pieces:
        row_blocks[piece.matrix] = max(row_blocks[piece.matrix], piece.row_block + 1)
    return tuple(
        Mapping(
            workload=workload.name,
            chip=chip.name,
            mesh=mesh_shape(chip, sum(counts.values())),
            tiles_available=None if auto else sum(counts.values()),
            pieces=pieces,
            units=assign_units(workload, chip, row_blocks),
        )
        for workload in workloads
    )


def tile_types_of(uses: MatrixUses, chip: ChipSpec) -> dict[str, str]:
    """Tile type of each matrix that has an analog use, in execution order of the first.

    Raises RuleError where the chip has no such type or two uses of one matrix ask for different ones.
    """
    types: dict[str, str] = {}
    for op in uses.analog_ops:
        if op.tile_type not in chip.tile_types:
            close = get_close_matches(op.tile_type, chip.tile_types, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise RuleError(
                f"{op.name!r} asks for tile type {op.tile_type!r}: chip {chip.name!r} has "
                f"{', '.join(map(repr, chip.tile_types))}{hint}"
            )
        if types.setdefault(op.matrix, op.tile_type) != op.tile_type:
            raise RuleError(
                f"{op.name!r} asks for tile type {op.tile_type!r}, an earlier use of its matrix {op.matrix!r} for "
                f"{types[op.matrix]!r}: give all uses of one weight the same type"
            )
    return types


def group_limits_of(uses: MatrixUses) -> dict[str, int | None]:
    """How many groups of each matrix that has an analog use may share a tile, None for as many as fit.

    Raises RuleError where two uses of one matrix ask for different numbers.
    """
    limits: dict[str, int | None] = {}
    for op in uses.analog_ops:
        if limits.setdefault(op.matrix, op.groups_per_tile) != op.groups_per_tile:
            raise RuleError(
                f"{op.name!r} asks for groups_per_tile {op.groups_per_tile}, an earlier use of its matrix "
                f"{op.matrix!r} for {limits[op.matrix]}: give all uses of one weight the same number"
            )
    return limits


def cut_matrix(
    matrix: Matrix, chip: ChipSpec, tile_type: str, first_tile: int, group_limit: int | None = None
) -> Iterator[Piece]:
    """Pieces of a matrix on consecutive tiles; group_limit: groups that may share one, None for as many as fit.

    Row blocks run fastest: those of one column block, whose partial sums meet, stand next to each other. Groups that
    share a tile stand on its diagonal.
    """
    tile_spec = chip.tile_types[tile_type]
    rows = cut_rows(matrix.rows, matrix.kernel, tile_spec.weight_rows)
    columns = cut_columns(matrix.columns, tile_spec.weight_columns)
    row_starts, column_starts = list(accumulate(rows, initial=0)), list(accumulate(columns, initial=0))
    blocks = list(product(range(len(columns)), range(len(rows))))
    shares = groups_on_tiles(matrix, tile_spec.weight_rows, tile_spec.weight_columns, group_limit)
    places = ((share, place) for share, groups in enumerate(shares) for place in range(groups))
    for group, (share, place) in enumerate(places):
        for block, (column_block, row_block) in enumerate(blocks):
            yield Piece(
                matrix=matrix.name,
                group=group,
                row_block=row_block,
                column_block=column_block,
                first_row=row_starts[row_block],
                rows=rows[row_block],
                first_column=column_starts[column_block],
                columns=columns[column_block],
                tile=first_tile + share * len(blocks) + block,
                tile_type=tile_type,
                tile_row=place * matrix.rows,
                tile_column=place * matrix.columns,
            )


def _find_misfit(
    uses: MatrixUses,
    chip: ChipSpec,
    types: dict[str, str],
    group_limits: dict[str, int | None],
    demand: dict[str, int],
) -> DoesNotFit | None:
    """The first tile type with more demand than tiles, else the whole mesh where its shape is given."""

    def refuse(tile_type: str, room: int, *, fixed_mesh: bool) -> DoesNotFit:
        matrices = tuple(uses.matrix(name) for name, wanted in types.items() if wanted == tile_type)
        return explain(uses.name, chip, tile_type, matrices, room, fixed_mesh, group_limits)

    for tile_type, tile in chip.tile_types.items():
        if tile.count != "auto" and demand[tile_type] > tile.count:
            return refuse(tile_type, tile.count, fixed_mesh=False)
    shape = chip.network.shape
    counts = tile_counts(chip, demand)
    growing = [name for name, tile in chip.tile_types.items() if tile.count == "auto"]
    if shape is None or not growing or sum(counts.values()) <= shape[0] * shape[1]:
        return None
    last = growing[-1]
    return refuse(last, shape[0] * shape[1] - (sum(counts.values()) - counts[last]), fixed_mesh=True)


def _place(
    uses: MatrixUses,
    chip: ChipSpec,
    types: dict[str, str],
    group_limits: dict[str, int | None],
    demand: dict[str, int],
) -> tuple[Piece, ...]:
    following = first_tiles(chip, demand)
    pieces: list[Piece] = []
    for name, tile_type in types.items():
        pieces += cut_matrix(uses.matrix(name), chip, tile_type, following[tile_type], group_limits[name])
        following[tile_type] = pieces[-1].tile + 1
    return tuple(pieces)


def _demand(
    uses: MatrixUses, chip: ChipSpec, types: dict[str, str], group_limits: dict[str, int | None]
) -> dict[str, int]:
    """Tiles of each type that the matrices take."""
    demand = dict.fromkeys(chip.tile_types, 0)
    for name, tile_type in types.items():
        tile = chip.tile_types[tile_type]
        demand[tile_type] += tiles_needed(uses.matrix(name), tile.weight_rows, tile.weight_columns, group_limits[name])
    return demand
