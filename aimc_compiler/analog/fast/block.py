"""The digits and factors of one row block in its state at one time."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimc_compiler.analog.fast.pages import empty_pages
from aimc_compiler.analog.fast.plan import DigitPlan, plan_digits
from aimc_compiler.analog.settings import MvmSettings

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class FastBlock:
    """The weights of one group of a row block.

    digits: ((main + far + load) * columns, rows) int8; table: (9, columns) factors of each column, DIGITAL the
    unit of its output converter, FACTOR 1 and BIAS 0; constants: of the fused pass. A block is itself alone: what is
    prepared for it is kept under it.
    """

    digits: Tensor
    table: Floats
    constants: Floats
    plan: DigitPlan
    columns: int
    rows: int

    @property
    def joint(self) -> Tensor:
        """Digits that meet the codes themselves."""
        return self.digits[: (self.plan.main + self.plan.far) * self.columns]

    @property
    def load(self) -> Tensor:
        """Digits of |w|."""
        return self.digits[(self.plan.main + self.plan.far) * self.columns :]

    @property
    def power(self) -> Tensor:
        """The digit of |w| that meets the squares of the codes."""
        return self.load[: self.columns]

    @property
    def position_bytes(self) -> int:
        """Of the codes and sums of one input vector."""
        return self.rows * (1 + self.plan.power) + 4 * self.columns * self.plan.products

    def places(self, nonnegative: bool) -> Ints:
        """Where the sums of each digit begin among those of w and w p, and of |w|; of any, where there is no such.

        nonnegative: codes are their own magnitudes, so all are sums of one product.
        """
        plan = self.plan
        loads = (plan.main + plan.far if nonnegative else 0) if plan.far else 0
        planes = (
            (0, 1, plan.main - 1),
            (plan.main, plan.main + plan.far - 1) if plan.far else (0, 0),
            (loads, loads + plan.load - 1) if plan.far else (0, 0),
        )
        return np.array([plane for part in planes for plane in part], np.int64) * self.columns


def fast_block(w: Tensor, tile_row: Tensor, settings: MvmSettings, bounds: Doubles) -> FastBlock:
    """Split (columns, rows) normalised weights; tile_row: (columns,), the block's first row on its tile, j0.

    bounds: (columns,), the unit of the output converters in ``settings``, in which outputs are from the table on.
    """
    from aimc_compiler.analog.fast import digits, outputs

    columns, rows = w.shape
    values = w.numpy() if w.is_contiguous() else empty_pages((columns, rows), w.dtype).copy_(w).numpy()
    positions = 1 - (1 - np.arange(rows) / rows) ** 2
    measures, ones = np.empty((digits.MEASURES, columns)), np.ones(rows, np.float32)
    digits.measure(measures, values, positions.astype(np.float32), ones, np.empty((2, rows), np.float32))
    plan = plan_digits(measures, rows, int(tile_row.max()), settings, bounds)
    split = empty_pages(((plan.main + plan.far + plan.load) * columns, rows), torch.int8)
    steps = np.empty((3, columns), np.float32)
    digits.split(split.numpy(), steps, values, positions, plan.main, plan.far, plan.load, np.empty((2, rows)))
    step_w, step_far, step_load = steps.astype(np.float64)
    x = settings.dac_step
    top_load = step_load * 256.0 ** max(plan.load - 1, 0)
    table = np.ones((9, columns), np.float32)
    table[outputs.U] = step_w * x * 256.0 ** (plan.main - 1) / bounds
    table[outputs.FAR] = step_far * x * 256.0 ** (plan.far - 1) / bounds if plan.far else 0
    table[outputs.LOAD] = top_load * x * (rows / settings.g_ratio) if plan.far else 0
    table[outputs.FURTHER] = settings.ir_drop * tile_row.numpy() / rows
    table[outputs.POWER] = top_load * x**2 * settings.sigma_w**2 * 128 / bounds**2
    table[outputs.QUIET] = settings.sigma_out**2 / bounds**2
    table[outputs.DIGITAL] = bounds
    table[outputs.BIAS] = 0
    return FastBlock(
        digits=split, table=table, constants=_constants(plan, settings), plan=plan, columns=columns, rows=rows
    )


def _constants(plan: DigitPlan, settings: MvmSettings) -> Floats:
    from aimc_compiler.analog.fast import outputs

    constants = np.zeros(7, np.float32)
    constants[outputs.IR_DROP] = settings.ir_drop
    constants[outputs.STEP] = settings.adc_step
    constants[outputs.LEVELS] = round(settings.out_bound / settings.adc_step)
    constants[outputs.THIRD] = 1 / 256 if plan.main > 2 else 0
    constants[outputs.FAR_SECOND] = 1 / 256 if plan.far > 1 else 0
    constants[outputs.LOAD_SECOND] = 1 / 256 if plan.load > 1 else 0
    constants[outputs.POWER_SECOND] = 1 / 128 if plan.power > 1 else 0
    return constants
