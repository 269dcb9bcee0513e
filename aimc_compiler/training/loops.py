"""The loop of a recurrent layer in training as one operation: its steps in few passes, back-propagation through time.

Values and gradients are those of the steps one by one, each a call of the matrix (``fused.py``) and a cell (``graph/
recurrent.py``). Here a step is its product, the one that gives the variance of the read noise, and one compiled pass;
the gradient of the weights is one product over all steps.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimc_compiler.analog.pool import spread_rows
from aimc_compiler.graph.recurrent import RecurrentMode
from aimc_compiler.records import record
from aimc_compiler.training.fused import FusedBlock, Passes, any_of, words_of
from aimc_compiler.training.matrix import TrainedMatrix
from aimc_compiler.training.products import add_product, product_into

# Rows of a product that gives the gradient of weights: so many steps are kept for it, which stay in the cache.
_ROWS = 512
# Elements of all gates of all steps that are worth another thread.
_THREAD_WORTH = 1 << 18
_KINDS: dict[RecurrentMode, int] = {"lstm": 0, "gru": 1, "rnn_tanh": 2, "rnn_relu": 3}


@record
class Loop:
    """What a loop does beside its tensors. passes: of each row block; cuts: first rows of the blocks, and the end."""

    mode: RecurrentMode
    passes: tuple[Passes, ...]
    cuts: tuple[int, ...]

    @property
    def kind(self) -> int:
        """As kernels take it."""
        return _KINDS[self.mode]


def run_loop(
    core: TrainedMatrix, mode: RecurrentMode, gates: Tensor, h: Tensor, c: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, ...] | None:
    """All steps of a layer: (outputs, last h) and for an LSTM the last c; None where they must be run one by one.

    core: of the recurrent weights, which it holds; gates: (batch, steps, gates * units), the input products with their
    biases; h, c: (batch, units), c of an LSTM alone; bias: (gates * units,), added to the product of each step.
    """
    blocks = core.fused()
    if not blocks or not gates.numel() or any(each.dtype != torch.float32 for each in (gates, h)):
        return None
    core.watch(h[:, None])
    how = Loop(mode=mode, passes=core.passes(), cuts=(*(b.first_row for b in core.blocks), h.shape[1]))
    y, last = looped(gates, h, c, bias, core.drive_ranges(), core.scales(), blocks, how)
    if gates.shape[1] > 1:
        core.watch_further(y.detach()[:, :-1].transpose(0, 1))
    return (y, y[:, -1]) if c is None else (y, y[:, -1], last)


def looped(
    gates: Tensor,
    h: Tensor,
    c: Tensor | None,
    bias: Tensor | None,
    ranges: Tensor,
    scales: Tensor,
    blocks: tuple[FusedBlock, ...],
    how: Loop,
) -> tuple[Tensor, Tensor]:
    """(outputs of all steps, the last c or an empty tensor). ranges: (1, row blocks); scales: (row blocks, 1, gates *
    units), a constant. The gradient of ``ranges`` is the sum of what the rule gives at each step. Once differentiable.
    """
    c = h.new_empty(h.shape[0], 0) if c is None else c
    bias = gates.new_zeros(gates.shape[2]) if bias is None else bias
    held = [tensor for block in blocks for tensor in (block.main, block.magnitude)]
    result: tuple[Tensor, Tensor] = _Looped.apply(gates, h, c, bias, ranges, scales, how, *held)  # type: ignore[no-untyped-call]
    return result


class _Looped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        h: Tensor,
        c: Tensor,
        bias: Tensor,
        ranges: Tensor,
        scales: Tensor,
        how: Loop,
        *held: Tensor,
    ) -> tuple[Tensor, Tensor]:
        wanted = any(ctx.needs_input_grad)
        given = (gates, h, c, bias, ranges.reshape(-1), scales.flatten(1))
        x = tuple(each.detach().contiguous() for each in given)
        work = _Forward(x, tuple(each.detach() for each in held[::2]), held[1::2], how, keeps=wanted)
        spread_rows(work.run, h.shape[0], gates.numel(), _THREAD_WORTH)
        ctx.how = how
        if wanted:
            kept = (x[1], x[4], work.y, work.c, work.acts, work.codes, work.kept)
            ctx.save_for_backward(*kept, *held[::2])
        return work.y, work.c[gates.shape[1] % len(work.c)].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, to_y: Tensor, to_c: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        work = _Backward(to_y.contiguous(), to_c.clone(), saved[:7], saved[7:], ctx.how)
        spread_rows(work.run, to_y.shape[0], work.to_gates.numel(), _THREAD_WORTH)
        needs = ctx.needs_input_grad
        to_held = [
            gradient
            for place, total in enumerate(work.to_mains())
            for gradient in (total if needs[7 + 2 * place] else None, None)
        ]
        to_ranges = work.to_ranges() if needs[4] else None
        return work.to_gates, work.dh, work.dc, work.to_bias.sum(0), to_ranges, None, None, *to_held


class _Forward:
    """The arrays of a forward pass, of all rows; ``run`` takes rows through all steps."""

    def __init__(
        self,
        given: tuple[Tensor, ...],
        mains: tuple[Tensor, ...],
        magnitudes: tuple[Tensor, ...],
        how: Loop,
        *,
        keeps: bool,
    ) -> None:
        gates, h, c, bias, ranges, scales = given
        batch, steps, width = gates.shape
        units, blocks, first = h.shape[1], len(mains), how.passes[0]
        self.gates, self.h, self.bias, self.how, self.steps = gates, h, bias, how, steps
        self.mains, self.magnitudes = mains, magnitudes
        many = steps if keeps else 1
        self.y = gates.new_empty(batch, steps, units)
        self.c = gates.new_empty((many + 1 if keeps else 1), *c.shape)
        self.c[0] = c
        self.acts = gates.new_empty(many, batch, 0 if how.mode.startswith("rnn") else 4 * units)
        self.codes = gates.new_empty(many, batch, units)
        self.kept = torch.empty(blocks, many, batch, width, dtype=torch.uint8)
        self.u = gates.new_empty(blocks, batch, width)
        kind = magnitudes[0].dtype if first.read else None
        self.squares, self.power = gates.new_empty(0, units), gates.new_empty(0, batch, width)
        self.halves, self.power_halves = self.squares.bfloat16(), self.power.bfloat16()
        if kind == torch.bfloat16:
            self.halves, self.power_halves = self.codes.new_empty(batch, units).bfloat16(), self.u.bfloat16()
        elif kind is not None:
            self.squares, self.power = self.codes.new_empty(batch, units), torch.empty_like(self.u)
        self.ranges = _of_units(ranges, how.cuts)
        self.inverse, self.factor = 1 / scales, scales * ranges[:, None]
        self.figures = np.array([first.read, first.output, first.out_step, first.bound], np.float32)

    def run(self, parts: Iterator[tuple[int, int]]) -> None:
        """Rows of each part through all steps."""
        for first, last in parts:
            self._rows(first, last)

    def _rows(self, first: int, last: int) -> None:
        from aimc_compiler.training.loop_kernels import SCRATCH, drive_state, step_forward

        how, rows = self.how, slice(first, last)
        scratch = np.empty((SCRATCH, self.gates.shape[2] + 8), np.float32)
        squares: Any = [self.squares.numpy(), words_of(self.halves)]
        driven: Any = [self.ranges.numpy(), np.float32(how.passes[0].step), first, last]
        names = (self.gates, self.bias, self.y, self.c, self.acts, self.h, self.u, self.power)
        arrays: Any = [*(each.numpy() for each in names), words_of(self.power_halves), self.kept.numpy()]
        keys = np.array([each.key for each in how.passes], np.uint64)
        figures: Any = [self.inverse.numpy(), self.factor.numpy(), self.figures, keys]
        products, codes, outputs = self._products(rows), self.codes.numpy(), self.y.numpy()
        for t in range(self.steps):
            place = t % len(codes)
            any_of(drive_state)(codes[place], *squares, self.h.numpy() if t == 0 else outputs[:, t - 1], *driven)
            for inputs, main, out in products[place]:
                product_into(inputs, main, out)
            any_of(step_forward)(how.kind, t, *arrays, *figures, first, last, scratch)

    def _products(self, rows: slice) -> list[list[tuple[Tensor, Tensor, Tensor]]]:
        """(inputs, weights, outputs) of every product of these rows, step by step."""
        side, power = (self.halves, self.power_halves) if len(self.halves) else (self.squares, self.power)
        cuts, found = [slice(a, b) for a, b in pairwise(self.how.cuts)], []
        mains = [main[0].T for main in self.mains]
        fixed = []
        if len(side):
            sizes = [each[0].T for each in self.magnitudes]
            fixed = [
                (side[rows, cut], size, power[b, rows]) for b, (cut, size) in enumerate(zip(cuts, sizes, strict=True))
            ]
        outs = [self.u[b, rows] for b in range(len(cuts))]
        for codes in self.codes[:, rows].unbind():
            found.append([*zip((codes[:, cut] for cut in cuts), mains, outs, strict=True), *fixed])
        return found


class _Backward:
    """The arrays of a backward pass, of all rows; ``run`` takes rows through all steps, the last first."""

    def __init__(
        self, to_y: Tensor, to_c: Tensor, saved: tuple[Tensor, ...], mains: tuple[Tensor, ...], how: Loop
    ) -> None:
        self.h, self.ranges, self.y, self.c, self.acts, self.codes, self.kept = (each.detach() for each in saved)
        self.to_y, self.dc, self.how = to_y, to_c, how
        self.mains = tuple(main.detach() for main in mains)
        blocks, self.steps, batch, width = self.kept.shape
        self.to_gates = to_y.new_empty(batch, self.steps, width)
        self.parts: dict[int, list[Tensor]] = {}
        self.to_bias, self.dh = to_y.new_zeros(batch, width), torch.zeros_like(self.h)
        self.to_codes = torch.empty_like(self.h)
        self.pull, self.inside = np.empty((self.steps, blocks, batch)), np.empty((self.steps, blocks, batch))

    def run(self, parts: Iterator[tuple[int, int]]) -> None:
        """Rows of each part through all steps."""
        for first, last in parts:
            self._rows(first, last)

    def _rows(self, first: int, last: int) -> None:
        from aimc_compiler.training.loop_kernels import state_back, step_back

        how, rows = self.how, slice(first, last)
        scratch = np.empty((2, self.to_gates.shape[2]), np.float32)
        width, slots = self.to_gates.shape[2], min(self.steps, -(-_ROWS // (last - first)))
        back = self.dh.new_empty(len(self.mains), slots, last - first, width)
        totals = self.parts[first] = [torch.zeros_like(main[0]) for main in self.mains]
        names = (
            self.to_gates, back, self.to_bias, self.dh, self.dc, self.to_y, self.y, self.c, self.acts, self.h,
            self.kept, self.ranges,
        )  # fmt: skip
        arrays: Any = [each.numpy() for each in names]
        outer = (self.dh, self.to_codes, self.y, self.h, self.ranges)
        others: Any = [*(each.numpy() for each in outer), np.array(how.cuts), self.pull, self.inside]
        outs = [self.to_codes[rows, a:b] for a, b in pairwise(how.cuts)]
        mains = [main[0] for main in self.mains]
        products = [[*zip(given, mains, outs, strict=True)] for given in back.transpose(0, 1)]
        for start in reversed(range(0, self.steps, slots)):
            stop = min(start + slots, self.steps)
            for t in reversed(range(start, stop)):
                any_of(step_back)(how.kind, t, t - start, *arrays, first, last, scratch)
                for given, weights, out in products[t - start]:
                    product_into(given, weights, out)
                any_of(state_back)(t, *others, first, last)
            self._add(totals, back[:, : stop - start], self.codes[start:stop, rows])

    def _add(self, totals: list[Tensor], back: Tensor, codes: Tensor) -> None:
        """What some steps give to the weights. back: (row blocks, steps, rows, gates); codes: (steps, rows, units)."""
        inputs = codes.flatten(0, 1)
        for total, given, (a, b) in zip(totals, back.flatten(1, 2), pairwise(self.how.cuts), strict=True):
            add_product(total, given.T, inputs[:, a:b])

    def to_mains(self) -> list[Tensor]:
        """The gradients of the weights of each row block."""
        parts = [self.parts[first] for first in sorted(self.parts)]
        return [
            torch.stack(totals).sum(0)[None] if len(totals) > 1 else totals[0][None]
            for totals in zip(*parts, strict=True)
        ]

    def to_ranges(self) -> Tensor:
        """(1, row blocks): the rule's gradient at each step, summed."""
        rule, ranges = self.how.passes[0].rule, self.ranges.numpy()
        counts = np.diff(self.how.cuts) * len(self.h)
        total = rule.gradient(ranges, self.pull.sum(2), self.inside.sum(2), counts).sum(0)
        return torch.from_numpy(total.astype(np.float32))[None]


def _of_units(ranges: Tensor, cuts: tuple[int, ...]) -> Tensor:
    """(units,): the range of the row block that a unit goes to."""
    return ranges.repeat_interleave(torch.tensor([b - a for a, b in pairwise(cuts)]))
