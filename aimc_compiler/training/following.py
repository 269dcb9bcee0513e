"""Input ranges that follow the inputs of the first mini-batches, before the optimiser has them.

Rasch et al., Nat. Commun. 14, 5282 (2023), Methods, "Hardware-aware training"; what follows then stands in
``ranges.py``.
"""

import torch
from torch import Tensor

from aimc_compiler.analog import Contraction, RowBlock
from aimc_compiler.training.batches import over_processes


class Following:
    """Lets the ranges of a matrix follow its inputs.

    They do so at once in the first call of a mini-batch. What its further calls meet is known when it ends, and has its
    part in the mean over all calls then. sigmas: standard deviations of the inputs that a range follows; ranges are
    (groups, row blocks) throughout and are changed; before: how many mini-batches came before.
    """

    def __init__(self, sigmas: float, blocks: tuple[RowBlock, ...], contraction: Contraction, groups: int) -> None:
        self._sigmas, self._blocks, self._contraction, self._groups = sigmas, blocks, contraction, groups
        self.begin()

    def begin(self) -> None:
        """A mini-batch begins."""
        self._variances: list[Tensor] = []
        self._start: Tensor | None = None

    def see(self, ranges: Tensor, x: Tensor, before: int) -> bool:
        """The inputs of a call, as of ``TrainedMatrix.forward`` with their batch. Says whether ranges changed."""
        found = self._deviations(x.detach())
        self._variances.append(found.square())
        if len(self._variances) > 1:
            return False
        self._start = ranges.detach().clone()
        self._follow(ranges, found, before)
        return True

    def see_further(self, x: Tensor) -> None:
        """The inputs of some calls of a linear operation behind the first. x: (calls, batch, features)."""
        parts = [x[..., b.first_row : b.first_row + b.rows].var(dim=(1, 2), correction=0) for b in self._blocks]
        self._variances += [each[None].clone() for each in torch.stack(parts, 1).unbind()]

    def end(self, ranges: Tensor, before: int) -> None:
        """The mini-batch ends: they follow the mean over all its calls."""
        if len(self._variances) > 1 and self._start is not None:
            with torch.no_grad():
                ranges.copy_(self._start)
            self._follow(ranges, torch.stack(self._variances).mean(0).sqrt(), before)
        self.begin()

    def _deviations(self, x: Tensor) -> Tensor:
        """(groups, row blocks): the standard deviation of the inputs of each row block."""
        if not x.numel():
            return x.new_zeros(self._groups, len(self._blocks))
        kept = []
        for block in self._blocks:
            inputs = self._contraction.inputs_of(x, self._groups, block.first_row, block.rows)
            dims = [0, 1, 2] if self._contraction.kind == "linear" else [0, *range(2, inputs.dim())]
            kept.append(inputs.std(dim=dims, correction=0).reshape(-1).expand(self._groups))
        return torch.stack(kept, dim=1)

    @torch.no_grad()
    def _follow(self, ranges: Tensor, deviations: Tensor, before: int) -> None:
        """``r <- (r k + sigmas std(x)) / (k + 1)``, k = before; inputs that are all 0 leave it."""
        width = self._sigmas * over_processes(deviations)
        follow = (ranges * before + width) / (before + 1)
        ranges.copy_(torch.where(width > 0, follow, ranges))
