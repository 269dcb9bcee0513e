"""Invariants of a Mapping: every weight in exactly one cell a replica, no cell used twice, every tile on the mesh."""

from collections.abc import Sequence
from itertools import groupby, product

import numpy as np

from aimc_compiler.chip.costs import FREE
from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.errors import VerificationError
from aimc_compiler.mapping.ir import Mapping, Piece
from aimc_compiler.mapping.place import first_tiles, tile_counts
from aimc_compiler.workload.ir import DigitalOp, Matrix, Workload
from aimc_compiler.workload.joint import MatrixUses, join_matrices


def verify_mapping(mapping: Mapping, workload: Workload, chip: ChipSpec) -> None:
    """Raises VerificationError with the piece or operation that breaks an invariant."""
    verify_entries((mapping,), (workload,), chip)


def verify_entries(mappings: Sequence[Mapping], workloads: Sequence[Workload], chip: ChipSpec) -> None:
    """The same of the mappings of several entries of one network, which hold the same pieces at the same sites."""
    first = mappings[0]
    _verify_sites(first, chip)
    _verify_overlaps(first)
    _verify_cover(join_matrices(workloads), first)
    for mapping, workload in zip(mappings, workloads, strict=True):
        if (mapping.pieces, mapping.mesh) != (first.pieces, first.mesh):
            raise VerificationError(
                f"workload {workload.name!r} has other pieces or another mesh than the entries before"
            )
        _verify_units(workload, mapping, chip)


def _verify_sites(mapping: Mapping, chip: ChipSpec) -> None:
    demand = dict.fromkeys(chip.tile_types, 0)
    for tile in {piece.tile: piece.tile_type for piece in mapping.pieces}.values():
        if tile not in demand:
            raise VerificationError(f"a piece stands on tile type {tile!r}, which chip {chip.name!r} lacks")
        demand[tile] += 1
    first, counts = first_tiles(chip, demand), tile_counts(chip, demand)
    for piece in mapping.pieces:
        tile_spec = chip.tile_types[piece.tile_type]
        inside_type = first[piece.tile_type] <= piece.tile < first[piece.tile_type] + counts[piece.tile_type]
        if not inside_type or piece.tile >= mapping.mesh[0] * mapping.mesh[1]:
            raise VerificationError(
                f"piece {piece.name} stands on tile {piece.tile}, which is no tile of type {piece.tile_type!r} on a "
                f"mesh of {mapping.mesh[0]} x {mapping.mesh[1]}"
            )
        inside = piece.tile_row >= 0 and piece.tile_row + piece.rows <= tile_spec.weight_rows
        inside &= piece.tile_column >= 0 and piece.tile_column + piece.columns <= tile_spec.weight_columns
        if not inside or piece.rows < 1 or piece.columns < 1:
            raise VerificationError(
                f"piece {piece.name} ({piece.rows} x {piece.columns} at row {piece.tile_row}, column "
                f"{piece.tile_column}) is not inside tile {piece.tile} of {tile_spec.weight_rows} x "
                f"{tile_spec.weight_columns} weights"
            )


def _verify_overlaps(mapping: Mapping) -> None:
    def by_tile(piece: Piece) -> int:
        return piece.tile

    for tile, members in groupby(sorted(mapping.pieces, key=by_tile), key=by_tile):
        # From the first row of the tile down, only those that reach that far can still be met: few on a diagonal.
        reaching: list[Piece] = []
        for piece in sorted(members, key=lambda piece: piece.tile_row):
            reaching = [other for other in reaching if other.tile_row + other.rows > piece.tile_row]
            for other in reaching:
                if _overlap(piece, other):
                    raise VerificationError(f"pieces {other.name} and {piece.name} overlap on tile {tile}")
            reaching.append(piece)


def _overlap(one: Piece, other: Piece) -> bool:
    return (
        one.tile_row < other.tile_row + other.rows
        and other.tile_row < one.tile_row + one.rows
        and one.tile_column < other.tile_column + other.columns
        and other.tile_column < one.tile_column + one.columns
    )


def _verify_cover(workload: MatrixUses, mapping: Mapping) -> None:
    pieces_of: dict[str, list[Piece]] = {}
    for piece in mapping.pieces:
        pieces_of.setdefault(piece.matrix, []).append(piece)
    analog = dict.fromkeys(op.matrix for op in workload.analog_ops)
    for name in pieces_of:
        if name not in analog:
            raise VerificationError(f"matrix {name!r} has pieces on tiles but no analog use in {workload.name!r}")
    for name in analog:
        matrix, pieces = workload.matrix(name), pieces_of.get(name, [])
        blocks: dict[tuple[int, int], list[Piece]] = {}
        for piece in pieces:
            blocks.setdefault((piece.replica, piece.group), []).append(piece)
        replicas = 1 + max((piece.replica for piece in pieces), default=0)
        for replica, group in product(range(replicas), range(matrix.groups)):
            where = f"matrix {name!r}, group {group}, replica {replica}"
            _verify_block(matrix, blocks.pop((replica, group), []), where)
        if blocks:
            raise VerificationError(f"matrix {name!r} has pieces of a group it lacks: {next(iter(blocks.values()))[0]}")


def _verify_block(matrix: Matrix, pieces: list[Piece], where: str) -> None:
    """The pieces tile the block: corners cut it into a grid whose every field must be covered once."""
    rows = sorted({0, matrix.rows, *(p.first_row for p in pieces), *(p.first_row + p.rows for p in pieces)})
    ends = (p.first_column + p.columns for p in pieces)
    columns = sorted({0, matrix.columns, *(p.first_column for p in pieces), *ends})
    if rows[0] < 0 or columns[0] < 0 or rows[-1] > matrix.rows or columns[-1] > matrix.columns:
        raise VerificationError(f"{where}: a piece reaches outside its {matrix.rows} x {matrix.columns} weights")
    row_at, column_at = {row: i for i, row in enumerate(rows)}, {column: i for i, column in enumerate(columns)}
    holders = np.zeros((len(rows) - 1, len(columns) - 1), dtype=np.int64)
    for p in pieces:
        r0, r1 = row_at[p.first_row], row_at[p.first_row + p.rows]
        c0, c1 = column_at[p.first_column], column_at[p.first_column + p.columns]
        holders[r0:r1, c0:c1] += 1
    wrong = np.argwhere(holders != 1)
    if len(wrong):
        row, column = rows[wrong[0][0]], columns[wrong[0][1]]
        times = int(holders[tuple(wrong[0])])
        raise VerificationError(f"{where}: the weight at row {row}, column {column} is held {times} times, not once")


def _verify_units(workload: Workload, mapping: Mapping, chip: ChipSpec) -> None:
    assigned = {unit.op: unit for unit in mapping.units}
    if len(assigned) != len(mapping.units):
        raise VerificationError("an operation is assigned to two units")
    names = {op.name for op in workload.ops}
    for unit in mapping.units:
        if unit.op not in names:
            raise VerificationError(f"operation {unit.op!r} has a unit but is not in workload {workload.name!r}")
        if not 0 <= unit.unit < chip.digital_units.count:
            raise VerificationError(
                f"operation {unit.op!r} is on digital unit {unit.unit} of {chip.digital_units.count}"
            )
    for op in workload.ops:
        needs_unit = op.cost_class != FREE if isinstance(op, DigitalOp) else not op.analog
        if needs_unit and op.name not in assigned:
            raise VerificationError(f"operation {op.name!r} has no digital unit")
