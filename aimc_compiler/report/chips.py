"""Chips for people: a table of several, a sheet of one with the provenance of each figure."""

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from aimc_compiler.analog.settings import require_built
from aimc_compiler.chip import ChipSpec, Figure, Tile, active, figures
from aimc_compiler.chip.figures import plain
from aimc_compiler.errors import NotBuiltError
from aimc_compiler.units import print_human

_VALUE_WIDTH = 28
_KIND_STYLE = {"published": "green", "derived": "cyan", "assumed": "yellow"}
_TITLES = {
    "clock": "Clock",
    "tile": "Tile",
    "tiles": "Tiles",
    "nonidealities": "Nonidealities",
    "local_digital": "Digital unit at every tile",
    "digital_units": "Global digital units",
    "network": "Network",
    "buffers": "Buffers at a tile",
    "evaluation": "Evaluation",
}


_COLUMNS = ("chip", "tiles", "cells", "device", "MVM", "energy", "TOPS", "TOPS/W", "runs")
_NUMBERS = ("tiles", "cells", "MVM", "energy", "TOPS", "TOPS/W")
_CAPTION = (
    "cells: of a tile; MVM, energy: one multiplication of a tile\n"
    "TOPS: all tiles at once; runs: all (values, time, energy), or timing alone:\n"
    "aimc chips NAME says why"
)


def tops_peak(spec: ChipSpec) -> float | None:
    """Tera-operations a second (a multiply-accumulate is two) with every tile busy; None where a count is auto."""
    total = 0.0
    for tile in spec.tile_types.values():
        if tile.count == "auto":
            return None
        total += tile.count * _operations(tile) / tile.mvm.active.initiation_interval_s
    return total / 1e12


def tops_per_w(tile: Tile) -> float | None:
    """Tera-operations a joule of full multiplications; None where they cost nothing."""
    energy_j = tile.mvm.active.energy_j
    return _operations(tile) / energy_j / 1e12 if energy_j else None


def runs(spec: ChipSpec) -> str:
    """What this version does with the chip: "numerics, timing" or "timing only"."""
    return "timing only" if not_built(spec) else "numerics, timing"


def not_built(spec: ChipSpec) -> str:
    """Why the chip can be mapped and timed but not run, and what to change; empty where it can be run."""
    reasons = []
    for name, tile in spec.tile_types.items():
        try:
            require_built(tile, spec.nonidealities, name)
        except NotBuiltError as error:
            reasons.append(str(error))
    return "\n".join(reasons)


def chips_table(specs: Sequence[ChipSpec]) -> Table:
    """One row a tile type of each chip."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), caption=_CAPTION, caption_justify="left")
    for column in _COLUMNS:
        table.add_column(column, justify="right" if column in _NUMBERS else "left", no_wrap=True)
    for spec in specs:
        for index, (type_name, tile) in enumerate(spec.tile_types.items()):
            table.add_row(*_row(spec, type_name, tile, first=index == 0))
    return table


def chip_sheet(spec: ChipSpec) -> RenderableType:
    """One chip: what it is, every figure by section with where it comes from, its sources."""
    parts: list[RenderableType] = [Text(spec.name, style="bold"), Text(spec.description), Text(_summary(spec))]
    parts.append(Text(f"effects on: {', '.join(active(spec)) or 'none'}"))
    if not_built(spec):
        parts += [Text(), Text(not_built(spec), style="yellow")]
    by_section: dict[str, list[Figure]] = {}
    for figure in figures(spec):
        by_section.setdefault(figure.path.partition(".")[0], []).append(figure)
    for section, found in by_section.items():
        parts += [Text(), Text(_TITLES[section], style="bold"), _section_table(section, found)]
    parts += [Text(), Text("Sources", style="bold")]
    parts += [Padding(Text.assemble((key, "cyan"), f"  {text}"), (0, 0, 0, 2)) for key, text in spec.sources.items()]
    if not spec.sources:
        parts.append(Padding(Text("none"), (0, 0, 0, 2)))
    return Group(*parts)


def chip_json(spec: ChipSpec) -> dict[str, Any]:
    """The sheet as data: the spec with its units, derived peaks, and every figure with its provenance."""
    return {
        "name": spec.name,
        "description": spec.description,
        "tops_peak": tops_peak(spec),
        "tops_per_w": {name: tops_per_w(tile) for name, tile in spec.tile_types.items()},
        "runs": runs(spec),
        "not_built": not_built(spec),
        "effects": list(active(spec)),
        "figures": [_figure_json(figure) for figure in figures(spec)],
        "sources": dict(spec.sources),
        "spec": plain(spec),
    }


def _operations(tile: Tile) -> int:
    return 2 * tile.weight_rows * tile.weight_columns


def _row(spec: ChipSpec, type_name: str, tile: Tile, *, first: bool) -> tuple[str, ...]:
    mvm, peak, efficiency = tile.mvm.active, tops_peak(spec), tops_per_w(tile)
    name = spec.name if type_name == "tile" else f"{spec.name}: {type_name}" if first else f"  {type_name}"
    return (
        name,
        str(tile.count),
        f"{tile.rows}x{tile.columns}",
        tile.device.model,
        print_human(mvm.time_s, "s"),
        print_human(mvm.energy_j, "J"),
        "-" if peak is None or not first else f"{peak:.3g}",
        "-" if efficiency is None else f"{efficiency:.3g}",
        ("timing" if not_built(spec) else "all") if first else "",
    )


def _summary(spec: ChipSpec) -> str:
    peak = tops_peak(spec)
    lines = []
    for name, tile in spec.tile_types.items():
        efficiency = tops_per_w(tile)
        parts = [f"{name}: {tile.weight_rows} x {tile.weight_columns} weights"]
        if efficiency is not None:
            parts.append(f"{efficiency:.3g} TOPS/W")
        lines.append(", ".join(parts))
    total = "peak depends on the number of tiles" if peak is None else f"peak {peak:.3g} TOPS"
    return f"{'; '.join(lines)}; {total}; runs: {runs(spec)}"


def _section_table(section: str, found: Sequence[Figure]) -> RenderableType:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(ratio=None, no_wrap=True)
    word = max(len(each) for figure in found for each in figure.text.split())
    table.add_column(no_wrap=False, min_width=min(word, _VALUE_WIDTH), max_width=_VALUE_WIDTH, overflow="fold")
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, style="dim", overflow="fold")
    above: str | None = None
    for figure in found:
        label = figure.path.removeprefix(f"{section}.") if figure.path != section else figure.path
        table.add_row(
            label, Text(figure.text), *_origin(figure, repeats=figure.entry is not None and figure.entry == above)
        )
        above = figure.entry
    return Padding(table, (0, 0, 0, 2))


def _origin(figure: Figure, *, repeats: bool) -> tuple[Text, Text]:
    if figure.provenance is None:
        return Text("no provenance", style="red"), Text()
    entry = figure.provenance
    note = "" if repeats else ": ".join(part for part in (entry.source, entry.note) if part)
    return Text(entry.kind, style=_KIND_STYLE[entry.kind]), Text('"' if repeats and _explained(figure) else note)


def _explained(figure: Figure) -> bool:
    return figure.provenance is not None and bool(figure.provenance.source or figure.provenance.note)


def _figure_json(figure: Figure) -> dict[str, Any]:
    entry = figure.provenance
    return {
        "path": figure.path,
        "value": figure.value,
        "kind": entry.kind if entry else None,
        "source": entry.source if entry else None,
        "note": entry.note if entry else None,
    }
