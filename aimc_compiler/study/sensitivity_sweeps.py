"""A* over one figure of the chip after another, everything else as it is."""

from collections.abc import Callable, Mapping, Sequence

from aimc_compiler.chip import ChipSpec
from aimc_compiler.errors import AimcError, DataError
from aimc_compiler.records import record
from aimc_compiler.study.chip_scores import ChipScores
from aimc_compiler.study.confidence import Bootstrap
from aimc_compiler.study.knobs import Knob, find_knob, scaled_g_max
from aimc_compiler.study.sensitivity_results import SensitivitySweep, SweepPoint

_BITS = (2, 3, 4, 5, 6, 7, 8, 10)
_STUCK = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
_FACTORS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
_DAY_S, _YEAR_S = 86_400.0, 31_536_000.0

#: What is swept, and over which values.
SWEEPS: dict[str, tuple[float, ...]] = {
    "dac_quantisation": _BITS,
    "adc_quantisation": _BITS,
    "g_max": (0.25, 0.5, 1.0, 2.0, 4.0),
    "all_noise": _FACTORS,
    "time": (1.0, 60.0, 3600.0, _DAY_S, 30 * _DAY_S, _YEAR_S, 10 * _YEAR_S),
    "ir_drop": (0.0, 0.5, 1.0, 2.0, 4.0, 8.0),
    "stuck_at_zero": _STUCK,
    "stuck_at_g_max": _STUCK,
    "stuck_random": _STUCK,
}
#: Those that are no effects.
_OWN = ("time", "g_max")


@record
class _Swept:
    title: str
    unit: str
    own: float | None
    at: Callable[[float], tuple[float, ...]]


def sweep_figures(
    scores: ChipScores, chosen: Mapping[str, Sequence[float]], bootstrap: Bootstrap, advance: Callable[[str], None]
) -> tuple[SensitivitySweep, ...]:
    """A* at every value. chosen: values by name, a name of ``SWEEPS`` or of an effect that has a scale.

    Raises DataError on another name, and where the chip has nothing that it scales.
    """
    found = []
    for name, values in chosen.items():
        swept = _swept(name, scores)
        points = tuple(_point(swept, float(value), bootstrap) for value in values)
        found.append(SensitivitySweep(name=name, title=swept.title, unit=swept.unit, own=swept.own, points=points))
        advance(f"sweep of {name}")
    return tuple(found)


def usual_sweeps(chip: ChipSpec) -> tuple[dict[str, tuple[float, ...]], tuple[str, ...]]:
    """``SWEEPS`` as far as the chip has what they scale, and why others are left out."""
    kept, notes = {}, []
    for name, values in SWEEPS.items():
        try:
            if name not in _OWN:
                find_knob(name, chip)
        except DataError as error:
            notes.append(f"not swept: {error}")
            continue
        kept[name] = values
    return kept, tuple(notes)


def _point(swept: _Swept, value: float, bootstrap: Bootstrap) -> SweepPoint:
    try:
        return SweepPoint(value=value, a_star=bootstrap.estimate(swept.at(value)))
    except AimcError as error:
        return SweepPoint(value=value, a_star=None, note=str(error))


def _swept(name: str, scores: ChipScores) -> _Swept:
    chip = scores.compiled.chip
    if name == "time":
        at = scores.time_s
        return _Swept(title="time after programming", unit="s", own=at, at=lambda t: scores.of(time_s=t))
    if name == "g_max":
        return _Swept(
            title="largest conductance, with that of the IR drop",
            unit="factor",
            own=1.0,
            at=lambda factor: scores.of(scaled_g_max(chip, factor)),
        )
    knob = find_knob(name, chip)
    if knob.kind == "switch":
        raise DataError(f"effect {name} is on or off: it has no scale to sweep; leave it out")
    own = 1.0 if knob.kind == "factor" else float(knob.figure) if knob.kind == "bits" and knob.is_on else None
    unit = "factor" if knob.kind == "factor" else knob.unit
    return _Swept(title=knob.title, unit=unit, own=own, at=lambda value: scores.of(_turned(knob, chip, value)))


def _turned(knob: Knob, chip: ChipSpec, value: float) -> ChipSpec:
    return knob.off(chip) if value == 0 else knob.turned(chip, value)
