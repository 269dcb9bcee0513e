"""Device models: the figures of each, without torch. ``aimc_compiler.analog.devices`` holds their functions.

Throughout, r is a device's target conductance over g_max (for the read noise: its programmed conductance over g_max).
"""

from typing import Literal, get_args

from aimc_compiler.records import record

DeviceModel = Literal["pcm", "pcm_hermes_two", "pcm_hermes_one", "reram_wan2022", "cells"]


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
class Device:
    """An entry of the table. figures: None where only mapping and timing are built."""

    title: str
    source: str
    figures: PcmFigures | None = None


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
        title="HfO2 resistive memory of NeuRRAM", source="Wan et al., Nature 608, 504 (2022); mapping and timing only"
    ),
    "cells": Device(
        title="multi-bit cells without device statistics",
        source="Shafiee et al., ISCA (2016); mapping and timing only",
    ),
}

assert set(DEVICES) == set(get_args(DeviceModel))
