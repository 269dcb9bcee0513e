"""Disturbed weights of a row block in few passes: what ``weights.py`` makes operation by operation."""

from dataclasses import field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aimc_compiler.records import record
from aimc_compiler.training.ageing import Curve, compensation
from aimc_compiler.training.batches import Met
from aimc_compiler.training.fused import any_of, side_type, sides, threads_for
from aimc_compiler.training.scratch import Scratch
from aimc_compiler.training.weights import TERMS, WeightNoise


@record
class Disturbance:
    """Noise of a row block. terms: coefficients of its deviation over g_max, from r^0 up, at most TERMS; aged: or, of
    weights at a time, the curves right after programming and now; ramp: the share of it that acts; key: of its normals;
    rescale: whether the columns' scales are taken from these weights first; scratch: where the weights of the
    mini-batch are put."""

    key: int
    rescale: bool
    terms: tuple[float, ...] = ()
    aged: tuple[Curve, Curve] | None = None
    ramp: float = 1.0
    scratch: Scratch = field(default_factory=Scratch)

    @classmethod
    def of(cls, noise: WeightNoise, name: str, met: Met, scratch: Scratch) -> "Disturbance":
        """Of the row block of this name in a mini-batch."""
        return cls(
            key=noise.key(met.seed, name),
            rescale=met.due,
            terms=noise.polynomial or (),
            aged=noise.curves(met.seed),
            ramp=noise.ramp(met.before),
            scratch=scratch,
        )


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
        flat = weight.detach().flatten(0, 1).contiguous()
        noisy = how.scratch.lent(tuple(flat.shape), torch.float32)
        sizes = how.scratch.lent(tuple(flat.shape) if magnitude else (0, flat.shape[1]), side_type())
        _fill(noisy, sizes, scales.detach().view(-1), flat, how)
        ctx.set_materialize_grads(False)
        made = noisy.view(weight.shape), sizes.view(weight.shape) if magnitude else sizes
        ctx.mark_non_differentiable(made[1])
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        return gradient, None, None, None


def _fill(noisy: Tensor, sizes: Tensor, scales: Tensor, weight: Tensor, how: Disturbance) -> None:
    from aimc_compiler.training.aged_kernels import age_on, read_curves_on
    from aimc_compiler.training.kernels import disturb_on

    threads, key = threads_for(weight.numel()), np.uint64(how.key)
    arrays = noisy.numpy(), *sides(sizes, tuple(sizes.shape)), scales.numpy(), weight.numpy()
    if how.aged is None:
        terms = np.zeros(TERMS, np.float32)
        terms[: len(how.terms)] = how.terms
        any_of(disturb_on)(*threads, *arrays, terms * np.float32(how.ramp), key, how.rescale)
        return
    fresh, now = how.aged
    sums = np.empty((len(weight), 2))
    means = np.concatenate([fresh.lines[:2], now.lines[:2]])
    any_of(read_curves_on)(*threads, sums, *arrays[-2:], means, how.rescale)
    lines = now.compensated_lines(compensation(*sums.sum(0)), how.ramp)
    any_of(age_on)(*threads, *arrays, lines, key)
