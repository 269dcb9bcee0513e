"""Where things stand on the mesh: tiles in snake order, digital units spread evenly, the host port in the corner."""

from collections.abc import Mapping as Table
from math import isqrt

from aimc_compiler.chip.spec import ChipSpec

Site = tuple[int, int]

#: The host reaches the chip here.
HOST_SITE: Site = (0, 0)


def near_square(count: int) -> tuple[int, int]:
    """(rows, columns) of the squarest mesh of at least ``count`` sites without an empty row or column.

    >>> near_square(64), near_square(48), near_square(7)
    ((8, 8), (6, 8), (2, 4))
    """
    rows = isqrt(max(count, 1))
    return rows, -(-max(count, 1) // rows)


def unit_sites(count: int, mesh: tuple[int, int]) -> tuple[Site, ...]:
    """Sites of ``count`` global digital units, spread evenly over the mesh; several share a site where they must."""
    rows, columns = near_square(count)
    return tuple(
        (
            (2 * (unit // columns) + 1) * mesh[0] // (2 * rows),
            (2 * (unit % columns) + 1) * mesh[1] // (2 * columns),
        )
        for unit in range(count)
    )


def first_tiles(chip: ChipSpec, demand: Table[str, int]) -> dict[str, int]:
    """Index of the first tile of each type: types are numbered one after the other, in the order of the spec.

    demand: tiles needed of each type; a type of count ``auto`` has as many.
    """
    first, position = {}, 0
    for name, tile in chip.tile_types.items():
        first[name] = position
        position += demand.get(name, 0) if tile.count == "auto" else tile.count
    return first


def tile_counts(chip: ChipSpec, demand: Table[str, int]) -> dict[str, int]:
    """Tiles of each type, where ``auto`` stands for the demand."""
    return {name: demand.get(name, 0) if tile.count == "auto" else tile.count for name, tile in chip.tile_types.items()}


def mesh_shape(chip: ChipSpec, tiles: int) -> tuple[int, int]:
    """(rows, columns) of the mesh: ``network.shape``, else the near-square one of ``tiles`` sites."""
    return chip.network.shape or near_square(tiles)
