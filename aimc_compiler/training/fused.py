"""A row block of a mini-batch in few passes: the standard model of training on the CPU, in float32.

Everything else goes through the functions of ``aimc_compiler.analog`` one by one; values and gradients are the same
(normals of output noise are keyed by row and column here, by piece there).
"""

from dataclasses import field, replace
from functools import cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aimc_compiler.analog.contraction import Contraction
from aimc_compiler.analog.finish import is_standard
from aimc_compiler.analog.pool import gomp_parallel
from aimc_compiler.analog.settings import MvmSettings
from aimc_compiler.records import record
from aimc_compiler.training.products import linear, product
from aimc_compiler.training.ranges import LEAST_RANGE, RangeRule
from aimc_compiler.training.scratch import Scratch

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# Elements that are worth another thread.
_THREAD_WORTH = 1 << 15
# The share of clipped inputs below which their products are made one by one.
_FEW = 1 / 64


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
class Passes:
    """What a row block does with its inputs. step: of the input converter, 0 for none; rule: of the input range; read,
    output: variances of the noise; out_step, bound: of the output converter; key: of the normals; scratch: what passes
    of one thread may share."""

    contraction: Contraction
    step: float
    rule: RangeRule
    read: float
    output: float
    out_step: float
    bound: float
    key: int
    scratch: Scratch = field(default_factory=Scratch)


@record
class Form:
    """How a row block's inputs and outputs lie. inner: of the inputs, (batch, windows, rows) or (batch, groups,
    channels, *spatial); outer: of the outputs, as the operation gives them."""

    inner: tuple[int, ...]
    outer: tuple[int, ...]


def multiplied(
    x: Tensor,
    ranges: Tensor,
    block: FusedBlock,
    scales: Tensor,
    how: Passes,
    bias: Tensor | None = None,
    form: Form | None = None,
) -> Tensor:
    """Digital outputs of a row block: inputs over their range, converted, multiplied, converted, scaled back.

    x: (batch, windows, rows) or (batch, groups, channels, *spatial), and so are the outputs, or as ``form`` says;
    ranges: (groups,); scales: (groups, columns), a constant; bias: (groups * columns,), added to the outputs. The
    gradient of ``ranges`` is the rule's. Once differentiable.
    """
    result: Tensor = _Multiplied.apply(x, ranges, block.main, bias, block.magnitude, scales, how, form)  # type: ignore[no-untyped-call]
    return result


class _Multiplied(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        ranges: Tensor,
        main: Tensor,
        bias: Tensor | None,
        magnitude: Tensor,
        scales: Tensor,
        how: Passes,
        form: Form | None,
    ) -> Tensor:
        values = x.detach().contiguous()
        if form and form.inner != values.shape:
            values = values.view(form.inner)
        r = _positive(ranges)
        codes, squares = _drive(values, r, how, magnitude.dtype if how.read else None)
        u = _product(codes, main, how.contraction)
        power = how.contraction.multiply(squares, magnitude) if squares is not None else None
        y, kept = _finish(u, power, bias, scales.detach().numpy(), r, how)
        ctx.save_for_backward(values, ranges, main, kept)
        ctx.how, ctx.outer, ctx.inner = how, x.shape, y.shape
        # No view: operations in place are refused behind a function that returns one.
        return torch.ops.aten._unsafe_view(y, form.outer) if form else y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, ranges, main, kept = ctx.saved_tensors
        how: Passes = ctx.how
        to_x, to_range, to_kernel, to_bias = ctx.needs_input_grad[:4]
        r = _positive(ranges)
        given = gradient.contiguous().view(ctx.inner)
        of_bias = _of_bias(given, how) if to_bias else None
        back = _finish_back(given, kept, r, how)
        # Codes are made again: kept, they would be as much memory as the inputs.
        codes, _ = _drive(values, r, how, None)
        to_codes, to_main = _product_back(back, codes, main, how.contraction, (to_x, to_kernel))
        if to_range and not to_x:
            to_codes = _for_ranges(back, codes, main, values, r, how)
        of_x = of_range = None
        if to_codes is not None:
            of_x, pulled = _drive_back(to_codes, values, r, how.rule, inputs=to_x)
            of_x = None if of_x is None else of_x.view(ctx.outer)
            of_range = torch.from_numpy(pulled * (ranges.detach().numpy() >= LEAST_RANGE)) if to_range else None
        return of_x, of_range, to_main, of_bias, None, None, None, None


def _positive(ranges: Tensor) -> Floats:
    r: Floats = np.maximum(ranges.detach().numpy(), np.float32(LEAST_RANGE))
    return r


def _of_bias(gradient: Tensor, how: Passes) -> Tensor:
    if how.contraction.kind == "linear":
        return gradient.sum((0, 1))
    return gradient.sum((0, *range(3, gradient.dim()))).flatten()


def _drive(values: Tensor, r: Floats, how: Passes, side: torch.dtype | None) -> tuple[Tensor, Tensor | None]:
    """(codes, their squares of type ``side``) of contiguous inputs; both are scratch."""
    from aimc_compiler.training.kernels import drive_on

    flat = _by_group(values, r)
    codes = how.scratch.floats("codes", flat.shape)
    squares = None if side is None else _scratch(how.scratch, "squares", tuple(values.shape), side)
    arrays: Any = codes, *sides(squares, flat.shape), flat, r
    any_of(drive_on)(*threads_for(flat.size), *arrays, np.float32(how.step))
    return torch.from_numpy(codes.reshape(values.shape)), squares


def _scratch(scratch: Scratch, name: str, shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """See ``Scratch``; kind: of ``side_type``."""
    if kind != torch.bfloat16:
        return torch.from_numpy(scratch.floats(name, shape))
    return torch.from_numpy(scratch.halves(name, shape).view(np.int16)).view(torch.bfloat16)


# By their dimensions.
_NO_FLOATS = {count: np.empty((0,) * count, np.float32) for count in (1, 2)}
_NO_HALVES = {count: np.empty((0,) * count, np.uint16) for count in (1, 2)}


def sides(values: Tensor | None, shape: tuple[int, ...]) -> tuple[Floats, npt.NDArray[np.uint16]]:
    """(contiguous values as float32, as words of bfloat16) of this shape; what they are not is empty."""
    floats, halves = _NO_FLOATS[len(shape)], _NO_HALVES[len(shape)]
    if values is None:
        return floats, halves
    if values.dtype == torch.bfloat16:
        return floats, words_of(values).reshape(shape)
    return values.numpy().reshape(shape), halves


def _drive_back(
    gradient: Tensor, values: Tensor, r: Floats, rule: RangeRule, *, inputs: bool
) -> tuple[Tensor | None, Floats]:
    """(gradient of the inputs or None, of the ranges). gradient: of the codes; it is overwritten."""
    from aimc_compiler.training.kernels import drive_back_on

    flat = _by_group(values, r)
    given = gradient.contiguous()
    back = given.view(flat.shape).numpy()
    pull, inside = np.empty(flat.shape[0]), np.empty(flat.shape[0])
    arrays: Any = back if inputs else _NO_FLOATS[2], back, flat, r, pull, inside
    any_of(drive_back_on)(*threads_for(flat.size), *arrays)
    to_range = _of_range(r, pull, inside, flat.shape[1], rule)
    return given.view(values.shape) if inputs else None, to_range


def _of_range(ranges: Floats, pull: Doubles, inside: Doubles, width: int, rule: RangeRule) -> Floats:
    """The gradient of the ranges. pull, inside: of each row, whose range is that of row modulo groups."""
    groups = len(ranges)
    total, kept = pull.reshape(-1, groups).sum(0), inside.reshape(-1, groups).sum(0)
    of_range: Floats = rule.gradient(ranges, total, kept, len(inside) // groups * width).astype(np.float32)
    return of_range


def _by_group(x: Tensor, r: Floats) -> Floats:
    """(batch * groups, elements) of contiguous inputs: row modulo groups is the group."""
    flat: Floats = x.numpy().reshape(x.shape[0] * len(r), prod(x.shape[1:]) // len(r))
    return flat


def _product(codes: Tensor, main: Tensor, contraction: Contraction) -> Tensor:
    """``Contraction.multiply`` without gradient."""
    if contraction.kind == "linear":
        return linear(codes, main[0])
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


def _for_ranges(back: Tensor, codes: Tensor, main: Tensor, values: Tensor, r: Floats, how: Passes) -> Tensor:
    """The gradient of codes as the rule of ranges reads it: at clipped inputs alone, and not to all its digits."""
    from aimc_compiler.training.kernels import clipped_products_on

    if how.contraction.kind == "linear":
        given, inputs = back.flatten(0, 1).numpy(), values.flatten(0, 1).numpy()
        if np.count_nonzero(np.abs(inputs) >= r) < inputs.size * _FEW:
            to_codes = how.scratch.floats("codes", inputs.shape)  # nothing reads the codes any more
            arrays: Any = to_codes, given, main.detach()[0].numpy(), inputs, r
            any_of(clipped_products_on)(*threads_for(inputs.size), *arrays)
            return torch.from_numpy(to_codes)
    low, kernel, unread = (each.to(side_type()) for each in (back, main, codes))
    found: Any = _product_back(low, unread, kernel, how.contraction, (True, False))[0]
    return found.float()  # type: ignore[no-any-return]


def _finish(
    u: Tensor, power: Tensor | None, bias: Tensor | None, scales: Floats, r: Floats, how: Passes
) -> tuple[Tensor, Tensor]:
    """(outputs, in the memory of u; which the converter did not clip, in rows). scales: (groups, columns)."""
    from aimc_compiler.training.kernels import finish_on

    y = u.detach().contiguous()
    per_row, rows = how.contraction.kind != "linear", _rows(y, how)
    kept = torch.empty(rows, dtype=torch.uint8)
    values, marks = y.numpy().reshape(-1), kept.numpy().reshape(-1)
    side_arrays = sides(None if power is None else power.contiguous(), values.shape)
    biases = _NO_FLOATS[1] if bias is None else bias.detach().contiguous().numpy()
    vectors = [(1 / scales).reshape(-1), (scales * r[:, None]).reshape(-1), biases]
    figures: Any = [np.float32(value) for value in (how.read, how.output, how.out_step, how.bound)]
    arrays: Any = values, marks, values, *side_arrays, *vectors, rows[1], per_row, *figures, np.uint64(how.key)
    any_of(finish_on)(*threads_for(values.size), *arrays)
    return y, kept


def _finish_back(gradient: Tensor, kept: Tensor, r: Floats, how: Passes) -> Tensor:
    """The gradient of the products, of their shape; it is scratch."""
    from aimc_compiler.training.kernels import finish_back_on

    shape = tuple(kept.shape)
    out = how.scratch.floats("back", shape)
    per_row = how.contraction.kind != "linear"
    each = np.repeat(r, gradient.shape[2] if per_row else shape[1])
    arrays: Any = out, gradient.view(shape).numpy(), kept.numpy(), each
    any_of(finish_back_on)(*threads_for(out.size), *arrays, per_row)
    return torch.from_numpy(out).view(gradient.shape)


def _rows(values: Tensor, how: Passes) -> tuple[int, int]:
    """(batch * outputs, windows) of convolutions, (batch * windows, outputs) of linear operations."""
    width = values.shape[-1] if how.contraction.kind == "linear" else prod(values.shape[3:])
    return values.numel() // max(width, 1), width


def words_of(halves: Tensor) -> npt.NDArray[np.uint16]:
    """Numbers in bfloat16 as compiled kernels take them."""
    words: npt.NDArray[np.uint16] = halves.view(torch.int16).numpy().view(np.uint16)
    return words


def any_of(kernel: Any) -> Any:
    """Compiled kernels take arrays by place."""
    return kernel


def threads_for(elements: int) -> tuple[int, int]:
    """(entry of the pool, parts), for a pass over so many elements."""
    return gomp_parallel(), min(torch.get_num_threads(), elements // _THREAD_WORTH)
