"""Estimators of input ranges: functions of the activations that a row block sees.

Counts are exact; only the place of a percentile inside its bin is rounded. A bin is all floats that share sign-free
exponent and the first 10 bits of the mantissa, so its relative width is at most 2^-10, about 1e-3.
"""

from math import sqrt

import torch
from torch import Tensor

_SHIFT = 13
_RATIO = 0.99
_RANGES = 688  # 0.99^687 is a thousandth
_AT_ONCE = 1 << 16


class RangeObserver:
    """What is known of the magnitudes of all inputs seen so far, in one pass; memory goes with the bins that are met.

    >>> observer = RangeObserver()
    >>> observer.update(torch.tensor([0.0, -2.0, 1.0]))
    >>> observer.maximum()
    2.0
    """

    def __init__(self) -> None:
        self._bins = torch.empty(0, dtype=torch.int64)
        self._counts = torch.empty(0, dtype=torch.int64)
        self._sum_of_squares = 0.0
        self._largest = 0.0
        self.count = 0

    def update(self, x: Tensor) -> None:
        """Observe all elements of ``x`` (any shape, finite, floating point; ValueError otherwise)."""
        flat = x.detach().reshape(-1).to(device="cpu", dtype=torch.float32)
        if not flat.numel():
            return
        magnitude = flat.abs()
        largest = float(magnitude.max())
        if not largest < float("inf"):
            raise ValueError("an input is not finite: ranges cannot be estimated from it")
        self._add(torch.bincount(_bins(magnitude)))
        self._sum_of_squares += float(flat.to(torch.float64).square().sum())
        self._largest = max(self._largest, largest)
        self.count += flat.numel()

    def maximum(self) -> float:
        """The largest |x|; 0 where every input was 0."""
        return self._largest

    def k_sigma(self, k: float) -> float:
        """k times the root mean square of x: standard deviations about zero, about which the range lies."""
        return k * sqrt(self._sum_of_squares / self._observed())

    def percentile(self, percent: float) -> float:
        """The least magnitude that at least ``percent`` % of all |x| do not exceed, rounded up by at most 1e-3."""
        if not 0 < percent <= 100:
            raise ValueError(f"percentile {percent}: must be above 0 and at most 100")
        needed = self._observed() * percent / 100
        reached = int(self._bins[torch.searchsorted(self._counts.cumsum(0).to(torch.float64), needed)])
        # Bin 0 holds zero and subnormals below 1.2e-41: it stands for zero.
        return min(_upper_edge(reached), self._largest) if reached else 0.0

    def least_squares(self, levels: int | None) -> float:
        """The range that loses least in mean square to a converter with ``levels`` steps over twice the range.

        Rounding inside the range and clipping beyond it, ``mean (x - clip(d rint(x / d), -r, r))^2`` with
        ``d = 2 r / levels``, over the observed magnitudes, each taken as the middle of its bin; the best of ranges 1 %
        apart, from the largest input down to a thousandth of it. levels: None for inputs that are not rounded, whose
        best range clips nothing.
        """
        self._observed()
        if levels is None or not self._largest:
            return self._largest
        magnitude = _middles(self._bins).clamp(max=self._largest)
        weight = self._counts.to(torch.float64)
        bounds = torch.tensor([self._largest * _RATIO**place for place in range(_RANGES)], dtype=torch.float64)
        parts = []
        for bound in torch.split(bounds.unsqueeze(1), max(1, _AT_ONCE // magnitude.numel())):
            step = 2 * bound / levels
            kept = torch.minimum(step * torch.round(magnitude / step), bound)
            parts.append((magnitude - kept).square_() @ weight)
        errors = torch.cat(parts)
        return float(bounds[errors == errors.min()][0])

    def share_beyond(self, bound: float) -> float:
        """Share of inputs with |x| > bound; those in the bound's own bin count as inside (within 1e-3 of it)."""
        own = _bins(torch.tensor([bound], dtype=torch.float32))
        return int(self._counts[self._bins > own].sum()) / self._observed()

    def _add(self, dense: Tensor) -> None:
        """dense: counts of bins 0.. of one block; only bins that were met are kept, in order."""
        met = dense.nonzero()[:, 0]
        self._bins, place = torch.unique(torch.cat([self._bins, met]), return_inverse=True)
        counts = torch.cat([self._counts, dense[met]])
        self._counts = torch.zeros_like(self._bins).index_add_(0, place, counts)

    def _observed(self) -> int:
        if not self.count:
            raise ValueError("no input has been observed yet")
        return self.count


def _bins(magnitude: Tensor) -> Tensor:
    """Index of each magnitude's bin: the top bits of its float32 pattern, which order as the magnitudes do."""
    return (magnitude.view(torch.int32) >> _SHIFT).to(torch.int64)


def _middles(index: Tensor) -> Tensor:
    """float64 middles of bins; bin 0 stands for zero."""
    edges = torch.stack([index, index + 1]) << _SHIFT
    low, high = edges.to(torch.int32).view(torch.float32).to(torch.float64)
    return torch.where(index == 0, 0.0, (low + high) / 2)


def _upper_edge(index: int) -> float:
    """The largest float32 of a bin."""
    pattern = ((index + 1) << _SHIFT) - 1
    return float(torch.tensor([pattern], dtype=torch.int32).view(torch.float32)[0])
