"""What ``fast`` takes, and why it does not take the rest."""

from dataclasses import fields
from difflib import get_close_matches
from math import inf, isfinite
from typing import Literal

import torch

from aimc_compiler.analog.contraction import Contraction
from aimc_compiler.analog.fast.units import missing_units
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.errors import DataError
from aimc_compiler.records import record

Precision = Literal["exact", "fast", "auto"]
PRECISIONS: tuple[Precision, ...] = ("exact", "fast", "auto")

# Settings of the standard model, and those that do nothing without another that is not.
_MODELLED = frozenset(
    [
        "in_bound",
        "dac_step",
        "adc_step",
        "out_bound",
        "sigma_in",
        "sigma_out",
        "sigma_w",
        "read_noise",
        "ir_drop",
        "g_ratio",
        "scaling_bound",
        "sum_share",
        "inl_bound",
        "reference_weight",
        "s_shape_std",
        "columns_per_adc",
        "mismatch_calibrated",
        "gain_residual",
        "offset_residual",
        "ir_drop_load",
        "slope_span",
        "input_code",
        "accumulate",
        "own_bounds",
    ]
)
_MOST_LEVELS = 1 << 21
_MOST_ROWS = 1 << 16
_FEWEST_ROWS = 2
_FEWEST_CELLS = 64


@record
class Choice:
    """The precision an operation runs in; reason: why not ``fast`` (empty where it is)."""

    precision: Literal["exact", "fast"]
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.precision} ({self.reason})" if self.reason else self.precision


def parse_precision(text: str) -> Precision:
    """One of PRECISIONS by its name. Raises DataError."""
    for precision in PRECISIONS:
        if text == precision:
            return precision
    near = get_close_matches(str(text), PRECISIONS, n=1)
    hint = f": did you mean {near[0]!r}?" if near else "."
    raise DataError(f"no precision is called {text!r}{hint} There are {', '.join(PRECISIONS)}")


def choose(
    asked: Precision,
    settings: MvmSettings,
    contraction: Contraction,
    shape: tuple[int, int, tuple[int, ...]],
    dtype: torch.dtype,
    device: torch.device,
) -> Choice:
    """How an operation runs; shape: its groups, columns, and rows of each row block; dtype, device: it computes in."""
    if asked == "exact":
        return Choice(precision="exact", reason="as asked")
    reason = not_modelled(settings) or _unfit(contraction, shape, dtype, device) or missing_units()
    return Choice(precision="exact", reason=reason) if reason else Choice(precision="fast")


def not_modelled(settings: MvmSettings) -> str | None:
    """The first of the settings that ``fast`` does not model; None where it models all."""
    neutral = MvmSettings()
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name not in _MODELLED and value != getattr(neutral, field.name):
            return f"{field.name} {value} is not built in fast"
    checks = (
        (settings.dac_step < 1 / 127.5, "inputs without converters, or of more than 8 bits"),
        (settings.in_bound != 1.0, "inputs that are not clipped to their range"),
        (settings.sigma_in > 0, "input noise"),
        (settings.adc_step == 0, "outputs without converters"),
        (settings.out_bound == inf, "outputs that are not clipped"),
        (settings.sigma_w > 0 and settings.read_noise != "pcm", f"read noise {settings.read_noise!r}"),
        (settings.bends, "an S-shape"),
        (not isfinite(settings.g_ratio) and settings.ir_drop > 0, "IR drop without wires"),
    )
    for wrong, reason in checks:
        if wrong:
            return f"{reason}: not built in fast"
    if settings.out_bound / settings.adc_step > _MOST_LEVELS:
        return f"an output converter of more than {_MOST_LEVELS} levels a side"
    return None


def _unfit(
    contraction: Contraction, shape: tuple[int, int, tuple[int, ...]], dtype: torch.dtype, device: torch.device
) -> str | None:
    groups, columns, rows = shape
    if device.type != "cpu":
        return f"integer products are built for the CPU, not for {device.type}"
    if dtype != torch.float32:
        return f"fast computes in float32, not {str(dtype).removeprefix('torch.')}"
    if contraction.kind == "conv3d":
        return "a convolution in three dimensions: not built in fast"
    if max(rows) > _MOST_ROWS:
        return f"a row block of {max(rows)} rows: sums of integer products could overflow"
    if min(rows) < _FEWEST_ROWS:
        return "a row block of one row, which torch's 8-bit product gets wrong"
    if groups > 1 and columns * sum(rows) < _FEWEST_CELLS:
        return f"{groups} groups of {columns} x {sum(rows)} cells: too small for integer products to pay"
    return None
