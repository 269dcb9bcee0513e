"""The error of one tile's multiplications: a table, plain data, and a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from aimc_compiler.errors import DataError, MissingDependencyError
from aimc_compiler.study import ErrorRow, MvmErrors
from aimc_compiler.units import print_time

_FORMATS = (".svg", ".png", ".pdf")
#: Errors of rounding alone are not drawn.
_VISIBLE = 1e-5


def mvm_error_table(found: MvmErrors) -> Table:
    """A row for each effect alone, then the chip as it is; a column for each time."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("MVM error")
    for time_s in found.times_s:
        table.add_column(print_time(time_s), justify="right")
    for row in found.alone:
        table.add_row(row.title, *_cells(row))
    table.add_section()
    table.add_row("sum in quadrature", *map(_percent, found.in_quadrature), style="dim")
    table.add_row(found.together.title, *_cells(found.together), style="bold")
    if found.uncompensated is not None:
        table.add_row(found.uncompensated.title, *_cells(found.uncompensated))
    return table


def mvm_error_lines(found: MvmErrors) -> list[str]:
    """What was measured, in words."""
    tiles = "one programmed tile" if found.n_chips == 1 else f"{found.n_chips} programmed tiles"
    return [
        f"mean ||y - y_ideal|| / ||y_ideal|| over {found.vectors} inputs uniform in (-1, 1) on {tiles} of {found.chip}",
        f"({found.rows} x {found.columns} weights, normal with sd 0.246 clipped to 1 and scaled by column), seed "
        f"{found.seed}, recalibrated: {found.recalibration}",
        *([] if found.out_method is None else [_bounds_line(found)]),
    ]


def _bounds_line(found: MvmErrors) -> str:
    bounds = ", ".join(f"{bound:.3g}" for bound in found.out_bounds)
    return f"output bound calibrated on these inputs with ideal cells, {found.out_method}: {bounds}"


def mvm_error_json(found: MvmErrors) -> dict[str, Any]:
    """Keys of ``mvm-error --json``: errors as fractions, times in seconds."""
    return {
        "chip": found.chip,
        "tile_type": found.tile_type,
        "rows": found.rows,
        "columns": found.columns,
        "vectors": found.vectors,
        "n_chips": found.n_chips,
        "seed": found.seed,
        "recalibration": found.recalibration,
        "out_method": found.out_method,
        "out_bounds": list(found.out_bounds),
        "times_s": list(found.times_s),
        "alone": {row.effects[0]: _row_json(row) for row in found.alone},
        "in_quadrature": list(found.in_quadrature),
        "together": _row_json(found.together),
        "uncompensated": None if found.uncompensated is None else _row_json(found.uncompensated),
    }


def plot_mvm_error(found: MvmErrors, path: Path) -> Path:
    """Draw the errors over time to an .svg, .png or .pdf. Needs matplotlib. Raises DataError on another ending."""
    if path.suffix not in _FORMATS:
        raise DataError(f"--plot {path}: a figure's name ends in {', '.join(_FORMATS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("figures need matplotlib: pip install 'aimc_compiler[report]'") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for row in found.alone:
        if max(row.errors) > _VISIBLE:
            axes.plot(found.times_s, _percents(row.errors), marker=".", linewidth=1, label=row.title)
    axes.plot(found.times_s, _percents(found.together.errors), marker="o", color="black", linewidth=2, label="together")
    if found.uncompensated is not None:
        errors = _percents(found.uncompensated.errors)
        axes.plot(found.times_s, errors, marker="o", color="black", linestyle=":", label="without drift compensation")
    later = [time_s for time_s in found.times_s if time_s > 0]
    if later:  # t = 0 has its place left of the first decade
        axes.set_xscale("symlog", linthresh=min(later))
    axes.set_xticks(found.times_s, [print_time(time_s) for time_s in found.times_s])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="after programming", ylabel="MVM error (%)", title=f"{found.chip}: {found.rows} x {found.columns}")
    axes.legend(fontsize="small", frameon=False)
    figure.savefig(path)
    return path


def _cells(row: ErrorRow) -> list[str]:
    if row.spread is None:
        return [_percent(error) for error in row.errors]
    return [f"{_percent(error)} ± {100 * sd:.2f}" for error, sd in zip(row.errors, row.spread, strict=True)]


def _percent(error: float) -> str:
    return f"{100 * error:.2f} %"


def _percents(errors: Sequence[float]) -> list[float]:
    return [100 * error for error in errors]


def _row_json(row: ErrorRow) -> dict[str, Any]:
    spread = None if row.spread is None else list(row.spread)
    return {"effects": list(row.effects), "errors": list(row.errors), "spread": spread}
