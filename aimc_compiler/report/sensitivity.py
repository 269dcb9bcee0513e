"""What a network is sensitive to: tables, what they say in words, and plain data."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.markup import escape
from rich.table import Table

from aimc_compiler.report.layers import counted
from aimc_compiler.study import Sensitivity
from aimc_compiler.study.confidence import Estimate
from aimc_compiler.study.sensitivity_results import EffectSensitivity, ProtectedPoint, SensitivitySweep
from aimc_compiler.units import print_time

_MOST_LAYERS = 20
_MOST_COLUMNS = 5


def sorted_effects(found: Sensitivity) -> tuple[EffectSensitivity, ...]:
    """The costliest at equal MVM error first, then those that have none by what is gained without them."""

    def cost(row: EffectSensitivity) -> tuple[bool, float]:
        gain = row.without.mean if row.without else -math.inf
        return (row.equal is None, -(row.equal.loss.mean if row.equal else gain))

    return tuple(sorted(found.effects, key=cost))


def effects_table(found: Sensitivity) -> Table:
    """A row an effect: gain of A* without it, loss at equal MVM error, how much is tolerated."""
    target = "" if found.target_error is None else f" at {100 * found.target_error:.0f} %\nMVM error"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("effect", "chip", "gain without", "scaled to", f"loss{target}", "tolerated up to"):
        table.add_column(title, justify="left" if title == "effect" else "right", no_wrap=True)
    for row in sorted_effects(found):
        table.add_row(
            row.title,
            figure_text(row),
            "-" if row.without is None else points_text(row.without),
            "-" if row.equal is None else _level(row, row.equal.value, row.equal.factor),
            "-" if row.equal is None else points_text(row.equal.loss),
            tolerance_text(row),
        )
    return table


def layers_table(found: Sensitivity) -> Table:
    """A row a layer, the most sensitive first."""
    total = sum(layer.parameters for layer in found.layers) or 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("layer", "weights", "share", "gain if exempt", "loss if alone on the chip"):
        table.add_column(title, justify="left" if title == "layer" else "right")
    for layer in found.layers[:_MOST_LAYERS]:
        share = f"{100 * layer.parameters / total:.1f} %"
        table.add_row(
            escape(layer.matrix), f"{layer.parameters:,}", share, points_text(layer.gain), points_text(layer.alone)
        )
    return table


def protection_table(found: Sensitivity) -> Table:
    """What is exempt, its share of the weights, and A* with it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("exempt", "share of weights", "A*"):
        table.add_column(title, justify="left" if title == "exempt" else "right")
    columns = found.columns
    rows: list[tuple[str, Sequence[ProtectedPoint]]] = [("layer", found.layers_protected)]
    if columns is not None:
        rows += [("column", columns.protected), ("random column", columns.random)]
    for noun, points in rows:
        for point in points:
            table.add_row(counted(point.count, noun), f"{100 * point.parameters:.2g} %", _share(point.a_star))
    return table


def sweep_table(swept: SensitivitySweep) -> Table:
    """One sweep, values side by side; ``sweep_title`` says what they are."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for point in swept.points:
        own = point.value == swept.own
        table.add_column(_value(swept, point.value) + (" *" if own else ""), justify="right")
    table.add_row(*("-" if point.a_star is None else f"{100 * point.a_star.mean:.1f}" for point in swept.points))
    return table


def sensitivity_lines(found: Sensitivity) -> list[str]:
    """What was studied, in words, and what could not be had."""
    chips = counted(found.n_chips, "programmed chip")
    lines = [
        f"{found.network} on {chips} of {found.chip}, {print_time(found.time_s)} after programming, "
        f"{counted(found.n_samples, 'sample')}, seed {found.seed}, recalibrated: {found.recalibration}",
        f"{found.metric} {found.float_metric:.4g} in floating point, {_baseline(found)}{found.chance:.4g} by chance; "
        f"A* of the chip as it is: {_share(found.a_star)};",
        f"gains and losses are points of A*, in brackets the {100 * found.confidence:g} % interval over chips",
    ]
    if found.target_error is not None and found.mvm_error is not None:
        lines.append(
            f"MVM error of a full tile: {100 * found.mvm_error:.1f} %, scaled to {100 * found.target_error:.1f} % by "
            "one effect, all others as they are"
        )
    if found.effects:
        lines.append(_threshold_line(found))
    for row in sorted_effects(found):
        lines += [f"{row.title}: {note}" for note in row.notes]
    if found.columns is not None:
        top = ", ".join(
            f"{each.operation}[{each.output}] {100 * each.share:.0f} %" for each in found.columns.top[:_MOST_COLUMNS]
        )
        lines.append(f"outputs that change the loss most, of {found.columns.columns:,} (first order): {top}")
        if found.columns.left_out:
            lines.append(f"columns without a rank, inside recurrent loops: {', '.join(found.columns.left_out)}")
    for swept in found.sweeps:
        lines += [f"{swept.name} {_value(swept, point.value)}: {point.note}" for point in swept.points if point.note]
    return [*lines, *found.notes]


def sensitivity_json(found: Sensitivity) -> dict[str, Any]:
    """Keys of ``sensitivity --json``: all fields of the result; A* and errors as fractions, times in seconds; infinite
    tolerances as null with ``unbounded``."""
    plain: dict[str, Any] = dataclasses.asdict(found)
    for row in plain["effects"]:
        tolerance = row["tolerance"]
        if tolerance is not None:
            tolerance["unbounded"] = [key for key in ("level", "low", "high") if tolerance[key] == math.inf]
            tolerance.update(dict.fromkeys(tolerance["unbounded"]))
    return plain


def save_sensitivity(found: Sensitivity, path: Path) -> Path:
    """Write the result with its settings as JSON."""
    import json

    path.write_text(json.dumps(sensitivity_json(found), indent=2) + "\n", encoding="utf-8")
    return path


def load_sensitivity(path: Path) -> Sensitivity:
    """What ``save_sensitivity`` wrote. Raises pydantic's ValidationError on anything else."""
    import json

    plain = json.loads(path.read_text(encoding="utf-8"))
    for row in plain["effects"]:
        if row["tolerance"] is not None:
            row["tolerance"].update(dict.fromkeys(row["tolerance"].pop("unbounded"), math.inf))
    return TypeAdapter(Sensitivity).validate_python(plain, strict=False)


def _baseline(found: Sensitivity) -> str:
    return "" if found.baseline == found.float_metric else f"{found.baseline:.4g} of the baseline (A* 100 %), "


def _threshold_line(found: Sensitivity) -> str:
    if found.threshold == found.asked_threshold:
        return f"tolerated: as long as A* stays at {100 * found.threshold:g} % or more"
    return (
        f"tolerated: as long as A* stays at {100 * found.threshold:.1f} % or more, one point below the chip's own, "
        f"which is below {100 * found.asked_threshold:g} % by itself"
    )


def figure_text(row: EffectSensitivity) -> str:
    """The chip's own."""
    if isinstance(row.figure, bool):
        return "on" if row.figure else "off"
    if row.kind == "value" or row.figure == "off":
        return "off"
    return f"{row.figure} bits" if row.kind == "bits" else f"{row.figure:g}"


def _level(row: EffectSensitivity, value: float, factor: float | None) -> str:
    if row.kind == "bits":
        return f"{value:.1f} bits".replace(".0 ", " ")
    return _short(value) if factor is None else f"{_short(value)} ({_short(factor)}x)"


def tolerance_text(row: EffectSensitivity) -> str:
    """Up to what it is tolerated, with the interval; "-" where that was not studied."""
    found = row.tolerance
    if found is None:
        return "-"
    unit = {"factor": "x", "bits": " bits"}.get(row.kind, "")
    if found.level == math.inf:
        return "own bits needed" if row.kind == "bits" else f"> {_short(found.measured[-1][0])}{unit}"
    if found.low is None or found.high is None:
        return f"{_short(found.level)}{unit}"
    high = "more" if found.high == math.inf else _short(found.high)
    return f"{_short(found.level)}{unit} [{_short(found.low)}, {high}]"


def _short(value: float) -> str:
    """Two digits, without an exponent where there need be none."""
    return f"{float(f'{value:.2g}'):g}"


def points_text(change: Estimate) -> str:
    """A change of A* in points."""
    if change.low is None or change.high is None:
        return _tenths(change.mean)
    return f"{_tenths(change.mean)} [{_tenths(change.low)}, {_tenths(change.high)}]"


def _tenths(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:.1f}"


def _share(value: Estimate) -> str:
    text = f"{100 * value.mean:.1f} %"
    if value.low is None or value.high is None:
        return text
    return f"{text} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def sweep_title(swept: SensitivitySweep) -> str:
    """What a sweep shows."""
    unit = "" if swept.name == "time" else f" ({swept.unit})"
    return f"A* in % over {swept.title}{unit}" + (", * the chip's own" if swept.own is not None else "")


def _value(swept: SensitivitySweep, value: float) -> str:
    return print_time(value) if swept.name == "time" else f"{value:g}"
