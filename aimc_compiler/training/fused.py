"""A row block of a mini-batch in few passes: the standard model of training on the CPU, in float32.

Everything else goes through the functions of ``aimc_compiler.analog`` one by one; values and gradients are the same
(normals of output noise are keyed by row and column here, by piece there).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimc_compiler.analog.contraction import Contraction
from aimc_compiler.analog.finish import is_standard
from aimc_compiler.analog.pool import spread_rows
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.records import record
from aimc_compiler.training.products import product
from aimc_compiler.training.ranges import RangeRule
from aimc_compiler.training.weights import TERMS

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# Elements that are worth another thread.
_THREAD_WORTH = 1 << 16


def fuses(settings: MvmSettings) -> bool:
    """Whether row blocks of these settings can be computed here."""
    return bool(
        is_standard(replace(settings, adc_step=settings.adc_step or 1.0))
        and not (settings.ir_drop or settings.unfolds or settings.dac_inl or settings.input_asymmetry)
        and settings.input_scaling == "none"
        and settings.in_bound == 1.0
    )


@cache
def side_type() -> torch.dtype:
    """Of the products that give the variance of the read noise. In bfloat16, where the processor multiplies it, the
    noise's standard deviation is off by 0.1 % or so, by chance, and the product takes a third of the time."""
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if has else torch.float32


@record
class FusedBlock:
    """The weights of a row block in a mini-batch, as ``Contraction.multiply`` takes them. magnitude: without gradient,
    empty where nothing reads it."""

    main: Tensor
    magnitude: Tensor


@record
class Disturbance:
    """Programming noise of a row block. terms: coefficients of its deviation over g_max, from r^0 up, at most TERMS;
    key: of its normals; rescale: whether the columns' scales are taken from these weights first."""

    terms: tuple[float, ...]
    key: int
    rescale: bool


def disturbed(weight: Tensor, scales: Tensor, how: Disturbance, *, magnitude: bool) -> tuple[Tensor, Tensor]:
    """(weights of the mini-batch, in the network's units; their magnitudes, or an empty tensor).

    weight: (groups, columns, rows); scales: (groups, columns), filled if ``how.rescale``. The gradient goes to the
    clean weight; magnitudes have none.
    """
    result: tuple[Tensor, Tensor] = _Disturbed.apply(weight, scales, how, magnitude)  # type: ignore[no-untyped-call]
    return result


class _Disturbed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scales: Tensor, how: Disturbance, magnitude: bool) -> tuple[Tensor, Tensor]:
        from aimc_compiler.training.kernels import PART, SCRATCH, disturb

        rows = weight.shape[0] * weight.shape[1]
        flat = weight.detach().reshape(rows, -1).contiguous()
        noisy = torch.empty_like(flat)
        sizes = torch.empty_like(flat) if magnitude else flat.new_empty((0, flat.shape[1]))
        arrays: Any = [each.numpy() for each in (noisy, sizes, scales.view(-1), flat)]
        terms = np.zeros(TERMS, np.float32)
        terms[: len(how.terms)] = how.terms

        def work(first: int, last: int) -> None:
            scratch = np.empty((SCRATCH, PART + 8), np.float32)
            _any(disturb)(*arrays, terms, np.uint64(how.key), how.rescale, first, last, scratch)

        _in_parts(work, rows, flat.numel())
        ctx.set_materialize_grads(False)
        made = noisy.reshape(weight.shape), sizes.reshape(weight.shape) if magnitude else sizes
        ctx.mark_non_differentiable(made[1])
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        return gradient, None, None, None


@record
class Passes:
    """What a row block does with its inputs. step: of the input converter, 0 for none; rule: of the input range; read,
    output: variances of the noise; out_step, bound: of the output converter; key: of the normals."""

    contraction: Contraction
    step: float
    rule: RangeRule
    read: float
    output: float
    out_step: float
    bound: float
    key: int


def multiplied(x: Tensor, ranges: Tensor, block: FusedBlock, scales: Tensor, how: Passes) -> Tensor:
    """Digital outputs of a row block: inputs over their range, converted, multiplied, converted, scaled back.

    x: (batch, windows, rows) or (batch, groups, channels, *spatial); ranges: (groups,); scales: (groups, columns), a
    constant. The gradient of ``ranges`` is the rule's. Once differentiable.
    """
    result: Tensor = _Multiplied.apply(x, ranges, block.main, block.magnitude, scales, how)  # type: ignore[no-untyped-call]
    return result


class _Multiplied(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, ranges: Tensor, main: Tensor, magnitude: Tensor, scales: Tensor, how: Passes
    ) -> Tensor:
        values = x.detach().contiguous()
        codes, squares = _drive(values, ranges, how.step, squares=how.read > 0)
        u = _product(codes, main, how.contraction)
        power = u
        if how.read:
            power = how.contraction.multiply(squares.to(magnitude.dtype), magnitude).float()
        each = ranges.detach().repeat_interleave(scales.shape[1])
        y, kept = _finish(u, power, scales.reshape(-1).contiguous(), each, how)
        ctx.save_for_backward(values, ranges, main, kept, each)
        ctx.how = how
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        values, ranges, main, kept, each = ctx.saved_tensors
        how: Passes = ctx.how
        back = _finish_back(gradient.contiguous(), kept, each, how)
        # Codes are made again: kept, they would be as much memory as the inputs.
        codes = _drive(values, ranges, how.step, squares=False)[0]
        wanted = bool(ctx.needs_input_grad[0] or ctx.needs_input_grad[1]), bool(ctx.needs_input_grad[2])
        to_codes, to_main = _product_back(back, codes, main, how.contraction, wanted)
        to_x = to_range = None
        if to_codes is not None:
            to_x, to_range = _drive_back(to_codes, values, ranges, how.rule, inputs=bool(ctx.needs_input_grad[0]))
        return to_x, to_range if ctx.needs_input_grad[1] else None, to_main, None, None, None


def _drive(values: Tensor, ranges: Tensor, step: float, *, squares: bool) -> tuple[Tensor, Tensor]:
    """(codes, their squares or an empty tensor) of contiguous inputs."""
    from aimc_compiler.training.kernels import drive

    flat = _by_group(values, ranges)
    codes = torch.empty_like(flat)
    second = torch.empty_like(flat) if squares else flat.new_empty((0, flat.shape[1]))
    arrays: Any = [each.detach().numpy() for each in (codes, second, flat, ranges)]
    _in_parts(lambda a, b: _any(drive)(*arrays, np.float32(step), a, b), flat.shape[0], flat.numel())
    return codes.reshape(values.shape), second.reshape(values.shape) if squares else second


def _drive_back(
    gradient: Tensor, values: Tensor, ranges: Tensor, rule: RangeRule, *, inputs: bool
) -> tuple[Tensor | None, Tensor]:
    """(gradient of the inputs or None, of the ranges). gradient: of the codes."""
    from aimc_compiler.training.kernels import drive_back

    flat = _by_group(values, ranges)
    given = gradient.contiguous().reshape(flat.shape)
    out = torch.empty_like(flat) if inputs else flat.new_empty((0, flat.shape[1]))
    r, pull, inside = ranges.detach().numpy(), np.empty(flat.shape[0]), np.empty(flat.shape[0])
    arrays: Any = [each.detach().numpy() for each in (out, given, flat)]
    _in_parts(lambda a, b: _any(drive_back)(*arrays, r, pull, inside, a, b), flat.shape[0], flat.numel())
    to_range = torch.from_numpy(_of_range(r, pull, inside, flat.shape[1], rule))
    return out.reshape(values.shape) if inputs else None, to_range


def _of_range(ranges: Floats, pull: Doubles, inside: Doubles, width: int, rule: RangeRule) -> Floats:
    """The gradient of the ranges. pull, inside: of each row, whose range is that of row modulo groups."""
    if not rule.learns:
        return np.zeros_like(ranges)
    groups = len(ranges)
    total, kept = pull.reshape(-1, groups).sum(0), inside.reshape(-1, groups).sum(0)
    decay = rule.decay * (kept > rule.inside * (len(inside) // groups * width))
    of_range: Floats = (ranges * (total + decay)).astype(np.float32)
    return of_range


def _by_group(x: Tensor, ranges: Tensor) -> Tensor:
    """(batch * groups, elements) of contiguous inputs: row modulo groups is the group."""
    return x.reshape(x.shape[0] * ranges.numel(), -1)


def _product(codes: Tensor, main: Tensor, contraction: Contraction) -> Tensor:
    """``Contraction.multiply`` without gradient."""
    if contraction.kind == "linear":
        return product(codes.flatten(0, 1), main.detach()[0].T).reshape(*codes.shape[:2], -1)
    return contraction.multiply(codes, main)


def _product_back(
    gradient: Tensor, codes: Tensor, main: Tensor, contraction: Contraction, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of ``Contraction.multiply``: of its inputs and of its kernel, where wanted."""
    if contraction.kind == "linear":
        flat = gradient.flatten(0, 1)
        to_codes = product(flat, main[0]).reshape(codes.shape) if wanted[0] else None
        return to_codes, product(flat.T, codes.flatten(0, 1))[None] if wanted[1] else None
    zeros = [0] * len(contraction.kernel)
    to_codes, to_main, _ = torch.ops.aten.convolution_backward(
        gradient.flatten(1, 2),
        codes.flatten(1, 2),
        main.flatten(0, 1),
        None,
        contraction.stride,
        contraction.padding,
        contraction.dilation,
        False,
        zeros,
        main.shape[0],
        [*wanted, False],
    )
    return (
        None if to_codes is None else to_codes.reshape(codes.shape),
        None if to_main is None else to_main.reshape(main.shape),
    )


def _finish(u: Tensor, power: Tensor, scales: Tensor, ranges: Tensor, how: Passes) -> tuple[Tensor, Tensor]:
    """(outputs, which the converter did not clip). scales, ranges: (outputs,)."""
    from aimc_compiler.training.kernels import PART, SCRATCH, finish

    per_row = how.contraction.kind != "linear"
    flat = _rows(u.detach().contiguous(), per_row=per_row)
    side = _rows(power.contiguous(), per_row=per_row) if how.read else flat
    y, kept = torch.empty_like(flat), torch.empty(flat.shape, dtype=torch.uint8)
    arrays: Any = [part.detach().numpy() for part in (y, kept, flat, side, scales, ranges)]
    figures: Any = [np.float32(value) for value in (how.read, how.output, how.out_step, how.bound)]

    def work(first: int, last: int) -> None:
        scratch = np.empty((SCRATCH, PART + 8), np.float32)
        _any(finish)(*arrays, per_row, *figures, np.uint64(how.key), first, last, scratch)

    _in_parts(work, flat.shape[0], flat.numel())
    return y.reshape(u.shape), kept


def _finish_back(gradient: Tensor, kept: Tensor, ranges: Tensor, how: Passes) -> Tensor:
    """The gradient of the products, of their shape."""
    from aimc_compiler.training.kernels import finish_back

    given = gradient.reshape(kept.shape)
    out = torch.empty_like(given)
    arrays: Any = [each.detach().numpy() for each in (out, given, kept, ranges)]
    per_row = how.contraction.kind != "linear"
    _in_parts(lambda a, b: _any(finish_back)(*arrays, per_row, a, b), kept.shape[0], out.numel())
    return out.reshape(gradient.shape)


def _rows(values: Tensor, *, per_row: bool) -> Tensor:
    """(batch * outputs, windows) of convolutions, (batch * windows, outputs) of linear operations."""
    return values.flatten(0, 2).flatten(1) if per_row else values.flatten(0, 1)


def _any(kernel: Any) -> Any:
    """Compiled kernels take arrays by place."""
    return kernel


def _in_parts(work: Callable[[int, int], None], count: int, elements: int) -> None:
    """``work(first, last)`` over rows 0 to ``count``, on as many threads as are worth it."""

    def each(items: Iterator[tuple[int, int]]) -> None:
        for first, last in items:
            work(first, last)

    spread_rows(each, count, elements, _THREAD_WORTH)
