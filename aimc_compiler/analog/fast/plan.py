"""How many digits the products of a block need, from a bound on what rounding them can do to an output.

For inputs |x| <= 1 and errors e of the rounded weights, an output moves before it is rounded by at most (all per
column, S = sum over rows of |e|, A, B, c, q, V as in ``ir_drop.py`` and ``noise.py``)::

    S(w) + ir_drop (c'(q) (n/G) |dA B| + c(q) S(w p) + j0/G (|dA| |u| + A S(w)))
         + 4 (sqrt(sigma_out^2 + sigma_w^2 V) - sqrt(sigma_out^2 + sigma_w^2 (V - dV)))

dA is the error of A. B = sum w x (p - m) + m u; u is that of outputs the converter does not clip, and dA times the sum
is bounded at once, as no input makes both largest. dV is the error of V: from |w|, where large errors need large
weights and so a large V, and, where x^2 keeps its high digit alone, from x^2. Noise counts up to four standard
deviations. The bound holds for every input; what is seen is far below it.
"""

from itertools import product

import numpy as np
import numpy.typing as npt

from aimc_compiler.analog.fast.digits import (
    BUCKETS,
    EDGES,
    JOINT,
    MIDDLE_POSITION,
    OFF_FAR1,
    OFF_FAR2,
    OFF_LOAD1,
    OFF_LOAD2,
    OFF_W,
    STEP_W,
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
# The first of two digits is not quite one digit: it is rounded twice.
_ROUNDED_TWICE = 1.01
_PARTS = 4  # of a bucket, for a bound that is not much above the largest value


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


def plan_digits(measures: Doubles, rows: int, tile_row: int, settings: MvmSettings, bounds: Doubles) -> DigitPlan:
    """The plan of fewest products below LARGEST_DEVIATION; the most exact one where none is (to be refused).

    measures: (MEASURES, columns) of ``digits.measure``; tile_row: the largest j0 of the block; bounds: (columns,), the
    unit of the output converters in ``settings``.
    """
    drops, reads = settings.ir_drop > 0, settings.sigma_w > 0
    main = {digits: _main_off(measures, rows, digits) for digits in (2, 3)}
    power = {digits: _noise_off(measures, settings, digits) for digits in ((1, 2) if reads else (0,))}
    drop = {(0, 1 if reads else 0): np.zeros(measures.shape[1])}
    if drops:
        drop = {
            (far, load): _drop_off(measures, rows, tile_row, settings, settings.out_bound * bounds, far, load)
            for far, load in product((1, 2), (1, 2))
        }
    plans = []
    for (digits, off_w), ((far, load), off_drop), (squares, off_noise) in product(
        main.items(), drop.items(), power.items()
    ):
        deviation = float(((off_w + off_drop + off_noise) / bounds).max()) / settings.adc_step
        plans.append(DigitPlan(main=digits, far=far, load=load, power=squares, deviation=deviation))
    plans.sort(key=lambda plan: (plan.products, plan.deviation))
    within = [plan for plan in plans if plan.deviation < LARGEST_DEVIATION]
    return within[0] if within else min(plans, key=lambda plan: plan.deviation)


def _main_off(m: Doubles, rows: int, digits: int) -> Doubles:
    """Three digits are bounded by half a unit each, which is less than what float32 loses."""
    return np.asarray(m[OFF_W] if digits == 2 else m[STEP_W] * (rows / 2 / (127 * 65536)))


def _drop_off(
    m: Doubles, rows: int, tile_row: int, settings: MvmSettings, bound: Doubles, far: int, load: int
) -> Doubles:
    reach = bound + _SIGMAS * np.sqrt(settings.sigma_out**2 + settings.sigma_w**2 * m[SUM_W])
    per_row = 1 / settings.g_ratio
    q = m[SUM_W] * rows * per_row
    share = q * (q * (q * 0.05 - 0.2) + 0.5)
    slope = np.maximum(0.5, 0.5 - 0.4 * q + 0.15 * q * q)
    kept = 1 - settings.ir_drop * (share * MIDDLE_POSITION + q * tile_row / rows)
    u = (reach + settings.ir_drop * share * m[SUM_SPREAD]) / np.maximum(kept, 1e-9)
    u = np.minimum(u, m[SUM_W])
    if load == 1:
        off_load, both = m[OFF_LOAD1], m[JOINT]
    else:
        off_load = m[OFF_LOAD2]
        both = off_load * np.minimum(m[SUM_SPREAD], m[SUM_FAR] + MIDDLE_POSITION * u)
    lost = slope * rows * per_row * (both + off_load * MIDDLE_POSITION * u)
    lost = lost + share * m[OFF_FAR1 if far == 1 else OFF_FAR2]
    wire = tile_row * per_row * (off_load * u + m[SUM_W] * m[OFF_W])
    return np.asarray(settings.ir_drop * (lost + wire))


def _noise_off(m: Doubles, settings: MvmSettings, power: int) -> Doubles:
    """From |w| in one digit, which V always has, and from x^2 in one."""
    if not power:
        return np.zeros(m.shape[1])
    quiet, per_power = settings.sigma_out**2, settings.sigma_w**2
    off, least, total = np.zeros((3, m.shape[1]))
    # Smallest weights first: of each bucket an error of at most |w| / (2 edge), so its V is at least 2 edge errors.
    for k, edge in enumerate(np.repeat(EDGES, _PARTS)):
        errors = m[BUCKETS + k // _PARTS] * (_ROUNDED_TWICE / _PARTS)
        total = total + errors
        v = np.maximum(least, total)
        off = np.maximum(off, np.sqrt(quiet + per_power * v) - np.sqrt(quiet + per_power * (v - total)))
        least = least + errors * max(1.0, 2 * edge)
    if power == 1:
        squares = _SQUARE_OFF * settings.dac_step**2 * (m[SUM_W] + m[OFF_LOAD1])
        off = off + np.sqrt(quiet + per_power * squares) - np.sqrt(quiet)
    return np.asarray(_SIGMAS * off)
