"""What drift compensation reads of a tile, whatever matrices have pieces on it.

The factor of Rasch et al., Nat. Commun. 14, 5282 (2023) is one of a tile: ``alpha = mean |y| at programming / mean |y|
now`` over all its outputs, read with one row on at a time. So all pieces on a tile share one, with all slices of their
weights, each counting by the cells it holds; cells that hold nothing are neither programmed nor read. A factor a column
is one of a physical column: slices have columns of their own, and pieces that stand above each other share the factors
of the columns that they have in common.

A piece is read by its own matrix, through that matrix's settings and streams, once at a time; here its means meet those
of its neighbours. So a factor follows from seed and time alone, whichever matrix is asked first.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from aimc_compiler.analog.compensation import PieceReading, gain
from aimc_compiler.errors import InternalError
from aimc_compiler.mapping.ir import Piece


class Reader(Protocol):
    """Who reads the pieces of a matrix."""

    def read(
        self, pieces: Sequence[Piece], recalibrated_s: float, readings: "TileReadings"
    ) -> list[tuple[PieceReading, ...]]:
        """The readings of each piece, one a slice; readings: those kept so far."""


class TileReadings:
    """The readings of the tiles of one chip, shared by its matrices: the last one of each piece is kept.

    pieces: all on the chip; those of one matrix where it is alone.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._on_tile: dict[int, list[Piece]] = {}
        for piece in pieces:
            self._on_tile.setdefault(piece.tile, []).append(piece)
        self._readers: dict[str, Reader] = {}
        self._kept: dict[str, tuple[float, tuple[PieceReading, ...]]] = {}
        self._means: dict[int, PieceReading] = {}

    def add(self, matrix: str, reader: Reader, former: Reader | None = None) -> None:
        """Let ``reader`` read the pieces of a matrix, unless another does already; former: one that it replaces."""
        present = self._readers.get(matrix)
        if present is None or present is former:
            self._readers[matrix] = reader
            self._kept.clear()
            self._means.clear()

    def asks(self, piece: Piece, recalibrated_s: float, reader: Reader) -> bool:
        """Whether a reading of this time is missing and this reader is the one to give it."""
        return self._readers.get(piece.matrix) is reader and not self._has(piece, recalibrated_s)

    def keep(self, piece: Piece, recalibrated_s: float, found: tuple[PieceReading, ...]) -> None:
        """Put the readings of a piece, one a slice, in the place of its last ones."""
        self._kept[piece.name] = recalibrated_s, found
        self._means.pop(piece.tile, None)

    def reference(self, piece: Piece, index: int) -> Tensor | None:
        """The first reading of a slice of a piece, where it is known."""
        kept = self._kept.get(piece.name)
        return None if kept is None else kept[1][index].reference

    def complete(self, pieces: Iterable[Piece], recalibrated_s: float) -> None:
        """Read what is missing at this time on the tiles of these pieces."""
        missing: dict[str, list[Piece]] = {}
        for tile in dict.fromkeys(piece.tile for piece in pieces):
            for piece in self._on_tile[tile]:
                if not self._has(piece, recalibrated_s):
                    missing.setdefault(piece.matrix, []).append(piece)
        for matrix, members in missing.items():
            if matrix not in self._readers:
                raise InternalError(f"piece {members[0].name!r} shares a tile, but its matrix is not on this chip")
            found = self._readers[matrix].read(members, recalibrated_s, self)
            for piece, readings in zip(members, found, strict=True):
                self.keep(piece, recalibrated_s, readings)

    def factor(self, piece: Piece, index: int = 0) -> Tensor:
        """alpha of a slice of a piece, (columns,), at the time for which its tile was completed last."""
        own = self._kept[piece.name][1][index]
        if not own.now.dim():
            own = self._of_tile(piece.tile)
        elif len(shared := self._shared_by_column(piece, index)) > 1:
            own = PieceReading(
                reference=_mean(piece, [(other, reading.reference) for other, reading in shared]),
                now=_mean(piece, [(other, reading.now) for other, reading in shared]),
            )
        return gain(own.reference, own.now).expand(piece.columns)

    def _of_tile(self, tile: int) -> PieceReading:
        """The reading of all cells on a tile; put together once, as many pieces may ask for it."""
        mean = self._means.get(tile)
        if mean is None:
            shared = [(other.cells, reading) for other in self._on_tile[tile] for reading in self._kept[other.name][1]]
            mean = shared[0][1]
            if len(shared) > 1:
                mean = PieceReading(
                    reference=_mean_of_cells([(cells, reading.reference) for cells, reading in shared]),
                    now=_mean_of_cells([(cells, reading.now) for cells, reading in shared]),
                )
            self._means[tile] = mean
        return mean

    def _shared_by_column(self, piece: Piece, index: int) -> list[tuple[Piece, PieceReading]]:
        """Those of the pieces that have columns in common with it."""
        members = [other for other in self._on_tile[piece.tile] if range(*_common(piece, other))]
        return [(other, self._kept[other.name][1][index]) for other in members]

    def _has(self, piece: Piece, recalibrated_s: float) -> bool:
        kept = self._kept.get(piece.name)
        return kept is not None and kept[0] == recalibrated_s


def _common(piece: Piece, other: Piece) -> tuple[int, int]:
    """First column of the tile that two pieces have in common, and the one behind the last."""
    first = max(piece.tile_column, other.tile_column)
    return first, min(piece.tile_column + piece.columns, other.tile_column + other.columns)


def _mean_of_cells(shared: list[tuple[int, Tensor]]) -> Tensor:
    """Mean over the cells of all readings, (), from the cells and mean of each: as ``_mean``."""
    total = sum(float(mean) * cells for cells, mean in shared)
    return torch.tensor(total / sum(cells for cells, _ in shared), dtype=torch.float64)


def _mean(piece: Piece, shared: list[tuple[Piece, Tensor]]) -> Tensor:
    """Mean over the cells of each column of ``piece``, from the means of the columns of each reading.

    In double precision, on the CPU and in the order of the mapping: the same for every piece that shares it.
    """
    total, cells = torch.zeros(piece.columns, dtype=torch.float64), torch.zeros(piece.columns, dtype=torch.float64)
    for other, mean in shared:
        values = mean.detach().cpu().double()
        first, last = _common(piece, other)
        mine = slice(first - piece.tile_column, last - piece.tile_column)
        total[mine] += values[first - other.tile_column : last - other.tile_column] * other.rows
        cells[mine] += other.rows
    return total / cells
