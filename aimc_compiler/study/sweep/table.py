"""What a sweep found: a row for each setting and time, over its chips. The same cells give the same bytes."""

import csv
import io
import json
import statistics
from typing import Any

from aimc_compiler.metrics import normalised
from aimc_compiler.records import record
from aimc_compiler.study.sweep.definition import Cell, Sweep

_FIGURES = ("tiles", "latency_s", "interval_s", "energy_j")


@record
class SweepRow:
    """One setting at one time. setting: what varies, by name; values: the metric of each chip; std: None for one chip;
    a_star: None where chance is unknown or the float network no better; tiles, latency_s, interval_s, energy_j: of the
    program, of one sample, None where it is not timed; precision: operations by how they were computed, of the first
    chip; repeated_energy_j: of what bound management repeated in all scored runs of the setting together."""

    setting: dict[str, Any]
    time_s: float
    mean: float
    std: float | None
    a_star: float | None
    values: tuple[float, ...]
    tiles: int
    latency_s: float | None
    interval_s: float | None
    energy_j: float | None
    precision: dict[str, int]
    repeated_energy_j: float
    held_after_s: float | None


@record
class SweepResult:
    """All rows, settings in order and times inside. axes: names of what varies."""

    network: str
    chip: str
    axes: tuple[str, ...]
    metric: str
    float_metric: float
    chance: float | None
    n_chips: int
    n_samples: int
    seed: int
    rows: tuple[SweepRow, ...]


def gather(
    sweep: Sweep, results: dict[str, dict[str, Any]], reference: dict[str, Any], programs: list[dict[str, Any]]
) -> SweepResult:
    """results: of every cell by name; programs: what there is to say of the program of each setting."""
    rows: list[SweepRow] = []
    base, best = reference["chance"], reference["float_metric"]
    for setting, program in zip(sweep.settings, programs, strict=True):
        cells = [results[Cell(setting=setting.index, chip_index=chip).name] for chip in range(sweep.n_chips)]
        for place, time_s in enumerate(sweep.times_s):
            values = tuple(cell["values"][place] for cell in cells)
            mean = statistics.fmean(values)
            known = base is not None and best > base
            rows.append(
                SweepRow(
                    setting=dict(setting.values),
                    time_s=time_s,
                    mean=mean,
                    std=statistics.stdev(values) if len(values) > 1 else None,
                    a_star=normalised(mean, float_value=best, chance=base) if known else None,
                    values=values,
                    precision=cells[0]["precision"],
                    repeated_energy_j=sum(cell["repeated"]["energy_j"] for cell in cells),
                    held_after_s=program["held_after_s"],
                    **{name: program[name] for name in _FIGURES},
                )
            )
    return SweepResult(
        network=sweep.network,
        chip=sweep.chip.name,
        axes=sweep.axes,
        metric=sweep.metric,
        float_metric=best,
        chance=base,
        n_chips=sweep.n_chips,
        n_samples=reference["n_samples"],
        seed=sweep.seed,
        rows=tuple(rows),
    )


def result_json(result: SweepResult) -> dict[str, Any]:
    """Keys of ``sweep --json`` and of results.json: metric as a fraction, SI units."""
    common = ("network", "chip", "metric", "float_metric", "chance", "n_chips", "n_samples", "seed")
    fields = ("setting", "time_s", "mean", "std", "a_star", *_FIGURES, "precision", "repeated_energy_j", "held_after_s")
    return {
        **{name: getattr(result, name) for name in common},
        "axes": list(result.axes),
        "rows": [{**{name: getattr(row, name) for name in fields}, "values": list(row.values)} for row in result.rows],
    }


def json_text(result: SweepResult) -> str:
    """The text of results.json."""
    return json.dumps(result_json(result), indent=1) + "\n"


def csv_text(result: SweepResult) -> str:
    """The text of results.csv: a column for each axis, then time, metric over chips and the program's figures."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    fields = ("time_s", "mean", "std", "a_star", *_FIGURES)
    writer.writerow([*result.axes, *fields, "float_metric", "n_chips"])
    for row in result.rows:
        numbers = [getattr(row, name) for name in fields]
        shown = ["" if number is None else number for number in numbers]
        writer.writerow([*(row.setting[axis] for axis in result.axes), *shown, result.float_metric, result.n_chips])
    return buffer.getvalue()
