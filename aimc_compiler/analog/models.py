"""From a device's figures to its conductances at a time: one function a kind of figures, by table.

A device of one's own whose statistics are of a new kind is a record of figures, an entry of
``aimc_compiler.chip.register_device`` that holds them, and a function registered here::

    register_statistics(MyFigures, my_conductances)

The function is given (targets, normals, figures, effects, time_s): targets over g_max, any shape; ``normals(purpose,
*more)``, standard normals of that shape from a stream of that name; the factors of ``nonidealities.device``; seconds
after programming, None for right after programming, before drift and accumulated noise. It returns conductances over
g_max, not negative, as a function of these alone.
"""

from collections.abc import Callable
from math import log
from typing import Any

import torch
from torch import Tensor

from aimc_compiler.analog.devices import polynomial
from aimc_compiler.analog.pcm import (
    Normals,
    accumulate_read_noise,
    drift,
    drift_exponents,
    log_time_draw,
    noise_clock,
    program,
    write_and_verify,
)
from aimc_compiler.chip.devices import DeviationFigures, PcmFigures
from aimc_compiler.chip.stored import DeviceNonidealities
from aimc_compiler.errors import AimcError
from aimc_compiler.units import print_time

Statistics = Callable[[Tensor, Normals, Any, DeviceNonidealities, float | None], Tensor]


def time_name(time_s: float) -> str:
    """How a time enters the name of a stream: exactly."""
    return repr(float(time_s) + 0.0)  # -0.0 is 0.0


def pcm_conductances(
    targets: Tensor, normals: Normals, figures: PcmFigures, effects: DeviceNonidealities, time_s: float | None
) -> Tensor:
    """Phase-change memory: programmed once, drifting, with accumulated read noise."""
    programmed = targets
    if effects.programming_noise and effects.write_verify:
        rule = effects.write_verify
        programmed, _ = write_and_verify(targets, normals, figures, effects.programming_noise, rule)
    elif effects.programming_noise:
        programmed = program(targets, normals("programming"), figures, effects.programming_noise)
    if time_s is None:
        return programmed
    g = programmed
    if effects.drift:
        g = drift(programmed, drift_exponents(targets, normals("drift"), figures, effects.drift), time_s, figures)
    if effects.accumulated_read_noise:
        if effects.read_noise_process == "log_time":
            draw = log_time_draw(normals, "accumulated read noise process", noise_clock(time_s, figures))
        else:
            draw = normals("accumulated read noise", time_name(time_s))
        g = accumulate_read_noise(g, programmed, draw, time_s, figures, effects.accumulated_read_noise)
    return g


def deviating_conductances(
    targets: Tensor, normals: Normals, figures: DeviationFigures, effects: DeviceNonidealities, time_s: float | None
) -> Tensor:
    """Resistive memory: off the target by a deviation that is drawn anew at each time; ``programming_noise`` scales it.

    Wan et al., Nature 608, 504 (2022). Right after programming the deviation is that of the first fit. Raises AimcError
    after the last fit, unless the figures hold it.
    """
    if not effects.programming_noise:
        return targets
    named = "programming" if time_s is None else time_name(time_s)
    sd = deviation_sd_us(targets, figures, figures.times_s[0] if time_s is None else time_s)
    return (targets + sd * normals("deviation", named) * (effects.programming_noise / figures.g_max_us)).clamp(min=0)


def deviation_sd_us(r: Tensor, figures: DeviationFigures, time_s: float) -> Tensor:
    """Standard deviation in uS at g_max of the fit: linear in ln t between two fits, the first one before it."""
    times = figures.times_s
    if time_s > times[-1] and not figures.hold:
        raise AimcError(
            f"time {print_time(time_s)}: the deviations of this device were measured until {print_time(times[-1])}; "
            "ask for an earlier time, or set tile.device.extrapolate to hold, which keeps the last ones"
        )
    time_s = min(max(time_s, times[0]), times[-1])
    after = next(index for index, fit_s in enumerate(times) if fit_s >= time_s)
    sd = polynomial(r, figures.deviation_us[after])
    if times[after] > time_s:
        share = log(time_s / times[after - 1]) / log(times[after] / times[after - 1])
        sd = torch.lerp(polynomial(r, figures.deviation_us[after - 1]), sd, share)
    return sd.clamp(min=0)


STATISTICS: dict[type, Statistics] = {PcmFigures: pcm_conductances, DeviationFigures: deviating_conductances}


def register_statistics(figures_type: type, function: Statistics) -> None:
    """Compute conductances of figures of this type with ``function``. Raises AimcError where one is registered."""
    if figures_type in STATISTICS:
        raise AimcError(
            f"figures of type {figures_type.__name__} have their function already: register a type of your own"
        )
    STATISTICS[figures_type] = function


def statistics_of(figures: object) -> Statistics:
    """The function for ``figures``. Raises AimcError where there is none."""
    if type(figures) not in STATISTICS:
        raise AimcError(
            f"device figures of type {type(figures).__name__} have no function: call register_statistics "
            "of aimc_compiler.analog.models with that type before the chip is deployed"
        )
    return STATISTICS[type(figures)]
