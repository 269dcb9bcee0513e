"""The pieces of one matrix as a grid: row blocks, and within each the groups' column blocks side by side."""

from aimc_compiler.errors import NotBuiltError, VerificationError
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.records import record


@record
class RowBlock:
    """Pieces of one row block, by group and then by column; all have its rows."""

    index: int
    first_row: int
    rows: int
    pieces: tuple[Piece, ...]


def row_blocks(pieces: tuple[Piece, ...], groups: int, columns: int, rows: int) -> tuple[RowBlock, ...]:
    """The grid of a matrix of ``groups`` blocks of ``columns`` by ``rows``.

    Raises VerificationError where the pieces do not hold every element exactly once in a grid that is the same for
    all groups, NotBuiltError on replicas.
    """
    if any(piece.replica for piece in pieces):
        raise NotBuiltError(f"matrix {pieces[0].matrix!r} is replicated: running replicas is not built yet")
    blocks = []
    for index in sorted({piece.row_block for piece in pieces}):
        members = sorted((p for p in pieces if p.row_block == index), key=lambda p: (p.group, p.first_column))
        first = members[0]
        blocks.append(RowBlock(index=index, first_row=first.first_row, rows=first.rows, pieces=tuple(members)))
    _verify(blocks, groups, columns, rows)
    return tuple(blocks)


def _verify(blocks: list[RowBlock], groups: int, columns: int, rows: int) -> None:
    next_row = 0
    for number, block in enumerate(blocks):
        matrix = block.pieces[0].matrix
        if block.index != number or block.first_row != next_row:
            raise VerificationError(f"the row blocks of {matrix!r} do not follow each other: block {block.index}")
        if any((piece.first_row, piece.rows) != (block.first_row, block.rows) for piece in block.pieces):
            raise VerificationError(f"the pieces of row block {block.index} of {matrix!r} differ in their rows")
        next_row += block.rows
        for group in range(groups):
            _verify_columns([piece for piece in block.pieces if piece.group == group], matrix, columns)
        if any(piece.group >= groups for piece in block.pieces):
            raise VerificationError(f"a piece of {matrix!r} names a group beyond its {groups}")
    if next_row != rows:
        raise VerificationError(f"the pieces hold {next_row} of {rows} rows")


def _verify_columns(pieces: list[Piece], matrix: str, columns: int) -> None:
    next_column = 0
    for piece in pieces:
        if piece.first_column != next_column:
            raise VerificationError(f"piece {piece.name!r} does not begin where the one before it ends")
        next_column += piece.columns
    if next_column != columns:
        raise VerificationError(f"the pieces of {matrix!r} hold {next_column} of {columns} columns")
