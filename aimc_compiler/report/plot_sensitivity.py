"""One figure of what a network is sensitive to: effects at equal MVM error, tolerances, what protection buys."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aimc_compiler.errors import DataError, MissingDependencyError
from aimc_compiler.report.sensitivity import sorted_effects
from aimc_compiler.study import Sensitivity
from aimc_compiler.study.confidence import Estimate
from aimc_compiler.study.sensitivity_results import EffectSensitivity, ProtectedPoint
from aimc_compiler.units import print_time

_FORMATS = (".svg", ".png", ".pdf")


def require_figure(path: Path) -> None:
    """Raises DataError where figures have no such ending, MissingDependencyError without matplotlib: to ask before work
    begins."""
    if path.suffix not in _FORMATS:
        raise DataError(f"--plot {path}: a figure's name ends in {', '.join(_FORMATS)}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("figures need matplotlib: pip install 'aimc_compiler[report]'") from error


def plot_sensitivity(found: Sensitivity, path: Path) -> Path:
    """Draw it to an .svg, .png or .pdf: the panels of the parts that were studied. Needs matplotlib.

    Raises DataError on another ending and where no part has a panel.
    """
    require_figure(path)
    from matplotlib.figure import Figure

    panels = [_draw_losses, _draw_factors] if found.effects else []
    panels += [_draw_protection] if found.layers_protected or found.columns else []
    if not panels:
        raise DataError("there is nothing to draw: a figure shows the parts effects, layers and columns")
    figure = Figure(figsize=(4.6 * len(panels), 4.8), layout="constrained")
    for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes, found)
    figure.suptitle(f"{found.network} on {found.chip}, {print_time(found.time_s)} after programming")
    figure.savefig(path)
    return path


def _draw_losses(axes: Any, found: Sensitivity) -> None:
    """Bars: the loss of each effect at equal MVM error."""
    rows = [(row, row.equal.loss) for row in sorted_effects(found) if row.equal is not None][::-1]
    _bars(axes, [row.title for row, _ in rows], [loss for _, loss in rows])
    error = "" if found.target_error is None else f" at {100 * found.target_error:.0f} % MVM error"
    axes.set(title=f"costs{error}", xlabel="loss of A* (points)")


def _bars(axes: Any, titles: Sequence[str], values: Sequence[Estimate]) -> None:
    means = [100 * value.mean for value in values]
    axes.barh(range(len(titles)), means, xerr=error_bars(values), color="tab:blue", ecolor="black", capsize=2)
    axes.set_yticks(range(len(titles)), titles, fontsize="small")
    axes.axvline(0, color="black", linewidth=0.5)


def error_bars(values: Sequence[Estimate]) -> tuple[list[float], list[float]]:
    """How far intervals reach below and above their means, in points."""
    lows = [0.0 if value.low is None else max(0.0, 100 * (value.mean - value.low)) for value in values]
    highs = [0.0 if value.high is None else max(0.0, 100 * (value.high - value.mean)) for value in values]
    return lows, highs


def _draw_factors(axes: Any, found: Sensitivity) -> None:
    """Intervals: how many times the chip's own figure is tolerated."""
    rows = sorted((row for row in found.effects if drawn_factor(row)), key=drawn_factor, reverse=True)
    for place, row in enumerate(rows):
        tolerance = row.tolerance
        assert tolerance is not None
        ends = [end for end in (tolerance.low, tolerance.high) if end and math.isfinite(end)]
        if len(ends) == 2:
            axes.plot(ends, [place, place], color="black", linewidth=1)
        axes.plot(drawn_factor(row), place, "o", color="tab:blue")
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize="small")
    axes.axvline(1, color="grey", linestyle=":")
    if rows:
        axes.set_xscale("log")
    axes.set(title=f"tolerated until A* {100 * found.threshold:.1f} %", xlabel="times the chip's own")


def drawn_factor(row: EffectSensitivity) -> float:
    """The factor that is drawn; 0 for none."""
    found = row.tolerance
    if row.kind != "factor" or found is None:
        return 0.0
    return found.level if math.isfinite(found.level) else found.measured[-1][0]


def _draw_protection(axes: Any, found: Sensitivity) -> None:
    """A* over the share of weights that is exempt."""
    columns = found.columns
    if found.layers_protected:
        _curve(axes, found.layers_protected, "o-", "most sensitive layers")
    if columns is not None:
        _curve(axes, columns.protected, "s-", "most sensitive columns")
        _curve(axes, columns.random, "x:", "random columns")
    axes.axhline(100 * found.a_star.mean, color="black", linewidth=0.5)
    axes.axhline(100 * found.asked_threshold, color="grey", linestyle=":")
    axes.set_xscale("log")
    axes.set(title="protection", xlabel="weights exempt (%)", ylabel="A* (%)")
    axes.legend(fontsize="small", frameon=False)


def _curve(axes: Any, points: Sequence[ProtectedPoint], style: str, label: str) -> None:
    shares = [100 * point.parameters for point in points]
    line = axes.plot(shares, [100 * point.a_star.mean for point in points], style, label=label, markersize=4)[0]
    lows = [point.a_star.low for point in points if point.a_star.low is not None]
    highs = [point.a_star.high for point in points if point.a_star.high is not None]
    if len(lows) == len(highs) == len(points):
        axes.fill_between(
            shares, [100 * low for low in lows], [100 * high for high in highs], color=line.get_color(), alpha=0.15
        )
