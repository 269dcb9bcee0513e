"""How full the tiles are. A cell here holds one weight: a tile has ``weight_rows * weight_columns`` of them."""

from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.mapping.ir import Mapping
from aimc_compiler.records import record


@record
class LayerUse:
    """One matrix: the tiles it stands on, its cells (over all replicas), and their share of those tiles."""

    name: str
    pieces: int
    tiles: int
    cells: int
    utilization: float


@record
class TileUse:
    """One tile: its pieces by name, cells used, cells there are, their ratio."""

    tile: int
    tile_type: str
    pieces: tuple[str, ...]
    cells_used: int
    cells: int
    utilization: float


@record
class Utilization:
    """The whole chip. tiles_available: None where the count is ``auto``; utilization: cells used over cells of tiles
    used (0 without tiles).
    """

    tiles_used: int
    tiles_available: int | None
    utilization: float
    matrix_cells_used: int
    layers: tuple[LayerUse, ...]
    tiles: tuple[TileUse, ...]


def measure_utilization(mapping: Mapping, chip: ChipSpec) -> Utilization:
    """Fill of every tile in use, of every matrix, in total."""
    on_tile: dict[int, list[int]] = {}
    of_matrix: dict[str, list[int]] = {}
    for index, piece in enumerate(mapping.pieces):
        on_tile.setdefault(piece.tile, []).append(index)
        of_matrix.setdefault(piece.matrix, []).append(index)
    tiles = tuple(_tile_use(mapping, chip, tile, on_tile[tile]) for tile in sorted(on_tile))
    capacity = {use.tile: use.cells for use in tiles}
    used = sum(use.cells_used for use in tiles)
    return Utilization(
        tiles_used=len(tiles),
        tiles_available=mapping.tiles_available,
        utilization=used / sum(capacity.values()) if tiles else 0.0,
        matrix_cells_used=used,
        layers=tuple(_layer_use(mapping, name, members, capacity) for name, members in of_matrix.items()),
        tiles=tiles,
    )


def _tile_use(mapping: Mapping, chip: ChipSpec, tile: int, members: list[int]) -> TileUse:
    pieces = [mapping.pieces[index] for index in members]
    spec = chip.tile_types[pieces[0].tile_type]
    cells, used = spec.weight_rows * spec.weight_columns, sum(piece.cells for piece in pieces)
    return TileUse(
        tile=tile,
        tile_type=pieces[0].tile_type,
        pieces=tuple(piece.name for piece in pieces),
        cells_used=used,
        cells=cells,
        utilization=used / cells,
    )


def _layer_use(mapping: Mapping, name: str, members: list[int], capacity: dict[int, int]) -> LayerUse:
    tiles = dict.fromkeys(mapping.pieces[index].tile for index in members)
    cells = sum(mapping.pieces[index].cells for index in members)
    return LayerUse(
        name=name,
        pieces=len(members),
        tiles=len(tiles),
        cells=cells,
        utilization=cells / sum(capacity[tile] for tile in tiles),
    )
