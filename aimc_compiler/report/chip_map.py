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
_TALL = 16

#: site -> (tile, fill, number of the first layer on it)
Cells = dict[tuple[int, int], tuple[int, float, int]]


def chip_map(compiled: CompiledModel, width: int = 100) -> Group:
    """One cell a tile: index, fill and layer where the mesh is narrow enough, else one bar a tile; with its legend.

    Of a mesh that is too large to draw, only the rows and columns up to the last tile in use, which it then says.
    """
    tiles = _cells_by_site(compiled)
    rows, columns = _extent(compiled, tiles, width)
    wide = columns <= _WIDE and columns * _CELL <= width
    lines = [line for row in range(rows) for line in _line(tiles, row, columns, wide=wide)]
    return Group(*lines, *_cut_short(compiled, rows, columns, width), _legend(compiled))


def _cells_by_site(compiled: CompiledModel) -> Cells:
    order = {layer.name: number for number, layer in enumerate(compiled.utilization.layers)}
    first: dict[int, int] = {}
    for piece in compiled.mapping.pieces:
        first.setdefault(piece.tile, order[piece.matrix])
    mesh = compiled.mapping.mesh
    return {
        snake_site(use.tile, mesh): (use.tile, use.utilization, first[use.tile]) for use in compiled.utilization.tiles
    }


def _extent(compiled: CompiledModel, tiles: Cells, width: int) -> tuple[int, int]:
    """(rows, columns) that are drawn. A chip that is as large as needed has no empty rows to show."""
    mesh_rows, mesh_columns = compiled.mapping.mesh
    used_rows, used_columns = (max((site[axis] for site in tiles), default=-1) + 1 for axis in (0, 1))
    all_rows = compiled.mapping.tiles_available is not None and mesh_rows <= _TALL
    return mesh_rows if all_rows else used_rows, mesh_columns if mesh_columns <= width else used_columns


def _cut_short(compiled: CompiledModel, rows: int, columns: int, width: int) -> list[Text]:
    mesh_rows, mesh_columns = compiled.mapping.mesh
    notes = []
    if columns < mesh_columns or (rows < mesh_rows and compiled.mapping.tiles_available is not None):
        mesh = f"{mesh_rows:,} x {mesh_columns:,}"
        notes.append(f"drawn: the first {rows} x {columns} of {mesh} sites; the others are empty")
    if columns > width:
        notes.append(f"a row of the mesh takes {-(-columns // width)} lines here")
    return [Text(note, "dim") for note in notes]


def _line(tiles: Cells, row: int, columns: int, *, wide: bool) -> list[Text]:
    upper, lower = Text(), Text()
    for column in range(columns):
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
