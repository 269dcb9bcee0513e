"""Range estimators against sorting and summing everything."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.analog import RangeObserver

FLOATS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60)


def observed(*blocks: torch.Tensor) -> RangeObserver:
    observer = RangeObserver()
    for block in blocks:
        observer.update(block)
    return observer


@settings(max_examples=100, deadline=None)
@given(values=FLOATS, percent=st.floats(0.1, 100), cut=st.integers(0, 60))
def test_percentile_is_that_of_the_sorted_magnitudes(values: list[float], percent: float, cut: int) -> None:
    """The smallest value that the share does not exceed, never below it and at most 1e-3 above."""
    x = torch.tensor(values, dtype=torch.float32)
    observer = observed(x[:cut], x[cut:])
    exact = float(np.quantile(np.abs(x.numpy()).astype(np.float64), percent / 100, method="inverted_cdf"))
    found = observer.percentile(percent)
    assert exact <= found + 1e-40
    assert found <= exact * (1 + 1e-3) + 1e-40
    assert observer.maximum() == float(x.abs().max())
    assert observer.percentile(100) == observer.maximum() or observer.maximum() < 1e-40


@settings(max_examples=50, deadline=None)
@given(values=FLOATS, bound=st.floats(2**-10, 1e6, width=32))
def test_share_beyond(values: list[float], bound: float) -> None:
    x = torch.tensor(values, dtype=torch.float32).abs()
    share = observed(x).share_beyond(bound)
    assert float((x > bound * (1 + 1e-3)).float().mean()) - 1e-6 <= share <= float((x > bound).float().mean()) + 1e-6


def test_memory_follows_what_was_seen() -> None:
    """A depthwise convolution has an observer a channel."""
    observer = observed(*torch.rand(20, 500, generator=torch.Generator().manual_seed(0)))
    assert observer.count == 10_000
    assert sum(value.nbytes for value in vars(observer).values() if isinstance(value, torch.Tensor)) < 100_000


def test_k_sigma_counts_from_zero() -> None:
    x = torch.tensor([3.0, -4.0, 0.0, 5.0])
    assert observed(x).k_sigma(2.0) == pytest.approx(2 * np.sqrt(12.5))


def test_percentile_of_many_normals() -> None:
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    assert observed(x).percentile(99.9) == pytest.approx(3.2905, rel=0.01)


def test_zeros_alone_give_no_range() -> None:
    """The caller decides on 1 and reports it."""
    observer = observed(torch.zeros(10), torch.zeros(0))
    assert observer.percentile(99.0) == observer.maximum() == observer.k_sigma(3) == 0.0
    assert observer.count == 10


def test_what_cannot_be_estimated_is_an_error() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            RangeObserver().update(torch.tensor([1.0, value]))
    with pytest.raises(ValueError, match="no input has been observed"):
        RangeObserver().percentile(99.0)
    with pytest.raises(ValueError, match="above 0 and at most 100"):
        observed(torch.ones(1)).percentile(0.0)
