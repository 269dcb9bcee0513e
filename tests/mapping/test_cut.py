"""Cuts of a dimension and of the rows of a matrix."""

from math import ceil

import pytest
from chips_by_hand import resnet_shapes
from hypothesis import given
from hypothesis import strategies as st

from aimc_compiler.mapping import cut_columns, cut_rows, near_equal, row_group_activations


def test_near_equal_example() -> None:
    assert near_equal(640, 256) == (214, 213, 213)
    assert near_equal(256, 256) == (256,)
    assert near_equal(257, 256) == (129, 128)


@given(st.integers(1, 5000), st.integers(1, 600))
def test_near_equal_is_fewest_and_near_equal(size: int, maximum: int) -> None:
    cut = near_equal(size, maximum)
    assert sum(cut) == size
    assert len(cut) == ceil(size / maximum)
    assert max(cut) <= maximum
    assert max(cut) - min(cut) <= 1
    assert cut == tuple(sorted(cut, reverse=True))


@given(st.integers(1, 300), st.integers(1, 49), st.integers(1, 600))
def test_rows_fall_on_channels_exactly_where_that_is_free(channels: int, kernel: int, maximum: int) -> None:
    rows = channels * kernel
    cut = cut_rows(rows, kernel, maximum)
    assert sum(cut) == rows
    assert max(cut) <= maximum
    assert len(cut) == ceil(rows / maximum)
    fewest_on_channels = ceil(channels / (maximum // kernel)) if maximum >= kernel else None
    if fewest_on_channels == len(cut):
        assert all(block % kernel == 0 for block in cut)
        assert max(cut) - min(cut) <= kernel
    else:
        assert max(cut) - min(cut) <= 1


def test_rows_of_convolutions() -> None:
    assert cut_rows(576, 9, 256) == (198, 189, 189)
    assert cut_rows(1152, 9, 128) == (128,) * 9
    assert cut_columns(1000, 256) == (250,) * 4


@pytest.mark.parametrize(("size", "maximum", "unit"), [(0, 4, 1), (9, 4, 5), (10, 4, 3), (4, 0, 1)])
def test_impossible_cuts_are_refused(size: int, maximum: int, unit: int) -> None:
    with pytest.raises(ValueError, match=f"cannot cut {size} in multiples of {unit} of at most {maximum}"):
        near_equal(size, maximum, unit)


def test_row_group_activations_of_resnet18() -> None:
    """Sum of windows times row blocks at 128 rows: 132 500, a figure two published compilers agree on."""
    assert row_group_activations(resnet_shapes(), 128) == 132_500
