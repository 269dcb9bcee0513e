"""Time and energy of one sample, with the bounds they stand against, where the energy goes and who is busy."""

from typing import Any

from rich.table import Table

from aimc_compiler.compiler import CompiledModel
from aimc_compiler.errors import NotBuiltError
from aimc_compiler.program import Timing
from aimc_compiler.report.layers import percent
from aimc_compiler.units import print_human

_FULL = 0.95
_ROUNDED = 0.1
_COMPONENT_NAMES = {
    "dac": "input converters (DAC)",
    "array": "crossbar arrays",
    "adc": "output converters (ADC)",
    "local_digital": "digital units at the tiles",
    "digital": "global digital units",
    "network": "links",
}


def find_timing(compiled: CompiledModel, entry: str | None = None) -> Timing | str:
    """The timing of an entry (default: the first), or why a program of this size has none."""
    try:
        return compiled.entry(entry).timing
    except NotBuiltError as error:
        return str(error)


def timing_table(timing: Timing) -> Table:
    """Latency, interval and energy of one sample next to their lower bounds."""
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left", caption=_rounding(timing))
    table.add_column("one sample")
    for title in ("value", "lower bound", "gap"):
        table.add_column(title, justify="right")
    table.add_column("", style="dim")
    rows = (
        ("latency", "latency_s", "s", "one sample alone on the chip"),
        ("interval", "interval_s", "s", f"{_rate(timing.throughput_per_s)} samples a second, pipelined"),
        ("energy", "energy_j", "J", f"{timing.tops:.3g} TOPS, {timing.tops_per_w:.3g} TOPS/W on this network"),
    )
    for name, key, unit, note in rows:
        bound = timing.bounds[key]
        gap = "-" if not bound.bound else percent(bound.gap)
        table.add_row(name, print_human(bound.value, unit), print_human(bound.bound, unit), gap, note)
    return table


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def _rounding(timing: Timing) -> str | None:
    """What rounding up to ticks adds, where that is not small beside the time that resources are busy."""
    busy_s = sum(timing.busy_ticks.values()) * timing.tick_s
    if timing.rounding_s <= _ROUNDED * busy_s:
        return None
    return (
        f"times are rounded up to ticks of {print_human(timing.tick_s, 's')}: that adds "
        f"{print_human(timing.rounding_s, 's')}, summed over all events of a sample (clock.tick)"
    )


def energy_note(compiled: CompiledModel) -> str:
    """What a partly used tile pays for an MVM, in words; empty where tiles are full or pay for what they use."""
    types = compiled.chip.tile_types
    whole = any(types[op.tile_type].mvm.energy_scaling == "tile" for op in compiled.workload.analog_ops)
    use = compiled.utilization.utilization
    if not whole or use > _FULL:
        return ""
    return (
        f"An MVM is charged for the whole tile, of which this network uses {percent(use)}: "
        "--set tile.mvm.energy_scaling=used charges for the cells in use."
    )


def energy_table(timing: Timing) -> Table:
    """Energy of one sample by component."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("energy by component")
    table.add_column("a sample", justify="right")
    table.add_column("share", justify="right")
    for component, energy_j in timing.energy_by_component.items():
        share = energy_j / timing.energy_j if timing.energy_j else 0.0
        table.add_row(_COMPONENT_NAMES.get(component, component), print_human(energy_j, "J"), percent(share))
    table.add_row("sum", print_human(timing.energy_j, "J"), percent(1.0), style="bold")
    return table


def resource_table(timing: Timing, most: int = 8) -> Table:
    """The busiest resources, a sample."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("busiest resources")
    table.add_column("busy a sample", justify="right")
    table.add_column("of the interval", justify="right")
    busiest = sorted(timing.busy_ticks.items(), key=lambda item: (-item[1], item[0]))
    for name, ticks in busiest[:most]:
        table.add_row(name, print_human(ticks * timing.tick_s, "s"), percent(timing.utilization[name]))
    if len(busiest) > most:
        table.add_row(f"and {len(busiest) - most} more", "", "", style="dim")
    return table


def timing_json(timing: Timing) -> dict[str, Any]:
    """Keys of ``--json``: seconds, joules, counts."""
    counts = timing.counts
    return {
        "latency_s": timing.latency_s,
        "interval_s": timing.interval_s,
        "steady_latency_s": timing.steady_latency_s,
        "schedule": timing.schedule,
        "throughput_per_s": timing.throughput_per_s,
        "energy_j": timing.energy_j,
        "energy_by_component": timing.energy_by_component,
        "energy_by_op": timing.energy_by_op,
        "bounds": {name: bound.bound for name, bound in timing.bounds.items()},
        "counts": {
            "mvms": counts.mvms,
            "row_group_activations": counts.row_group_activations,
            "dac_conversions": counts.dac_conversions,
            "adc_conversions": counts.adc_conversions,
            "bits_moved": counts.bits_moved,
        },
        "utilization": timing.utilization,
        "rounding_s": timing.rounding_s,
        "macs": timing.macs,
        "tops": timing.tops,
        "tops_per_w": timing.tops_per_w,
    }
