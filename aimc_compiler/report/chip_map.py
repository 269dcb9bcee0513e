"""The chip as a picture in the terminal: each tile at its place on the mesh, with what it holds and how full it is."""

from rich.columns import Columns
from rich.console import Group
from rich.text import Text

from aimc_compiler.compiler import CompiledModel
from aimc_compiler.mapping import snake_site

_BARS = " ▁▂▃▄▅▆▇█"
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red", "bright_cyan", "bright_green", "bright_magenta")
_WIDE = 12
_CELL = 10
_LEGEND = 60


def chip_map(compiled: CompiledModel, width: int = 100) -> Group:
    """One cell a tile: index, fill and layer where the mesh is narrow enough, else one bar a tile; with its legend."""
    columns = compiled.mapping.mesh[1]
    wide = columns <= _WIDE and columns * _CELL <= width
    tiles = _cells_by_site(compiled)
    lines = [_line(compiled, tiles, row, wide=wide) for row in range(_rows_shown(compiled, tiles))]
    return Group(*(line for group in lines for line in group), _legend(compiled))


def _cells_by_site(compiled: CompiledModel) -> dict[tuple[int, int], tuple[int, float, int]]:
    """site -> (tile, fill, number of the first layer on it)."""
    order = {layer.name: number for number, layer in enumerate(compiled.utilization.layers)}
    first: dict[int, int] = {}
    for piece in compiled.mapping.pieces:
        first.setdefault(piece.tile, order[piece.matrix])
    mesh = compiled.mapping.mesh
    return {
        snake_site(use.tile, mesh): (use.tile, use.utilization, first[use.tile]) for use in compiled.utilization.tiles
    }


def _rows_shown(compiled: CompiledModel, tiles: dict[tuple[int, int], tuple[int, float, int]]) -> int:
    """Every row of a chip of fixed size; rows in use where the chip is as large as needed."""
    if compiled.mapping.tiles_available is not None:
        return compiled.mapping.mesh[0]
    return max((site[0] for site in tiles), default=-1) + 1


def _line(
    compiled: CompiledModel, tiles: dict[tuple[int, int], tuple[int, float, int]], row: int, *, wide: bool
) -> list[Text]:
    upper, lower = Text(), Text()
    for column in range(compiled.mapping.mesh[1]):
        found = tiles.get((row, column))
        if found is None:
            upper.append("·".ljust(_CELL) if wide else "·", "dim")
            lower.append(" " * _CELL)
            continue
        tile, fill, layer = found
        colour = _COLOURS[layer % len(_COLOURS)]
        bar = _BARS[max(1, min(len(_BARS) - 1, round(fill * (len(_BARS) - 1))))]
        upper.append(f"{bar} {tile}: {letter(layer)}".ljust(_CELL) if wide else bar, colour)
        lower.append(f"  {fill_text(fill)}".ljust(_CELL), "dim")
    return [upper, lower] if wide else [upper]


def _legend(compiled: CompiledModel) -> Columns:
    layers = compiled.utilization.layers
    entries = [
        Text(f"{letter(number)} {layer.name}", _COLOURS[number % len(_COLOURS)])
        for number, layer in enumerate(layers[:_LEGEND])
    ]
    if len(layers) > _LEGEND:
        entries.append(Text(f"and {len(layers) - _LEGEND} more layers", "dim"))
    return Columns(entries, padding=(0, 3), column_first=True)


def fill_text(fill: float) -> str:
    """Whole percent; "<1 %" where a tile is used but hardly."""
    return "<1 %" if 0 < fill < 0.01 else f"{100 * fill:.0f} %"


def letter(number: int) -> str:
    """A, B, ... Z, AA, AB, ...: spreadsheet columns."""
    name = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(ord("A") + rest) + name
    return name
