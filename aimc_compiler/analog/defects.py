"""Defects: devices that never answer to programming, rows, columns and tiles that are dead.

They are manufactured with the chip: a function of seed, chip and place on the tile, the same at all times and for
whatever network is programmed. A device is stuck at zero, at g_max or anywhere, by one uniform number of its own; a
dead row passes no input, a dead column and a dead tile give no current, so all their devices count as open.
"""

import torch
from torch import Tensor

from aimc_compiler.chip.spec import Tile
from aimc_compiler.chip.stored import Defects
from aimc_compiler.mapping.ir import Piece
from aimc_compiler.records import record
from aimc_compiler.rng import Key, stream_key, uniforms


@record
class PieceDefects:
    """The defects under one piece of a chip.

    tile_rows, tile_columns: weights that its tile holds; first_pair: of the slice.
    """

    defects: Defects
    seed: int
    chip: int
    piece: Piece
    tile_rows: int
    tile_columns: int
    first_pair: int = 0

    def apply(self, g: Tensor, pair: int = 0) -> Tensor:
        """The conductances of a pair (or slice) with its defects. g: (2, columns, rows), over g_max."""
        pair += self.first_pair
        if self.defects.stuck:
            g = stick(g, *self._stuck(g, pair))
        if self.defects.map != "off":
            g = self._mapped(g, pair)
        if self.defects.dead:
            g = kill(g, self._dead("row", g), self._dead("column", g), self._tile_is_dead())
        return g

    def _stuck(self, g: Tensor, pair: int) -> tuple[Tensor, Tensor]:
        """(where, value), both of g's shape."""
        defects = self.defects
        chance = self._on_piece(f"stuck, pair {pair}", g)
        full = chance < defects.stuck_at_zero + defects.stuck_at_g_max
        value = torch.where(chance < defects.stuck_at_zero, 0.0, full.to(g))
        if defects.stuck_random:
            value = torch.where(full, value, self._on_piece(f"stuck value, pair {pair}", g).to(g))
        return chance < defects.stuck, value.to(g)

    def _on_piece(self, purpose: str, g: Tensor) -> Tensor:
        """Uniform numbers of the tile's devices, those under the piece: (2, columns, rows) in float64."""
        rows, columns = self.tile_rows, self.tile_columns
        values = uniforms(self._key(purpose), 2 * rows * columns).reshape(2, columns, rows)
        row, column = self.piece.tile_row, self.piece.tile_column
        part = values[:, column : column + self.piece.columns, row : row + self.piece.rows]
        return torch.from_numpy(part.copy()).to(g.device)

    def _mapped(self, g: Tensor, pair: int) -> Tensor:
        g, piece = g.clone(), self.piece
        for defect in () if self.defects.map == "off" else self.defects.map:
            row, column = defect.row - piece.tile_row, defect.column - piece.tile_column
            here = defect.tile == piece.tile and 0 <= row < piece.rows and 0 <= column < piece.columns
            if here and defect.pair == pair:
                g[0 if defect.polarity == "plus" else 1, column, row] = defect.value
        return g

    def _dead(self, line: str, g: Tensor) -> Tensor:
        """Which rows or columns of the piece are dead."""
        if line == "row":
            share, count, first, length = self.defects.dead_rows, self.tile_rows, self.piece.tile_row, self.piece.rows
        else:
            share, count = self.defects.dead_columns, self.tile_columns
            first, length = self.piece.tile_column, self.piece.columns
        chance = uniforms(self._key(f"dead {line}s"), count)[first : first + length]
        return torch.from_numpy(chance < share).to(g.device)

    def _tile_is_dead(self) -> bool:
        return bool(uniforms(self._key("dead tile"), 1)[0] < self.defects.dead_tiles)

    def _key(self, purpose: str) -> Key:
        return stream_key(self.seed, "chip", self.chip, "tile", self.piece.tile, "defects", purpose)


def stick(g: Tensor, where: Tensor, value: Tensor) -> Tensor:
    """Conductances, at ``value`` where a device is stuck. All of one shape, over g_max."""
    return torch.where(where, value, g)


def kill(g: Tensor, rows: Tensor, columns: Tensor, tile: bool) -> Tensor:
    """Conductances without those on dead rows and columns, or on a dead tile. g: (2, columns, rows)."""
    return g * float(not tile) * (~rows).to(g) * (~columns).to(g).unsqueeze(-1)


def piece_defects(
    defects: Defects, seed: int, chip: int, piece: Piece, tile: Tile, index: int = 0
) -> PieceDefects | None:
    """The defects under slice ``index`` of a piece; None where the chip has none."""
    if not defects.any:
        return None
    rows, columns = tile.weight_rows, tile.weight_columns
    first = index * tile.device.pairs
    return PieceDefects(
        defects=defects, seed=seed, chip=chip, piece=piece, tile_rows=rows, tile_columns=columns, first_pair=first
    )
