"""Where the chip's values leave the float network's: a table, what it says in words, plain data, and a figure."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from aimc_compiler.errors import DataError, MissingDependencyError
from aimc_compiler.report.layers import counted
from aimc_compiler.study import Comparison, OpComparison
from aimc_compiler.units import print_time

_FORMATS = (".svg", ".png", ".pdf")
#: Networks of more operations are shown by their matrix operations.
_MOST = 40
#: A bar of so many places stands for so many dB.
_BAR, _BAR_DB = 20, 40.0


def comparison_rows(found: Comparison, *, every: bool = False) -> tuple[OpComparison, ...]:
    """What the table shows: all operations but views; of large networks those on matrices, outputs and the first that
    breaks. every: all there is."""
    if every:
        return found.ops
    rows = tuple(op for op in found.ops if not op.view or op.output)
    if len(rows) <= _MOST:
        return rows
    matrices = {op.name for op in rows if op.own_db is not None or op.kind == "linear" or op.kind.startswith("conv")}
    return tuple(op for op in rows if op.name in matrices or op.output or op is found.first_break)


def comparison_table(found: Comparison, *, every: bool = False) -> Table:
    """A row an operation in execution order, with a bar for the accumulated ratio; the first broken one is marked."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operation", overflow="fold")
    table.add_column("kind")
    table.add_column("where")
    for title in ("tiles", "own dB", "accumulated dB"):
        table.add_column(title, justify="right")
    table.add_column(f"0 to {_BAR_DB:.0f} dB", overflow="fold")
    for op in comparison_rows(found, every=every):
        broken = op is found.first_break
        table.add_row(
            escape(op.name) + (" (output)" if op.output else ""),
            op.kind,
            "analog" if op.analog else "digital",
            f"{op.tiles:,}" if op.analog else "-",
            "-" if not op.analog else _ratio(op.own_db),
            _ratio(op.snr_db) + ("" if op.spread_db is None else f" ± {op.spread_db:.1f}"),
            _bar(op) + (f" first below {found.threshold_db:g}" if broken else ""),
            style="bold" if broken else None if op.analog else "dim",
        )
    return table


def comparison_lines(found: Comparison, *, every: bool = False) -> list[str]:
    """What was compared, where it breaks, and what the table leaves out."""
    chips = "one programmed chip" if found.n_chips == 1 else f"{found.n_chips} programmed chips"
    lines = [
        f"{found.network} on {chips} of {found.chip}, {print_time(found.time_s)} after programming, "
        f"{counted(found.n_samples, 'sample')}, seed {found.seed}, recalibrated: {found.recalibration}",
        "accumulated: with what arrives on the chip; own: with the float network's input; exact: no bit differs",
        _break_line(found),
    ]
    weakest = found.weakest
    if weakest is not None:
        lines.append(f"least of its own: {weakest.name}, {_ratio(weakest.own_db)} dB")
    return [*lines, *_left_out(found, every=every)]


def comparison_json(found: Comparison) -> dict[str, Any]:
    """Keys of ``compare --json``: every operation; ratios in dB, null with ``exact`` where no bit differs."""
    first = found.first_break
    return {
        "network": found.network,
        "chip": found.chip,
        "time_s": found.time_s,
        "n_samples": found.n_samples,
        "n_chips": found.n_chips,
        "seed": found.seed,
        "recalibration": found.recalibration,
        "threshold_db": found.threshold_db,
        "first_break": None if first is None else first.name,
        "ops": [_op_json(op) for op in found.ops],
    }


def plot_comparison(found: Comparison, path: Path) -> Path:
    """Draw both ratios along the network to an .svg, .png or .pdf. Needs matplotlib. Raises DataError on another
    ending."""
    if path.suffix not in _FORMATS:
        raise DataError(f"--plot {path}: a figure's name ends in {', '.join(_FORMATS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("figures need matplotlib: pip install 'aimc_compiler[report]'") from error
    drawn = [(op, op.snr_db) for op in comparison_rows(found) if op.snr_db is not None and math.isfinite(op.snr_db)]
    rows, ratios = [op for op, _ in drawn], [ratio for _, ratio in drawn]
    figure = Figure(figsize=(max(6, min(24, 0.32 * len(rows) + 2)), 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(range(len(rows)), ratios, marker=".", color="black", label="accumulated")
    own = [(place, op.own_db) for place, op in enumerate(rows) if op.own_db is not None and math.isfinite(op.own_db)]
    axes.plot([place for place, _ in own], [ratio for _, ratio in own], "o", fillstyle="none", label="own")
    axes.axhline(found.threshold_db, linestyle=":", color="grey", label=f"{found.threshold_db:g} dB")
    axes.set_xticks(range(len(rows)), [op.name for op in rows], rotation=90, fontsize="x-small")
    title = f"{found.network} on {found.chip}, {print_time(found.time_s)} after programming"
    axes.set(ylabel="signal-to-noise ratio (dB)", title=title)
    axes.set_ylim(bottom=min([0.0, *ratios]))
    axes.legend(fontsize="small", frameon=False)
    figure.savefig(path)
    return path


def _break_line(found: Comparison) -> str:
    first = found.first_break
    if first is None:
        return f"no operation falls below {found.threshold_db:g} dB"
    place = f" ({first.origin.source})" if first.origin.source else ""
    own = "" if first.own_db is None else f"; its own {_ratio(first.own_db)} dB"
    return f"first below {found.threshold_db:g} dB: {first.name}{place}, {_ratio(first.snr_db)} dB{own}"


def _left_out(found: Comparison, *, every: bool) -> list[str]:
    """Operations that the table does not show, and those that could not be compared, by the reason."""
    shown = {op.name for op in comparison_rows(found, every=every)}
    views = sum(op.view and op.name not in shown for op in found.ops)
    others = sum(not op.view and op.name not in shown for op in found.ops)
    lines = []
    if views or others:
        parts = [counted(views, "view")] if views else []
        parts += [counted(others, "digital operation")] if others else []
        lines.append(f"not shown: {' and '.join(parts)} (--all)")
    for op in found.ops:
        if op.note and op.snr_db is not None and op.name in shown:
            lines.append(f"{op.name}: {op.note}")
    reasons = Counter(op.note for op in found.ops if op.snr_db is None)
    lines += [f"not compared: {counted(number, 'operation')} ({note})" for note, number in reasons.items()]
    return lines


def _ratio(decibels: float | None) -> str:
    if decibels is None:
        return "not compared"
    if decibels == math.inf:
        return "exact"
    return f"{decibels:.1f}"


def _bar(op: OpComparison) -> str:
    if op.snr_db is None:
        return ""
    return "█" * round(_BAR * min(max(op.snr_db, 0.0), _BAR_DB) / _BAR_DB)


def _op_json(op: OpComparison) -> dict[str, Any]:
    return {
        "name": op.name,
        "kind": op.kind,
        "analog": op.analog,
        "tiles": op.tiles,
        "view": op.view,
        "output": op.output,
        "path": op.origin.path,
        "source": op.origin.source,
        "exact": op.snr_db == math.inf,
        "snr_db": _plain(op.snr_db),
        "own_db": _plain(op.own_db),
        "spread_db": op.spread_db,
        "note": op.note,
    }


def _plain(decibels: float | None) -> float | str | None:
    """A number that JSON has; "-inf" where the chip's values are not finite."""
    if decibels is None or decibels == math.inf:
        return None
    return "-inf" if decibels == -math.inf else decibels
