"""Device models: the figures of each, without torch. ``aimc_compiler.analog.models`` holds their functions.

Throughout, r is a device's target conductance over g_max (for the read noise: its programmed conductance over g_max).

A device of one's own is registered as the built-in ones are, before the spec that names it is read: its figures here,
with ``register_device``; where they are of a new kind, the function of that kind with
``aimc_compiler.analog.models.register_statistics``.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aimc_compiler.errors import SpecError
from aimc_compiler.records import record

if TYPE_CHECKING:
    from aimc_compiler.chip.stored import Device as DeviceSpec


@record
class LogClip:
    """``clip(slope ln r + offset, low, high)`` below ``threshold``; there and above it, a polynomial in r if given.

    polynomial: coefficients from r^0 upwards.
    """

    slope: float
    offset: float
    low: float
    high: float
    threshold: float = float("inf")
    polynomial: tuple[float, ...] = ()


@record
class PowerClip:
    """``min(factor / max(r^exponent, floor), high)``: the standard model's read-noise amplitude."""

    factor: float
    exponent: float
    floor: float
    high: float


@record
class PcmFigures:
    """Phase-change memory after Nandakumar et al. (ICECS 2019): programming noise, drift, 1/f read noise.

    g_max_us: the conductance the fits were made at, in uS; t0_s: from programming to the first read; t_read_s:
    duration of a read; programming_us: standard deviation of the programmed conductance, polynomial in r, in uS at
    ``g_max_us`` (it scales with g_max); nu_mean, nu_sd: of the drift exponent; q: read-noise amplitude.
    """

    g_max_us: float
    t0_s: float
    t_read_s: float
    programming_us: tuple[float, ...]
    nu_mean: LogClip
    nu_sd: LogClip
    q: LogClip | PowerClip


@record
class DeviationFigures:
    """Resistive memory that does not drift: a deviation from the target that is drawn anew at each time.

    g_max_us: the conductance of the fits, in uS; times_s: of the fits, rising; deviation_us: standard deviation at each
    of them, polynomial in r, in uS, coefficients from r^0 upwards; hold: the last fit goes on after its time.
    """

    g_max_us: float
    times_s: tuple[float, ...]
    deviation_us: tuple[tuple[float, ...], ...]
    hold: bool = False


@record
class Device:
    """An entry of the table. figures: None where devices are ideal; figures_for: makes them of a spec's device section.

    The type of the figures says which function computes with them (``aimc_compiler.analog.models.STATISTICS``).
    """

    title: str
    source: str
    figures: Any = None
    figures_for: "Callable[[DeviceSpec], Any] | None" = None


def register_device(name: str, device: Device) -> None:
    """Make ``device.model: name`` known to specs that are read from now on. Raises SpecError where it is already.

    >>> register_device("my_pcm", Device(title="PCM at 30 uS", source="own data", figures=DEVICES["pcm"].figures))
    >>> from aimc_compiler.chip import load_chip
    >>> load_chip("hermes", ["tile.device.model=my_pcm"]).tile.device.model
    'my_pcm'
    """
    if name in DEVICES:
        raise SpecError(f"a device called {name!r} is registered already ({DEVICES[name].title}): give another name")
    DEVICES[name] = device


def device_figures(device: "DeviceSpec") -> Any:
    """The figures of a spec's device section; None for ideal devices."""
    entry = DEVICES[device.model]
    return entry.figures if entry.figures_for is None else entry.figures_for(device)


def held_after_s(device: "DeviceSpec") -> float | None:
    """After this time the device's statistics are its last ones, held on; None where nothing is held."""
    figures = device_figures(device)
    return figures.times_s[-1] if isinstance(figures, DeviationFigures) and figures.hold else None


def _held(device: "DeviceSpec") -> DeviationFigures:
    return replace(_WAN_2022, hold=device.extrapolate == "hold")


def _state_independent(device: "DeviceSpec") -> PcmFigures:
    return PcmFigures(
        g_max_us=device.g_max_s * 1e6,
        t0_s=20.0,
        t_read_s=250e-9,
        programming_us=(0.2,),
        nu_mean=_polynomial(0.1),
        nu_sd=_polynomial(0.05),
        q=_polynomial(),
    )


def _custom(device: "DeviceSpec") -> PcmFigures:
    custom = device.custom
    assert custom is not None  # checks.device_is_known
    return PcmFigures(
        g_max_us=device.g_max_s * 1e6,
        t0_s=custom.t0_s,
        t_read_s=custom.t_read_s,
        programming_us=custom.programming_us,
        nu_mean=_polynomial(*custom.drift_mean),
        nu_sd=_polynomial(*custom.drift_sd),
        q=_polynomial(*custom.read),
    )


def _polynomial(*coefficients: float) -> LogClip:
    """A plain polynomial in r; none is 0."""
    return LogClip(slope=0.0, offset=0.0, low=0.0, high=0.0, threshold=float("-inf"), polynomial=coefficients)


_WAN_2022 = DeviationFigures(
    g_max_us=40.0,
    times_s=(1.0, 86_400.0, 172_800.0),
    deviation_us=(
        (0.348, 16.030, -43.853, 45.393, -16.815),
        (0.701, 22.086, -50.7, 47.09, -16.458),
        (0.782, 20.274, -43.507, 37.062, -11.934),
    ),
)

_NU_MEAN_HERMES = LogClip(
    slope=-0.0387, offset=-0.0182, low=0.072, high=0.13, threshold=0.0945, polynomial=(0.0736, -0.0126, -0.0436)
)

DEVICES: dict[str, Device] = {
    "pcm": Device(
        title="doped Ge2Sb2Te5 phase-change memory, the standard model",
        source="Rasch et al., Nat. Commun. 14, 5282 (2023), Methods; Nandakumar et al., ICECS (2019)",
        figures=PcmFigures(
            g_max_us=25.0,
            t0_s=20.0,
            t_read_s=250e-9,
            programming_us=(0.26348, 1.9650, -1.1731),
            nu_mean=LogClip(slope=-0.0155, offset=0.0244, low=0.049, high=0.1),
            nu_sd=LogClip(slope=-0.0125, offset=-0.0059, low=0.008, high=0.045),
            q=PowerClip(factor=0.0088, exponent=0.65, floor=1e-3, high=0.2),
        ),
    ),
    "pcm_hermes_two": Device(
        title="phase-change memory of the HERMES project chip, two devices a polarity",
        source="Le Gallo et al., Nat. Electron. 6, 680 (2023); fits of the chip's public noise model",
        figures=PcmFigures(
            g_max_us=20.7,
            t0_s=300.0,
            t_read_s=512e-9,
            programming_us=(0.16603222, 4.71806468, -8.48101252, 4.68961419),
            nu_mean=_NU_MEAN_HERMES,
            nu_sd=LogClip(
                slope=-0.0117,
                offset=-0.0057,
                low=0.0091,
                high=0.04,
                threshold=0.3055,
                polynomial=(0.0073, 0.0093, -0.0118),
            ),
            q=LogClip(
                slope=-0.0117,
                offset=-0.0069,
                low=0.015,
                high=0.04,
                threshold=0.16,
                polynomial=(0.0123, 0.0211, -0.0280, 0.0069),
            ),
        ),
    ),
    "pcm_hermes_one": Device(
        title="phase-change memory of the HERMES project chip, one device a polarity",
        source="Le Gallo et al., Nat. Electron. 6, 680 (2023); fits of the chip's public noise model",
        figures=PcmFigures(
            g_max_us=10.35,
            t0_s=200.0,
            t_read_s=512e-9,
            programming_us=(0.15781817, 2.32443916, -2.16310839, 0.68841818),
            nu_mean=_NU_MEAN_HERMES,
            nu_sd=LogClip(
                slope=-0.0120,
                offset=-0.0023,
                low=0.0124,
                high=0.04,
                threshold=0.3039,
                polynomial=(0.0104, 0.0116, -0.0165),
            ),
            q=LogClip(
                slope=-0.0078,
                offset=0.0038,
                low=0.0179,
                high=0.04,
                threshold=0.1591,
                polynomial=(0.0088, 0.0768, -0.1352, 0.0664),
            ),
        ),
    ),
    "reram_wan2022": Device(
        title="HfO2 resistive memory of NeuRRAM: deviations that were measured, drawn anew at each time",
        source="Wan et al., Nature 608, 504 (2022), fits of its data in its public code",
        figures_for=_held,
    ),
    "state_independent": Device(
        title="deviation and drift that are the same at every conductance: 0.2 uS, nu 0.1 +- 0.05",
        source="a usual baseline of simulation toolkits; t0 as in pcm",
        figures_for=_state_independent,
    ),
    "custom": Device(
        title="polynomials of the spec's own, in device.custom",
        source="the spec",
        figures_for=_custom,
    ),
    "cells": Device(
        title="ideal multi-bit cells, without device statistics",
        source="Shafiee et al., ISCA (2016)",
    ),
}
