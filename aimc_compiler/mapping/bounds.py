"""How few tiles could hold the matrices, however they were packed.

Area: all cells over the cells of a tile, whatever the cut. Big items: pieces of this cut higher and wider than half
a tile, of which no two share one (Martello and Vigo, "Exact solution of the two-dimensional finite bin packing
problem", Management Science 44, 388 (1998)).
"""

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.mapping.ir import Mapping
from aimc_compiler.records import record


@record
class TilesBound:
    """Lower bounds on the number of tiles, summed over tile types; ``tiles`` is the one that holds."""

    tiles: int
    area: int
    big_items: int


def bound_tiles(mapping: Mapping, chip: ChipSpec) -> TilesBound:
    """Bounds on the tiles of any packing of this mapping's pieces."""
    tiles = area = big_items = 0
    for name, tile in chip.tile_types.items():
        pieces = [piece for piece in mapping.pieces if piece.tile_type == name]
        of_area = -(-sum(piece.cells for piece in pieces) // (tile.weight_rows * tile.weight_columns))
        of_big_items = sum(
            2 * piece.rows > tile.weight_rows and 2 * piece.columns > tile.weight_columns for piece in pieces
        )
        tiles += max(of_area, of_big_items)
        area += of_area
        big_items += of_big_items
    return TilesBound(tiles=tiles, area=area, big_items=big_items)
