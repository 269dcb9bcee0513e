"""What a column does to its sum besides the IR drop and noise: voltage offset, series resistance, S-shape.

After the public toolkit of Rasch et al., Nat. Commun. 14, 5282 (2023) (version 1.2.0). Off in the standard model.
"""

from torch import Tensor

from aimc_compiler.analog.columns import ColumnFigures
from aimc_compiler.analog.settings import MvmSettings


def bias_column(u: Tensor, total: Tensor | None, figures: ColumnFigures, settings: MvmSettings) -> Tensor:
    """Voltage offset v and series resistance rs. u: outputs; total: sum_j x_j, broadcasting to u, None where m = 0.

    A single-ended column, m = 0: ``(1 - v) u / (1 + rs |u|)``. A column beside a reference at weight m, with the
    reference current ``R = -m sum_j x_j``: ``(1 - v) (u + R) / (1 + rs |u + R|) - (1 + v) R / (1 + rs |R|)``.
    """
    v = figures.voltage_offset
    if total is None:
        return _in_series(u, settings.r_series) * (1 - v)
    reference = total * -settings.reference_weight
    sensed = _in_series(u + reference, settings.r_series) * (1 - v)
    return sensed - _in_series(reference, settings.r_series) * (1 + v)


def s_shape(u: Tensor, figures: ColumnFigures) -> Tensor:
    """``F u / (1 + n_i |u|)``, F the calibration of the slope."""
    return u * figures.slope / (u.abs() * figures.bend + 1)


def _in_series(current: Tensor, resistance: float) -> Tensor:
    return current / (current.abs() * resistance + 1) if resistance else current
