"""Input ranges and output bounds of operations that several entries share."""

import pytest
import torch
from entry_networks import numbers
from torch import Tensor, nn

import aimc_compiler as aimc
from aimc_compiler.errors import CalibrationError, DataError


class Ways(nn.Module):
    """`whole` goes through both layers, `first` and `last` through one each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lower, self.upper = nn.Linear(12, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.upper(self.lower(x))

    def first(self, x: Tensor) -> Tensor:
        return self.lower(x)

    def last(self, x: Tensor) -> Tensor:
        return self.upper(x)


X, WIDE = numbers(200, 12), 3 * numbers(100, 12, seed=2)
CHIP = aimc.load_chip("analog-fabric", overrides=("tile.rows=8",))
METHODS = ("max", "percentile:97", "k-sigma:3", "mse")


def compiled_ways(*names: str, chip: aimc.ChipSpec = CHIP) -> aimc.CompiledModel:
    calls = {name: aimc.Entry(inputs=(X[:1],), method=name) for name in names}
    return aimc.compile(Ways().eval(), chip, entries=calls)


@pytest.mark.parametrize("method", METHODS)
def test_what_entries_share_sees_the_data_of_all(method: str) -> None:
    """As if one entry had seen all of it."""
    both = compiled_ways("forward", "first").calibrate({"forward": X.split(64), "first": [WIDE]}, method).ranges
    pooled = compiled_ways("first").calibrate([X, WIDE], method).ranges
    alone = compiled_ways("forward").calibrate([X], method).ranges
    assert both is not None
    assert pooled is not None
    assert alone is not None
    assert both.samples == 300
    assert [row.op for row in both.rows] == ["lower", "lower", "upper", "upper"]
    assert torch.allclose(both.of("lower"), pooled.of("lower"), rtol=1e-6)
    assert torch.allclose(both.of("upper"), alone.of("upper"), rtol=1e-6)
    assert not torch.allclose(both.of("lower"), alone.of("lower"), rtol=1e-2)


@pytest.mark.parametrize("method", ["max", "mse"])
def test_output_bounds_are_pooled_as_well(method: str) -> None:
    chip = aimc.load_chip("analog-fabric", overrides=("tile.adc.out_bound=calibrated",))
    data = {"forward": (each for each in X.split(64)), "first": [WIDE]}
    both = compiled_ways("forward", "first", chip=chip).calibrate(data, output_ranges=method).ranges
    pooled = compiled_ways("first", chip=chip).calibrate([X, WIDE], output_ranges=method).ranges
    assert both is not None
    assert pooled is not None
    assert both.outputs is not None
    assert pooled.outputs is not None
    assert [row.op for row in both.outputs.rows] == ["lower", "upper"]
    found, expected = both.outputs.rows[0], pooled.outputs.rows[0]
    assert (found.bound, found.largest, found.clipped) == pytest.approx(
        (expected.bound, expected.largest, expected.clipped), rel=1e-5
    )


def test_an_entry_whose_operations_others_reach_needs_no_data() -> None:
    compiled = compiled_ways("first", "forward", "last").calibrate({"forward": [X]})
    alone = compiled_ways("forward").calibrate([X])
    assert compiled.ranges == alone.ranges
    assert compiled.deploy()(X, entry="last").shape == (200, 4)


def test_operations_without_data_are_named() -> None:
    with pytest.raises(
        CalibrationError, match=r"'upper' of entry 'last' sees none of the calibration data, which is for 'first'"
    ):
        compiled_ways("first", "last").calibrate({"first": [X]})


def test_data_of_several_entries_says_whose_it_is() -> None:
    compiled = compiled_ways("first", "last")
    with pytest.raises(CalibrationError, match=r"several entries \(first, last\).* as in {'first': batches}"):
        compiled.calibrate([X])
    with pytest.raises(DataError, match="no entry 'lost': did you mean 'last'"):
        compiled.calibrate({"first": [X], "lost": [X]})
    with pytest.raises(CalibrationError, match="calibration data is empty: give batches by entry"):
        compiled.calibrate({})
    with pytest.raises(CalibrationError, match="calibration data of entry 'last' is empty"):
        compiled.calibrate({"first": [X], "last": []})
    with pytest.raises(CalibrationError, match="calibration batch of entry 'last' 0 does not run through the network"):
        compiled.calibrate({"first": [X], "last": [X[:, :3]]})
    assert compiled_ways("first").calibrate({"first": [X]}).ranges == compiled_ways("first").calibrate([X]).ranges
