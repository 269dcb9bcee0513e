"""What a sweep found: a table, what it rests on in words, a figure; and what of it is done."""

from collections import Counter
from pathlib import Path
from typing import Any

from rich.table import Table

from aimc_compiler.errors import DataError, MissingDependencyError
from aimc_compiler.report.layers import counted
from aimc_compiler.study.sweep import Sweep, SweepResult, SweepRow, SweepState
from aimc_compiler.units import print_human, print_time

_FORMATS = (".svg", ".png", ".pdf")
_MOST_LINES = 12


def sweep_table(result: SweepResult) -> Table:
    """A row for each setting: what varies, the metric at each time, the program's figures."""
    times = list(dict.fromkeys(row.time_s for row in result.rows))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for axis in result.axes:
        table.add_column(axis, overflow="fold")
    for time_s in times:
        table.add_column(print_time(time_s), justify="right", no_wrap=True)
    for title in ("tiles", "latency", "energy"):
        table.add_column(title, justify="right")
    for start in range(0, len(result.rows), len(times)):
        rows = result.rows[start : start + len(times)]
        first = rows[0]
        table.add_row(
            *(str(first.setting[axis]) for axis in result.axes),
            *(_cell(row, result.metric) for row in rows),
            str(first.tiles),
            "-" if first.latency_s is None else print_human(first.latency_s, "s"),
            "-" if first.energy_j is None else print_human(first.energy_j, "J"),
        )
    return table


def sweep_lines(result: SweepResult) -> list[str]:
    """What was measured, in words."""
    share = result.metric == "accuracy"
    counts: Counter[str] = Counter()
    for row in result.rows:
        counts.update({name.partition(" ")[0]: number for name, number in row.precision.items()})
    held = [row.held_after_s for row in result.rows if row.held_after_s is not None]
    lines = [
        f"{result.metric} of {result.network} on {result.chip}: mean and standard deviation over "
        f"{counted(result.n_chips, 'chip')}, seed {result.seed};",
        f"{counted(result.n_samples, 'sample')}, float network {_number(result.float_metric, share)}; precision: "
        f"{' and '.join(sorted(counts)) or 'no analog operations'}",
    ]
    if held:
        lines.append(f"after {print_time(min(held))}: the last measured deviations held on (extrapolate: hold)")
    if any(row.repeated_energy_j for row in result.rows):
        lines.append(
            "bound management repeated MVMs, which latency and energy do not hold: results.json has the energy"
        )
    return lines


def state_table(sweep: Sweep, state: SweepState) -> Table:
    """The cells of each setting, and how many are done."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("setting", "cells", "done"):
        table.add_column(title, justify="left" if title == "setting" else "right")
    done = Counter(name.partition("-")[0] for name in state.done)
    for setting in sweep.settings:
        table.add_row(setting.title, str(sweep.n_chips), str(done[f"s{setting.index:04d}"]))
    times = ", ".join(print_time(time_s) for time_s in sweep.times_s)
    damaged = "".join(f"\n{text}: it would be computed again" for text in state.damaged.values())
    table.caption_justify = "left"
    table.caption = f"{len(state.done)} of {len(state.cells)} cells are done; each at {times}{damaged}"
    return table


def state_json(sweep: Sweep, state: SweepState) -> dict[str, Any]:
    """Keys of ``sweep --dry-run --json``."""
    return {
        "settings": [dict(setting.values) for setting in sweep.settings],
        "times_s": list(sweep.times_s),
        "cells": list(state.cells),
        "done": list(state.done),
        "damaged": state.damaged,
    }


def require_figure(path: Path, sweep: Sweep) -> None:
    """To ask before work begins. Raises DataError on another ending and on too many lines, MissingDependencyError
    without matplotlib."""
    if path.suffix not in _FORMATS:
        raise DataError(f"--plot {path}: a figure's name ends in {', '.join(_FORMATS)}")
    lines = len({repr(setting.values[1:]) for setting in sweep.settings})
    if lines > _MOST_LINES:
        raise DataError(f"--plot {path}: {lines} lines are too many for a figure; draw results.csv, or vary less")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("figures need matplotlib: pip install 'aimc_compiler[report]'") from error


def plot_sweep(result: SweepResult, path: Path) -> Path:
    """Draw the metric over the first axis, a panel for each time and a line for each choice of the others; over time,
    where nothing varies. Bars are standard deviations over chips. ``require_figure`` says what cannot be drawn."""
    from matplotlib.figure import Figure

    panels: dict[str, list[SweepRow]] = {}
    for row in result.rows:
        panels.setdefault(print_time(row.time_s) if result.axes else result.network, []).append(row)
    figure = Figure(figsize=(3.2 * max(len(panels), 2), 4), layout="constrained")
    drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    ticks = list(dict.fromkeys(_place(row, result) for row in result.rows))
    for axes, (title, rows) in zip(drawn, panels.items(), strict=True):
        lines: dict[str, list[SweepRow]] = {}
        for row in rows:
            lines.setdefault(_others(row, result), []).append(row)
        for label, line in lines.items():
            places = [ticks.index(_place(row, result)) for row in line]
            errors = None if line[0].std is None else [row.std for row in line]
            axes.errorbar(places, [row.mean for row in line], yerr=errors, marker="o", capsize=3, label=label or None)
        axes.axhline(result.float_metric, color="black", linestyle=":", linewidth=1)
        axes.set_xticks(range(len(ticks)), ticks)
        axes.set(title=title, xlabel=result.axes[0] if result.axes else "after programming")
    drawn[0].set_ylabel(f"{result.metric} (dotted: float)")
    if len(result.axes) > 1:
        handles, labels = drawn[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    figure.savefig(path)
    return path


def _place(row: SweepRow, result: SweepResult) -> str:
    return str(row.setting[result.axes[0]]) if result.axes else print_time(row.time_s)


def _others(row: SweepRow, result: SweepResult) -> str:
    """Names without the sections that they stand in: a legend is short of room."""
    return ", ".join(f"{axis.rpartition('.')[2]} {row.setting[axis]}" for axis in result.axes[1:])


def _cell(row: SweepRow, metric: str) -> str:
    share = metric == "accuracy"
    if row.std is None:
        return _number(row.mean, share)
    return f"{_number(row.mean, share)} ± {100 * row.std:.2f}" if share else f"{row.mean:.5g} ± {row.std:.2g}"


def _number(value: float, share: bool) -> str:
    return f"{100 * value:.2f} %" if share else f"{value:.5g}"
