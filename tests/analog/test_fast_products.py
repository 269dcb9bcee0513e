"""``fast`` against ``exact`` in float64 on random operations: same products, same noise, same sums of row blocks."""

from typing import Any

import pytest
import torch
from fast_cases import UNITS, Cuts, fast, reference, steps_off, unrounded, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from aimc_compiler.analog import Contraction

pytestmark = pytest.mark.skipif(UNITS is not None, reason=str(UNITS))

LINEAR = Contraction(kind="linear")
MVM = st.builds(
    lambda noise, drop: {"sigma_out": noise[0], "sigma_w": noise[1], "ir_drop": drop},
    st.sampled_from([(0, 0), (0.04, 0), (0.04, 0.0175)]),
    st.sampled_from([0, 1.0]),
)


def cut(size: int, at: int) -> tuple[int, ...]:
    """At least two rows a block: see test_fast_choice."""
    return (at, size - at) if 1 < at < size - 1 else (size,)


def compare(
    w: torch.Tensor, x: torch.Tensor, contraction: Contraction, cuts: Cuts, mvm: dict[str, Any], **more: Any
) -> None:
    run = {"first_sample": 2**33, "first_call": 5, "samples": more.pop("samples", None)}
    ranges = torch.rand(w.shape[0], len(cuts[0])) + 0.5
    outputs = w.shape[0] * w.shape[1]
    digital = {"factor": torch.rand(outputs) + 0.5, "bias": torch.randn(outputs)}
    on_tiles = unrounded(fast(w, contraction, cuts, mvm, **digital, **more))
    exact = reference(on_tiles, w, cuts, mvm, **digital, **more)
    expected, found = exact.forward(x, ranges.double(), **run), on_tiles.forward(x, ranges, **run)
    assert found.shape == expected.shape
    assert on_tiles.choice.precision == "fast"
    # Largest digital factor: range 1.5, factor 1.5, scale 1; each row block may be off.
    assert steps_off(found, expected) < 0.2 * 2.25 * len(cuts[0])
    assert on_tiles.mvms == exact.mvms


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(2, 70),
    columns=st.integers(1, 20),
    batch=st.tuples(st.integers(1, 70), st.integers(1, 3)),
    at=st.tuples(st.integers(0, 70), st.integers(0, 20)),
    mvm=MVM,
    dac=st.sampled_from([2, 5, 8]),
    tile_row=st.sampled_from([0, 100]),
    signed=st.booleans(),
    grouped=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_linear(
    rows: int, columns: int, batch: tuple[int, int], at: tuple[int, int], mvm: dict[str, Any], dac: int, tile_row: int,
    signed: bool, grouped: bool, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    x = torch.randn(2 * batch[0], batch[1], rows)
    w = weights(1, columns, rows, seed)
    cuts = cut(rows, at[0]), cut(columns, at[1])
    compare(w, x if signed else x.abs(), LINEAR, cuts, mvm, dac=dac, tile_row=tile_row,
            samples=batch[0] if grouped else None)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    groups=st.sampled_from([1, 2]),
    channels=st.integers(8, 12),
    columns=st.integers(4, 9),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    size=st.tuples(st.integers(5, 20), st.integers(5, 40)),
    batch=st.integers(1, 4),
    at=st.tuples(st.integers(0, 100), st.integers(0, 9)),
    mvm=MVM,
    signed=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_conv2d(
    groups: int, channels: int, columns: int, kernel: tuple[int, int], stride: tuple[int, int],
    padding: tuple[int, int], dilation: tuple[int, int], size: tuple[int, int], batch: int, at: tuple[int, int],
    mvm: dict[str, Any], signed: bool, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    rows = channels * kernel[0] * kernel[1]
    columns = max(columns, 64 // rows + 1)
    contraction = Contraction(kind="conv2d", kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    x = torch.randn(2 * batch, groups * channels, *size)
    cuts = cut(rows, at[0]), cut(columns, at[1])
    w = weights(groups, columns, rows, seed)
    compare(w, x if signed else x.abs(), contraction, cuts, mvm, tile_row=7, samples=batch if seed % 2 else None)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), stride=st.integers(1, 3), size=st.integers(9, 40), mvm=MVM)
def test_conv1d(seed: int, stride: int, size: int, mvm: dict[str, Any]) -> None:
    torch.manual_seed(seed)
    contraction = Contraction(kind="conv1d", kernel=(3,), stride=(stride,), padding=(1,), dilation=(1,))
    compare(weights(1, 10, 24, seed), torch.randn(3, 8, size), contraction, ((13, 11), (4, 6)), mvm)
