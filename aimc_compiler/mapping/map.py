"""From a Workload to a Mapping: cut every analog matrix, put each piece on a tile, each digital operation on a unit.

The way is cut, place, assign. Passes that replicate, pack several pieces on a tile or move tiles on the mesh
belong between placing and assigning: each takes pieces and gives pieces.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from itertools import accumulate

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.errors import NotBuiltError, RuleError
from aimc_compiler.mapping.assign import assign_units
from aimc_compiler.mapping.cut import cut_columns, cut_rows
from aimc_compiler.mapping.fit import DoesNotFit, explain
from aimc_compiler.mapping.ir import Mapping, Piece
from aimc_compiler.mapping.place import first_tiles, mesh_shape, tile_counts
from aimc_compiler.workload.ir import Matrix, Workload

OBJECTIVES = ("tiles",)


def map_workload(
    workload: Workload, chip: ChipSpec, objective: str = "tiles", limits: object = None
) -> Mapping | DoesNotFit:
    """Pieces of all analog matrices, one a tile, and units for the digital operations; or why that does not fit.

    Tiles are numbered in execution order (type after type where there are several) and stand in snake order over the
    mesh. objective: "tiles"; limits: None. Raises NotBuiltError for others, RuleError for a tile type that the chip
    lacks, SpecError for a price that the spec lacks.
    """
    if objective not in OBJECTIVES:
        raise NotBuiltError(f"objective {objective!r} is not built: give one of {', '.join(OBJECTIVES)}")
    if limits is not None:
        raise NotBuiltError(f"limits={limits!r}: limits are not built yet: leave them out; the chip's tile count holds")
    types = tile_types_of(workload, chip)
    refusal = _find_misfit(workload, chip, types)
    if refusal is not None:
        return refusal
    pieces = _place(workload, chip, types)
    demand = _demand(pieces, chip)
    counts = tile_counts(chip, demand)
    auto = any(tile.count == "auto" for tile in chip.tile_types.values())
    row_blocks = {piece.matrix: 0 for piece in pieces}
    for piece in pieces:
        row_blocks[piece.matrix] = max(row_blocks[piece.matrix], piece.row_block + 1)
    return Mapping(
        workload=workload.name,
        chip=chip.name,
        mesh=mesh_shape(chip, sum(counts.values())),
        tiles_available=None if auto else sum(counts.values()),
        pieces=pieces,
        units=assign_units(workload, chip, row_blocks),
    )


def tile_types_of(workload: Workload, chip: ChipSpec) -> dict[str, str]:
    """Tile type of each matrix that has an analog use, in execution order of the first.

    Raises RuleError where the chip has no such type or two uses of one matrix ask for different ones.
    """
    types: dict[str, str] = {}
    for op in workload.analog_ops:
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


def cut_matrix(matrix: Matrix, chip: ChipSpec, tile_type: str, first_tile: int) -> Iterator[Piece]:
    """Pieces of a matrix on consecutive tiles.

    Row blocks run fastest: those of one column block, whose partial sums meet, stand next to each other.
    """
    tile_spec = chip.tile_types[tile_type]
    rows = cut_rows(matrix.rows, matrix.kernel, tile_spec.weight_rows)
    columns = cut_columns(matrix.columns, tile_spec.weight_columns)
    row_starts, column_starts = list(accumulate(rows, initial=0)), list(accumulate(columns, initial=0))
    tile = first_tile
    for group in range(matrix.groups):
        for column_block, piece_columns in enumerate(columns):
            for row_block, piece_rows in enumerate(rows):
                yield Piece(
                    matrix=matrix.name,
                    group=group,
                    row_block=row_block,
                    column_block=column_block,
                    first_row=row_starts[row_block],
                    rows=piece_rows,
                    first_column=column_starts[column_block],
                    columns=piece_columns,
                    tile=tile,
                    tile_type=tile_type,
                )
                tile += 1


def _find_misfit(workload: Workload, chip: ChipSpec, types: dict[str, str]) -> DoesNotFit | None:
    """The first tile type with more demand than tiles, else the whole mesh where its shape is given."""
    demand = {}
    for tile_type, tile in chip.tile_types.items():
        matrices = tuple(workload.matrix(name) for name, wanted in types.items() if wanted == tile_type)
        demand[tile_type] = sum(1 for matrix in matrices for _ in cut_matrix(matrix, chip, tile_type, 0))
        if tile.count != "auto" and demand[tile_type] > tile.count:
            return explain(workload.name, chip, tile_type, matrices, tile.count, fixed_mesh=False)
    shape = chip.network.shape
    counts = tile_counts(chip, demand)
    growing = [name for name, tile in chip.tile_types.items() if tile.count == "auto"]
    if shape is None or not growing or sum(counts.values()) <= shape[0] * shape[1]:
        return None
    last = growing[-1]
    matrices = tuple(workload.matrix(name) for name, wanted in types.items() if wanted == last)
    room = shape[0] * shape[1] - (sum(counts.values()) - counts[last])
    return explain(workload.name, chip, last, matrices, room, fixed_mesh=True)


def _place(workload: Workload, chip: ChipSpec, types: dict[str, str]) -> tuple[Piece, ...]:
    demand = dict.fromkeys(chip.tile_types, 0)
    cut: dict[str, list[Piece]] = {}
    for name, tile_type in types.items():
        cut[name] = list(cut_matrix(workload.matrix(name), chip, tile_type, 0))
        demand[tile_type] += len(cut[name])
    following = first_tiles(chip, demand)
    pieces: list[Piece] = []
    for name, tile_type in types.items():
        pieces += cut_matrix(workload.matrix(name), chip, tile_type, following[tile_type])
        following[tile_type] += len(cut[name])
    return tuple(pieces)


def _demand(pieces: tuple[Piece, ...], chip: ChipSpec) -> dict[str, int]:
    demand = dict.fromkeys(chip.tile_types, 0)
    for piece in pieces:
        demand[piece.tile_type] += 1
    return demand
