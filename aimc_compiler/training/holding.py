"""Weights that are held to bounds in training (Joshi et al., Nat. Commun. 11, 2473 (2020), Methods: clipping)."""

from math import sqrt
from typing import Any

import torch
from torch import Tensor

from aimc_compiler.analog import RowBlock
from aimc_compiler.analog.normalisation import rows_of
from aimc_compiler.training.recipe import Recipe

#: Rules of ``Recipe.clip`` by which the weights themselves are held to bounds.
HELD = ("column", "k-sigma")


class Holding:
    """Holds the row blocks of a matrix, where an update has been. The norm of a block tells of one: optimisers need not
    count them."""

    def __init__(self, recipe: Recipe, blocks: tuple[RowBlock, ...]) -> None:
        self._recipe, self._blocks = recipe, blocks
        self._norms: dict[int, float] = {}

    @torch.no_grad()
    def hold(self, weight: Tensor, scales: Tensor, *, fresh: bool) -> bool:
        """Hold a weight to its bounds, in place; says whether there was an update.

        weight: (groups, columns, rows), without gradient; scales: (row blocks, groups, columns); fresh: whether it has
        had no update yet. A weight that was loaded counts as updated, unless it is.
        """
        held = False
        for block in self._blocks:
            part, kept = rows_of(weight, block), self._norms.get(block.index)
            norm = float(torch.linalg.vector_norm(part))
            if kept != norm and not (fresh and kept is None):
                bound: Any = self._recipe.clip_sigmas * norm / sqrt(part.numel())
                if self._recipe.clip == "column":
                    bound = scales[block.index].unsqueeze(-1)
                norm, held = float(torch.linalg.vector_norm(part.clamp_(-bound, bound))), True
            self._norms[block.index] = norm
        return held

    def state(self) -> list[float]:
        """What of it outlives a mini-batch."""
        return [self._norms[place] for place in sorted(self._norms)]

    def go_on(self, state: list[float]) -> None:
        """Continue from ``state``."""
        self._norms = dict(enumerate(state))
