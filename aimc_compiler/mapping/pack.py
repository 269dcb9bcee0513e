"""Groups of one matrix on one tile, block-diagonally: they share neither rows nor columns.

A group of a depthwise convolution is a few cells, so a tile for each would stand almost empty. As many whole groups as
fit stand on the diagonal of a tile, near-equally many on each of the fewest tiles. The cut of a group stays as it is,
and with it its scales, its input range and its noise. The groups of a tile multiply one after another.
"""

from collections.abc import Iterable

from aimc_compiler.mapping.cut import cut_columns, cut_rows, near_equal
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.workload.ir import Matrix

#: Pieces of one matrix that stand on a tile and multiply one after another in one loop of the program.
Run = tuple[Piece, ...]


def groups_on_tiles(matrix: Matrix, weight_rows: int, weight_columns: int, limit: int | None = None) -> tuple[int, ...]:
    """How many groups stand together, tile after tile; a group that is cut, or alone, stands for itself.

    weight_rows, weight_columns: of a tile, in weights; limit: at most so many on one tile, None for as many as fit.

    >>> groups_on_tiles(Matrix(name="conv", parameter="weight", rows=36, columns=4, groups=32, kernel=9), 256, 256)
    (7, 7, 6, 6, 6)
    """
    fit = max(1, min(weight_rows // matrix.rows, weight_columns // matrix.columns))
    return near_equal(matrix.groups, fit if limit is None else min(fit, limit))


def tiles_needed(matrix: Matrix, weight_rows: int, weight_columns: int, limit: int | None = None) -> int:
    """Tiles that a matrix takes; arguments as for ``groups_on_tiles``."""
    rows = len(cut_rows(matrix.rows, matrix.kernel, weight_rows))
    shares = groups_on_tiles(matrix, weight_rows, weight_columns, limit)
    return len(shares) * rows * len(cut_columns(matrix.columns, weight_columns))


def find_runs(pieces: Iterable[Piece]) -> tuple[Run, ...]:
    """The pieces of one matrix in runs: whole groups that follow each other on one tile; other pieces for themselves.

    pieces: of one replica, group after group.
    """
    runs: list[list[Piece]] = []
    members = tuple(pieces)
    cut = {piece.group for piece in members if piece.row_block or piece.column_block}
    for piece in members:
        last = runs[-1][-1] if runs else None
        if last is not None and last.group not in cut and piece.group not in cut and _follows(piece, last):
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return tuple(map(tuple, runs))


def _follows(piece: Piece, last: Piece) -> bool:
    """Their channels are neighbours, and so are their outputs."""
    return piece.tile == last.tile and piece.group == last.group + 1 and piece.replica == last.replica
