"""Data of the Mapping: which cells of which tile hold which part of which matrix."""

from aimc_compiler.records import record


@record
class Piece:
    """A block of a weight matrix at a site.

    group, row_block, column_block: which block; first_row, rows, first_column, columns: its extent inside the group's
    matrix; tile: index on the chip; tile_row, tile_column: its first row and column there; replica: which copy.
    """

    matrix: str
    group: int
    row_block: int
    column_block: int
    first_row: int
    rows: int
    first_column: int
    columns: int
    tile: int
    tile_type: str = "tile"
    tile_row: int = 0
    tile_column: int = 0
    replica: int = 0

    @property
    def name(self) -> str:
        """Unique and independent of placement: the key of the piece's noise and device state."""
        return f"{self.matrix}/g{self.group}/r{self.row_block}/c{self.column_block}/n{self.replica}"

    @property
    def cells(self) -> int:
        return self.rows * self.columns


@record
class UnitAssignment:
    """The digital unit that runs an operation ("local" operations run on the units of their matrix's tiles)."""

    op: str
    unit: int
    local: bool = False


@record
class Mapping:
    """Pieces at sites and digital operations on units.

    mesh: (rows, columns) of tile sites; tile i stands at ``snake_site(i, mesh)``. tiles_available: None where the
    spec's count is ``auto``.
    """

    workload: str
    chip: str
    mesh: tuple[int, int]
    tiles_available: int | None
    pieces: tuple[Piece, ...]
    units: tuple[UnitAssignment, ...]

    def pieces_of(self, matrix: str) -> tuple[Piece, ...]:
        return tuple(piece for piece in self.pieces if piece.matrix == matrix)

    @property
    def tiles_used(self) -> int:
        return len({piece.tile for piece in self.pieces})


def snake_site(tile: int, mesh: tuple[int, int]) -> tuple[int, int]:
    """(row, column) on the mesh of tile ``tile`` in snake order: odd rows run right to left."""
    row, column = divmod(tile, mesh[1])
    return row, column if row % 2 == 0 else mesh[1] - 1 - column
