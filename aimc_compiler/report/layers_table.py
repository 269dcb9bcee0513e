"""The table of layers for the terminal."""

from rich.markup import escape
from rich.table import Table

from aimc_compiler.compiler import CompiledModel
from aimc_compiler.report.alike import Alike, alike_layers
from aimc_compiler.report.layers import index_ranges, layer_rows, percent

#: Characters of a reason that stand beside a layer without making its row several lines high.
_INLINE = 34


def layers_table(compiled: CompiledModel, entry: str | None = None) -> Table:
    """A row an operation, layers that repeat together; a reason that all share, and reasons of many words, stand
    below."""
    rows = alike_layers(layer_rows(compiled, entry))
    reasons = list(dict.fromkeys(escape(each.row.reason) for each in rows))
    shared = len(reasons) == 1 and len(rows) > 1
    below = not shared and len(rows) > 1 and max(map(len, reasons)) > _INLINE
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    table.caption = "\n".join(_notes(rows, reasons, shared=shared, below=below)) or None
    table.add_column("layer", overflow="fold")
    table.add_column("kind")
    for title in ("matrix", "windows", "pieces", "tiles", "fill", "MVMs"):
        table.add_column(title, justify="right")
    table.add_column("where" if shared or below else "where and why", overflow="fold")
    for each in rows:
        where = "analog" if each.row.analog else "digital"
        reason = escape(each.row.reason)
        if below:
            where = f"{where} ({reasons.index(reason) + 1})"
        elif not shared:
            where = f"{where}: {reason}"
        table.add_row(*_cells(each), where)
    return table


def _notes(rows: tuple[Alike, ...], reasons: list[str], *, shared: bool, below: bool) -> list[str]:
    """What stands below the table."""
    notes = []
    if any(each.count > 1 for each in rows):
        notes.append("layers that are alike stand together, with the figures of one of them")
    if below:
        notes += ["why:", *(f"({number}) {text}" for number, text in enumerate(reasons, 1))]
    elif shared:
        notes.append(f"why: {reasons[0]}")
    return notes


def _cells(each: Alike) -> tuple[str, ...]:
    """All but where the operation stands."""
    row = each.row
    shape = f"{row.rows} x {row.columns}" + (f" x {row.groups}" if row.groups > 1 else "")
    windows = f"{row.windows:,}" + (f" of {row.computed_windows:,}" if row.computed_windows != row.windows else "")
    if not row.analog:
        return each.name, row.kind, shape, windows, "-", "-", "-", "-"
    tiles = index_ranges(row.tiles) if each.count == 1 else f"{len(row.tiles):,} each"
    fill = "-" if row.utilization is None else percent(row.utilization)
    return each.name, row.kind, shape, windows, f"{row.pieces:,}", tiles, fill, f"{row.mvms:,}"
