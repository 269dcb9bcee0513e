"""The entries of a program that share its tiles: a line each, with what a call of it costs."""

from typing import Any

from rich.table import Table

from aimc_compiler.compiler import CompiledModel
from aimc_compiler.program import Timing, count
from aimc_compiler.report.timing import find_timing
from aimc_compiler.units import print_human


def entries_table(compiled: CompiledModel) -> Table:
    """Operations, tiles, MVMs, latency, interval and energy of one sample of every entry; below, why one has none."""
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left")
    refused: dict[str, None] = {}
    table.add_column("entry")
    for title in ("operations on tiles", "tiles", "MVMs", "latency", "interval", "energy"):
        table.add_column(title, justify="right")
    for name in compiled.entries:
        entry, timing = compiled.entry(name), find_timing(compiled, name)
        if isinstance(timing, str):
            refused[timing] = None
            figures = ["not timed", "-", "-"]
        else:
            figures = [_human(timing.latency_s, "s"), _human(timing.interval_s, "s"), _human(timing.energy_j, "J")]
        operations = len(entry.workload.analog_ops)
        counts = (operations, entry.utilization.tiles_used, count(entry.program).mvms)
        table.add_row(name, *(f"{number:,}" for number in counts), *figures)
    table.caption = "\n".join(f"not timed: {reason}" for reason in refused) or None
    return table


def _human(value: float | None, unit: str) -> str:
    return "-" if value is None else print_human(value, unit)


def entries_json(compiled: CompiledModel) -> dict[str, Any]:
    """Key ``entries`` of ``inspect --json``: of each its counts, seconds and joules a sample, or why it has none.

    The whole of its timing is in the report of that entry (``inspect_json``).
    """
    found: dict[str, Any] = {}
    for name in compiled.entries:
        entry, timing = compiled.entry(name), find_timing(compiled, name)
        found[name] = {
            "operations": len(entry.workload.ops),
            "analog_operations": len(entry.workload.analog_ops),
            "tiles_used": entry.utilization.tiles_used,
            "mvms": count(entry.program).mvms,
            "timing": {"refused": timing} if isinstance(timing, str) else _brief(timing),
        }
    return found


def _brief(timing: Timing) -> dict[str, Any]:
    return {name: getattr(timing, name) for name in ("latency_s", "interval_s", "energy_j")}
