"""How many digits the products of a block need, from a bound on what rounding them can do to an output.

For inputs |x| <= 1 and errors e of the rounded weights, an output moves before it is rounded by at most (all per
column, S = sum over rows of |e|, A, B, c, q, V as in ``ir_drop.py`` and ``noise.py``)::

    S(w) (1 + ir_drop j0/n q)  +  ir_drop (c'(q) (n/G) S(|w|) |B|  +  c(q) S(w p)  +  j0/G S(|w|) |u|)
      +  4 (sqrt(sigma_out^2 + sigma_w^2 dV) - sigma_out)

|B| is bounded for outputs that the converter does not clip, as sum w x p = sum w x (p - m) + m u. dV is the error of V,
from |w| and, where x^2 keeps its high digit alone, from x^2; noise counts up to four standard deviations. The bound
holds for every input; what is seen is far below it.
"""

from itertools import product

import numpy as np
import numpy.typing as npt

from aimc_compiler.analog.fast.digits import (
    MIDDLE_POSITION,
    OFF_FAR,
    OFF_LOAD1,
    OFF_LOAD2,
    OFF_W2,
    OFF_W3,
    SUM_FAR,
    SUM_SPREAD,
    SUM_W,
)
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.records import record

Doubles = npt.NDArray[np.float64]

LARGEST_DEVIATION = 0.2  # in ADC steps
_SIGMAS = 4.0
_SQUARE_OFF = 64  # of code^2, rounded to its high digit


@record
class DigitPlan:
    """Digits of w, of w p, of |w|, and of x^2; deviation: the bound, in ADC steps."""

    main: int
    far: int
    load: int
    power: int
    deviation: float

    @property
    def products(self) -> int:
        """Integer products of the block's size for each input vector."""
        return self.main + self.far + self.load + self.power


def plan_digits(measures: Doubles, rows: int, tile_row: int, settings: MvmSettings) -> DigitPlan:
    """The plan of fewest products below LARGEST_DEVIATION; the most exact one where none is (to be refused).

    measures: (MEASURES, columns) of ``digits.measure``; tile_row: the largest j0 of the block.
    """
    drops, reads = settings.ir_drop > 0, settings.sigma_w > 0
    loads = (1, 2) if drops else (1,) if reads else (0,)
    plans = [
        DigitPlan(
            main=main,
            far=2 if drops else 0,
            load=load,
            power=power,
            deviation=float(_deviation(measures, rows, tile_row, settings, main, load, power).max()),
        )
        for main, load, power in product((2, 3), loads, (1, 2) if reads else (0,))
    ]
    plans.sort(key=lambda plan: (plan.products, plan.deviation))
    within = [plan for plan in plans if plan.deviation < LARGEST_DEVIATION]
    return within[0] if within else plans[-1]


def _deviation(
    m: Doubles, rows: int, tile_row: int, settings: MvmSettings, main: int, load: int, power: int
) -> Doubles:
    """(columns,) bounds in ADC steps."""
    off_w = m[OFF_W2 if main == 2 else OFF_W3]
    off_load = m[OFF_LOAD2 if load == 2 else OFF_LOAD1]
    noise = _noise_off(m, settings, power)
    off = off_w.copy()
    if settings.ir_drop > 0:
        reach = settings.out_bound + _SIGMAS * np.sqrt(settings.sigma_out**2 + settings.sigma_w**2 * m[SUM_W])
        q = m[SUM_W] * rows / settings.g_ratio
        share = q * (q * (q * 0.05 - 0.2) + 0.5)
        slope = np.maximum(0.5, 0.5 - 0.4 * q + 0.15 * q * q)
        kept = 1 - settings.ir_drop * (share * MIDDLE_POSITION + q * tile_row / rows)
        u = (reach + settings.ir_drop * share * m[SUM_SPREAD]) / np.maximum(kept, 1e-9)
        u = np.minimum(u, m[SUM_W])
        far = np.minimum(m[SUM_SPREAD] + MIDDLE_POSITION * u, m[SUM_FAR])
        lost = slope * rows / settings.g_ratio * off_load * far + share * m[OFF_FAR]
        wire = tile_row / settings.g_ratio * (off_load * u + m[SUM_W] * off_w)
        off = off + settings.ir_drop * (lost + wire)
    return np.asarray((off + noise) / settings.adc_step)


def _noise_off(m: Doubles, settings: MvmSettings, power: int) -> Doubles:
    """From |w| in one digit, which V always has, and from x^2 in one."""
    if not power:
        return np.zeros(m.shape[1])
    variance_off = m[OFF_LOAD1] + 0.0
    if power == 1:
        variance_off += _SQUARE_OFF * settings.dac_step**2 * (m[SUM_W] + m[OFF_LOAD1])
    quiet = settings.sigma_out
    return np.asarray(_SIGMAS * (np.sqrt(quiet**2 + settings.sigma_w**2 * variance_off) - quiet))
